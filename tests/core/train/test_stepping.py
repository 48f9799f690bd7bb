"""Steps over all weights at once, against torch's own, bit for bit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from core.train import stepping
from core.train.stepping import at_once

SHAPES = [(7, 31), (5,), (129,), (64,), (3, 2, 2, 2), (1,), (33, 4)]
OPTIMIZERS: dict[str, Callable[[list[dict[str, object]]], Optimizer]] = {
    "SGD": lambda groups: SGD(groups, lr=0.1),
    "Nesterov": lambda groups: SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "dampening": lambda groups: SGD(groups, lr=0.1, momentum=0.9, dampening=0.3),
    "Adam": lambda groups: Adam(groups, lr=0.01),
    "Adam, decay": lambda groups: Adam(groups, lr=0.01, weight_decay=0.1),
    "AdamW": lambda groups: AdamW(groups, lr=0.01, weight_decay=0.1, betas=(0.8, 0.95)),
}


@pytest.fixture(params=["joined", "one by one"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "one by one":
        monkeypatch.setattr(stepping, "MAX_JOINED", 0)


def weights_of(seed: int) -> list[Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draws).requires_grad_() for shape in SHAPES]


def groups_of(weights: list[Tensor], count: int) -> list[dict[str, object]]:
    """Split into groups that take turns; the later ones learn faster."""
    return [{"params": weights[place::count], **({"lr": 0.2} if place else {})} for place in range(count)]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_give_the_bits_of_torchs_own(name: str, layout: str, count: int) -> None:
    own, expected = weights_of(0), weights_of(0)
    if layout == "columns":  # as channels_last: dense, but not in the order of the elements
        for weights in (own, expected):
            weights[0].data = weights[0].data.t().contiguous().t()
    optimizer, torchs = (OPTIMIZERS[name](groups_of(weights, count)) for weights in (own, expected))
    step = None
    for update in range(5):
        grads = [weight.detach() * 0.1 + 0.01 * update for weight in weights_of(update + 1)]
        for weights in (own, expected):
            for weight, grad in zip(weights, grads, strict=True):
                weight.grad = grad.clone()
        for group in (*optimizer.param_groups, *torchs.param_groups):
            group["lr"] *= 0.9
        torchs.step()
        if step is None:
            optimizer.step()
            step = at_once(optimizer, own)
            assert step is not None
        else:
            with torch.no_grad():
                step(grads)
    assert all(map(torch.equal, own, expected))
    for weight, other in zip(own, expected, strict=True):
        for key, value in torchs.state[other].items():
            assert value is None or torch.equal(optimizer.state[weight][key], value)


def test_many_elements_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(0)
    optimizer = SGD(weights, lr=0.1)
    assert at_once(optimizer, weights) is not None
    monkeypatch.setattr(stepping, "MAX_ELEMENTS", 100)
    assert at_once(optimizer, weights) is None
