"""A tape must give what autograd gives, bit for bit, or not be used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from typing_extensions import override

from core.spec.job import GradientClipping, Regularization
from core.train.loop import fit
from core.train.tape import Tapes
from tests.core.train.attempts import TIMED
from tests.core.train.small import CPU, are_equal, build, perceptron, two_moons, weights_of

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.1),
    "SGD with all": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "SGD dampened": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, dampening=0.1),
    "SGD upwards": lambda weights: torch.optim.SGD(weights, lr=0.01, maximize=True),
    "Adam": lambda weights: torch.optim.Adam(weights, lr=0.01, weight_decay=0.1),
    "Adam amsgrad": lambda weights: torch.optim.Adam(weights, lr=0.01, amsgrad=True),
    "AdamW": lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1),
    "RMSprop": lambda weights: torch.optim.RMSprop(weights, lr=0.01, momentum=0.5),
    "Adagrad": lambda weights: torch.optim.Adagrad(weights, lr=0.05),
}


def in_groups(weights: Any) -> Optimizer:
    first, *others = list(weights)
    return torch.optim.Adam([{"params": others[::-1], "lr": 0.02}, {"params": [first]}], lr=0.01)


class Torn(nn.Module):
    """Looks at its numbers to find out what to do: the next batch may need other operators."""

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if float(inputs.sum()) > 0 else -inputs


class Masked(nn.Module):
    """Takes as many rows as the numbers say."""

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs - inputs[inputs[:, 0] > 0].sum() / 100


class Fickle(nn.Module):
    """Gives other numbers each time, by what no tape can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return inputs * self.calls


class TwoBiases(nn.Module):
    """Adds two weights of the same shape, whose gradients autograd hands over as one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = perceptron()
        self.first, self.second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs) + (self.first + self.second)


def both(folder: Path, model: Callable[[], nn.Module], **settings: Any) -> tuple[Any, Any, Any, Any]:
    """Train with tapes and without; return trainer and rows of each."""
    found: list[Any] = []
    for is_taped in (True, False):
        place = folder / str(is_taped)
        place.mkdir()
        torch.manual_seed(3)
        trainer, recorder = build(
            place, model=model(), train=two_moons(100), val=two_moons(40, seed=1), is_taped=is_taped, **settings
        )
        fit(trainer)
        rows = [{name: value for name, value in row.items() if name not in TIMED} for row in recorder.rows]
        found += [trainer, rows]
    return tuple(found)  # type: ignore[return-value]


def taped(trainer: Any) -> int:
    return sum(tape is not None for tape in trainer.updater.tapes._tapes.values())


VARIETIES: dict[str, dict[str, Any]] = {
    "clipped by norm": {"clipping": GradientClipping(max_norm=0.1)},
    "clipped by value": {"clipping": GradientClipping(clip_value=0.01)},
    "another norm": {"clipping": GradientClipping(max_norm=0.1, norm_type=1.0)},
    "penalty": {"regularization": Regularization(l1=1e-3, l2=1e-2)},
    "mixed precision": {"precision": "bf16-mixed"},
    "average": {"ema": 0.9},
    "schedule by step": {
        "scheduler": lambda optimizer, steps: OneCycleLR(optimizer, max_lr=0.05, total_steps=3 * steps),
        "interval": "step",
        "optimizer": lambda weights: torch.optim.AdamW(weights, lr=0.01),
    },
    "groups": {"optimizer": in_groups},
    **{name: {"optimizer": optimizer} for name, optimizer in OPTIMIZERS.items()},
}


def noisy() -> nn.Module:
    return nn.Sequential(perceptron(dropout=0.3, batch_norm=True), nn.LeakyReLU(inplace=True))


@pytest.mark.parametrize("variety", VARIETIES)
def test_a_taped_training_ends_with_the_same_bits(variety: str, tmp_path: Path) -> None:
    trainer, rows, plain, expected = both(tmp_path, noisy, **VARIETIES[variety])
    assert taped(trainer) == 2  # the full batches, and the last one
    assert are_equal(weights_of(trainer.judged_model), weights_of(plain.judged_model))
    assert rows == expected


@pytest.mark.parametrize("part", [Torn, Masked])
def test_a_model_that_cannot_be_taped_is_trained_by_autograd(part: Callable[[], nn.Module], tmp_path: Path) -> None:
    trainer, rows, plain, expected = both(tmp_path, lambda: nn.Sequential(perceptron(), part()))
    assert taped(trainer) == 0
    assert are_equal(weights_of(trainer.model), weights_of(plain.model))
    assert rows == expected


def test_a_tape_that_gives_other_numbers_is_not_used(tmp_path: Path) -> None:
    trainer, _, _, _ = both(tmp_path, lambda: nn.Sequential(perceptron(), Fickle()))
    assert taped(trainer) == 0


def test_weights_of_one_memory_are_trained_by_autograd(tmp_path: Path) -> None:
    """Their gradients may be one tensor, which clipping would shrink twice."""
    trainer, rows, plain, expected = both(tmp_path, TwoBiases, clipping=GradientClipping(max_norm=0.1))
    assert taped(trainer) == 0
    assert are_equal(weights_of(trainer.model), weights_of(plain.model))
    assert rows == expected


def test_a_tape_is_written_once_training_has_lasted(tmp_path: Path) -> None:
    trainer, _ = build(tmp_path, is_taped=True, epochs=1)  # 4 batches
    tapes = trainer.updater.tapes = Tapes(trainer.updater.recorder, CPU, after=2)
    (batch, *_) = list(trainer.train.epoch(1))
    for expected in (False, False, True):
        assert tapes.get(batch) is None
        trainer.updater.update([batch])
        assert (tapes.get(batch) is not None) is expected
