"""Losses, optimizers and schedules from specs, against torch's own built by hand."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

from core.errors import SpecInvalid
from core.spec import catalog, parse_object
from core.spec.job import JobSpec
from core.train import build
from core.train.build.losses import alike
from tests.core.train.specs import DIGITS

SCHEDULES: dict[str, dict[str, Any]] = {
    "ChainedScheduler": {"schedulers": [{"type": "StepLR", "step_size": 2}, {"type": "ExponentialLR", "gamma": 0.9}]},
    "ConstantLR": {},
    "CosineAnnealingLR": {"T_max": "epochs"},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"total_iters": "epochs"},
    "MultiStepLR": {"milestones": [2, 3]},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": "epochs"},
    "PolynomialLR": {"total_iters": 4},
    "ReduceLROnPlateau": {"patience": 1},
    "SequentialLR": {
        "schedulers": [{"type": "LinearLR", "total_iters": 2}, {"type": "ExponentialLR", "gamma": 0.5}],
        "milestones": [2],
    },
    "StepLR": {"step_size": 2},
}


def spec_of(**more: Any) -> JobSpec:
    return parse_object({**DIGITS, **more})


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def matrices() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))


def words() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 2, sparse=True))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    x = (
        torch.arange(3)
        if isinstance(model.get_submodule("0"), nn.Embedding)
        else torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return float(loss.detach())

    for _ in range(3):
        optimizer.step(closure)
    return [weight.detach() for weight in model.parameters()]


@pytest.mark.parametrize("name", catalog.names("optimizers"))
def test_every_optimizer_updates_as_torchs_own_does(name: str) -> None:
    make = {"Muon": matrices, "SparseAdam": words}.get(name, net)
    ours, plain = make(), make()
    optimizer = build.optimizer(spec_of(optimizer={"type": name, "lr": 0.05}), ours)
    own = getattr(torch.optim, name)(plain.parameters(), lr=0.05)
    assert all(map(torch.equal, trained(ours, optimizer), trained(plain, own)))


def test_muon_leaves_what_is_no_matrix_to_adamw() -> None:
    ours, plain = net(), net()
    optimizer = build.optimizer(spec_of(optimizer={"type": "Muon", "lr": 0.05, "weight_decay": 0.2}), ours)
    muon = torch.optim.Muon([w for w in plain.parameters() if w.ndim == 2], lr=0.05, weight_decay=0.2)
    adamw = torch.optim.AdamW([w for w in plain.parameters() if w.ndim != 2], lr=0.05, weight_decay=0.2)
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        plain(x).square().mean().backward()
        for one in (muon, adamw):
            one.step()
            one.zero_grad()
    assert all(map(torch.equal, trained(ours, optimizer), plain.parameters()))


def test_muon_with_adamw_goes_on_from_its_state_under_a_schedule() -> None:
    def begin() -> tuple[nn.Sequential, torch.optim.Optimizer, Any]:
        model = net()
        optimizer = build.optimizer(spec_of(optimizer={"type": "Muon", "lr": 0.05}), model)
        return model, optimizer, schedulers.ExponentialLR(optimizer, 0.5)

    whole, optimizer, schedule = begin()
    trained(whole, optimizer)
    schedule.step()
    resumed, second, other = begin()
    resumed.load_state_dict({key: value.clone() for key, value in whole.state_dict().items()})
    other.load_state_dict(schedule.state_dict())
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [group["lr"] for group in second.param_groups] == [0.025, 0.025]
    assert all(map(torch.equal, trained(whole, optimizer), trained(resumed, second)))


def test_groups_take_their_own_arguments_in_order_after_the_rest() -> None:
    groups = [{"match": r"^2\.", "lr": 0.5}, {"match": "bias$", "weight_decay": 0.0}]
    spec = spec_of(optimizer={"type": "SGD", "lr": 0.1, "weight_decay": 0.01, "param_groups": groups})
    model = net()
    optimizer = build.optimizer(spec, model)
    named = {id(weight): name for name, weight in model.named_parameters()}
    seen = [
        ([named[id(w)] for w in group["params"]], group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
    ]
    assert seen == [(["0.weight"], 0.1, 0.01), (["2.weight", "2.bias"], 0.5, 0.01), (["0.bias"], 0.1, 0.0)]


def test_frozen_parameters_are_left_out() -> None:
    model = net()
    model[0].requires_grad_(False)
    optimizer = build.optimizer(spec_of(), model)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_a_group_that_matches_frozen_parameters_only_is_refused() -> None:
    model = net()
    model[0].requires_grad_(False)
    with pytest.raises(SpecInvalid) as refused:
        build.optimizer(spec_of(optimizer={"type": "SGD", "param_groups": [{"match": "^0"}]}), model)
    assert refused.value.issues[0].pointer == "/optimizer/param_groups/0/match"


def test_lbfgs_with_groups_is_refused() -> None:
    with pytest.raises(SpecInvalid) as refused:
        build.optimizer(spec_of(optimizer={"type": "LBFGS", "param_groups": [{"match": "^0"}]}), net())
    assert refused.value.issues[0].pointer == "/optimizer/param_groups"


@pytest.mark.parametrize("name", catalog.names("lr_schedulers"))
def test_every_scheduler_is_built_and_steps(name: str) -> None:
    spec = spec_of(lr_scheduler={"type": name, **SCHEDULES[name]}, epochs=6)
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1, momentum=0.9)
    scheduler = build.lr_scheduler(spec, optimizer, steps_per_epoch=3, epochs=6)
    assert type(scheduler) is getattr(schedulers, name)
    for _ in range(6):
        optimizer.step()
        scheduler.step(1.0) if isinstance(scheduler, schedulers.ReduceLROnPlateau) else scheduler.step()


def test_no_scheduler_is_built_where_none_is_asked_for() -> None:
    assert build.lr_scheduler(spec_of(), torch.optim.SGD(net().parameters()), steps_per_epoch=3, epochs=6) is None


@pytest.mark.parametrize(
    ("word", "more", "count"), [("epochs", {}, 6), ("steps", {}, 18), ("steps", {"max_steps": 10}, 10)]
)
def test_words_stand_for_the_counts_of_the_job(word: str, more: dict[str, Any], count: int) -> None:
    spec = spec_of(lr_scheduler={"type": "CosineAnnealingLR", "T_max": word}, epochs=6, **more)
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    scheduler = build.lr_scheduler(spec, optimizer, steps_per_epoch=3, epochs=6)
    assert isinstance(scheduler, schedulers.CosineAnnealingLR)
    assert scheduler.T_max == count


OUTPUTS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 2, 1, 1])
YES = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
NUMBERS = torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
ORACLES: dict[str, tuple[Tensor, Tensor, Tensor]] = {
    "CrossEntropyLoss": (OUTPUTS, LABELS, LABELS),
    "NLLLoss": (OUTPUTS.log_softmax(1), LABELS, LABELS),
    "MultiMarginLoss": (OUTPUTS, LABELS, LABELS),
    "BCEWithLogitsLoss": (OUTPUTS, YES, YES),
    "BCELoss": (OUTPUTS.sigmoid(), YES, YES),
    "MultiLabelSoftMarginLoss": (OUTPUTS, YES, YES),
    "MultiLabelMarginLoss": (OUTPUTS, YES, torch.tensor([[0, 2, -1], [-1, -1, -1], [1, 2, -1], [0, 1, 2]])),
    "SoftMarginLoss": (OUTPUTS, YES, 2 * YES - 1),
    "HingeEmbeddingLoss": (OUTPUTS, YES, 2 * YES - 1),
    "MSELoss": (OUTPUTS, NUMBERS, NUMBERS),
    "L1Loss": (OUTPUTS, NUMBERS, NUMBERS),
    "SmoothL1Loss": (OUTPUTS, NUMBERS, NUMBERS),
    "HuberLoss": (OUTPUTS, NUMBERS, NUMBERS),
    "PoissonNLLLoss": (OUTPUTS, NUMBERS, NUMBERS),
    "KLDivLoss": (OUTPUTS.log_softmax(1), NUMBERS.softmax(1), NUMBERS.softmax(1)),
}
"""Output, target as the data has it, target as torch's class wants it."""


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", catalog.names("losses"))
def test_every_loss_is_torchs_own(name: str) -> None:
    output, target, wanted = ORACLES[name]
    assert torch.equal(build.loss(spec_of(loss=name))(output, target), getattr(nn, name)()(output, wanted))


def test_losses_are_added_with_their_coefficients() -> None:
    terms = [{"type": "MSELoss", "coefficient": 0.5}, {"type": "L1Loss", "coefficient": 2}]
    expected = 0.5 * nn.MSELoss()(OUTPUTS, NUMBERS) + 2 * nn.L1Loss()(OUTPUTS, NUMBERS)
    assert torch.equal(build.loss(spec_of(loss=terms))(OUTPUTS, NUMBERS), expected)


def test_balanced_weights_are_the_classes_own() -> None:
    weights = torch.tensor([2.0, 1.0, 0.5])
    loss = build.loss(spec_of(loss={"type": "CrossEntropyLoss", "weight": "balanced"}), class_weights=weights)
    assert torch.equal(loss(OUTPUTS, LABELS), nn.CrossEntropyLoss(weight=weights)(OUTPUTS, LABELS))


def test_balanced_weights_of_two_classes_weigh_each_sample() -> None:
    weights, target = torch.tensor([0.5, 2.0]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    loss = build.loss(spec_of(loss={"type": "BCEWithLogitsLoss", "weight": "balanced"}), class_weights=weights)
    output = OUTPUTS[:, :1]
    each = nn.BCEWithLogitsLoss(reduction="none")(output, target.unsqueeze(1))
    assert torch.allclose(loss(output, target), (each.squeeze(1) * torch.tensor([2.0, 0.5, 0.5, 2.0])).mean())


def test_given_weights_are_used() -> None:
    loss = build.loss(spec_of(loss={"type": "CrossEntropyLoss", "weight": [1, 2, 3]}))
    assert torch.equal(loss(OUTPUTS, LABELS), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3]))(OUTPUTS, LABELS))


def test_one_number_per_sample_is_a_column() -> None:
    loss = build.loss(spec_of(loss="MSELoss"))
    output, target = torch.randn(5, 1), torch.randn(5)
    assert torch.equal(loss(output, target), (output[:, 0] - target).square().mean())


@pytest.mark.parametrize(("output", "target"), [((5,), (5, 1)), ((5, 2), (5,)), ((5, 2), (5, 1)), ((5, 1), (5, 5))])
def test_shapes_are_never_broadcast(output: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="output has shape"):
        alike(torch.zeros(output), torch.zeros(target))
