"""Compiled updates: the right numbers, the same in every attempt, and words where they cannot be had.

Inductor takes 40 s for its first update. What is ours is the graph that it is given, so here that runs as it is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from core.spec.job import GradientClipping, Regularization
from core.train.compiling import CannotCompile
from core.train.loop import fit
from tests.core.train.attempts import SPEC, Job
from tests.core.train.small import build, perceptron, two_moons, weights_of
from tests.core.train.test_tape import OPTIMIZERS, in_groups

COMPILED: dict[str, Any] = {**SPEC, "compile": True}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let graphs run as they are instead of compiled; return a list with an entry for each time that one runs."""
    runs: list[int] = []

    def lower(graph: torch.fx.GraphModule, example: Any, options: Any) -> Callable[..., Any]:
        def run(*tensors: torch.Tensor) -> Any:
            runs.append(1)
            return graph(*tensors)

        return run

    monkeypatch.setattr("torch._inductor.compile", lower)
    monkeypatch.setattr("core.train.compiling.check_tools", lambda: None)
    return runs


VARIETIES: dict[str, dict[str, Any]] = {
    **{name: {"optimizer": optimizer} for name, optimizer in OPTIMIZERS.items()},
    "groups": {"optimizer": in_groups},
    "clipped by norm": {"clipping": GradientClipping(max_norm=0.1)},
    "clipped by value": {"clipping": GradientClipping(clip_value=0.01)},
    "penalty": {"regularization": Regularization(l1=1e-3, l2=1e-2)},
    "schedule by step": {
        "scheduler": lambda optimizer, steps: OneCycleLR(optimizer, max_lr=0.05, total_steps=4 * steps),
        "interval": "step",
        "optimizer": lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1),
    },
}


@pytest.mark.parametrize("variety", VARIETIES)
def test_compiled_updates_give_the_numbers_of_plain_ones(variety: str, compiled: list[int], tmp_path: Path) -> None:
    found = []
    for is_compiled in (True, False):
        torch.manual_seed(3)
        (tmp_path / str(is_compiled)).mkdir()
        trainer, recorder = build(
            tmp_path / str(is_compiled), model=perceptron(dropout=0.3), train=two_moons(100),
            val=two_moons(40, seed=1), epochs=4, **VARIETIES[variety],
        )  # fmt: skip
        if is_compiled:
            trainer.compile()
            tried = len(compiled)
        fit(trainer)
        found.append((weights_of(trainer.model), [row["grad_norm"] for row in recorder.rows]))
    assert len(compiled) - tried >= 4 * 6 - 1  # 6 full batches an epoch; the optimizer's first update makes its state
    torch.testing.assert_close(*(weights for weights, _ in found), rtol=2e-4, atol=2e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4)


@pytest.mark.parametrize("stop_at", [3, 8, 13])
def test_an_interrupted_compiled_job_ends_with_the_same_bits(
    stop_at: int, compiled: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.train.watch.POLL_SECONDS", 0.0)
    whole, job = Job(COMPILED, tmp_path / "whole"), Job(COMPILED, tmp_path / "job")
    whole.attempt()
    runs = len(compiled)
    job.attempt(stop_at=stop_at)
    job.attempt()
    assert runs > 1
    assert job.outcome() == whole.outcome()
    assert job.spec["compile"] is True


def test_what_ran_is_told_once_and_stands_in_the_resolved_spec(compiled: list[int], tmp_path: Path) -> None:
    started = Job(COMPILED, tmp_path).attempt().started
    assert started.resolved_spec["compile"] is True
    (told,) = started.warnings
    assert told["code"] == "compile"
    assert told["compiled"] is True


def test_auto_compiles_nothing_however_many_epochs_are_planned(compiled: list[int], tmp_path: Path) -> None:
    started = Job({**SPEC, "epochs": 1_000_000, "max_steps": 9}, tmp_path).attempt().started
    assert started.resolved_spec["compile"] is False
    assert not started.warnings
    assert not compiled


def test_without_a_compiler_the_job_runs_as_ever_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    plain, job = Job({**SPEC, "compile": False}, tmp_path / "plain"), Job(COMPILED, tmp_path / "job")
    plain.attempt()
    started = job.attempt().started
    assert started.resolved_spec["compile"] is False
    assert "there is no C++ compiler here (no-such-compiler)" in started.warnings[0]["detail"]
    assert job.outcome() == plain.outcome()


def lbfgs(weights: Any) -> Optimizer:
    return torch.optim.LBFGS(weights)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"optimizer": lbfgs}, "several times"),
        ({"precision": "16-mixed"}, "scales the loss"),
        ({"accumulate": 2}, "several batches"),
        ({"loss_fn": lambda output, target: output.mean() * float(target.sum())}, "torch cannot compile it"),
    ],
)
def test_what_cannot_be_compiled_is_said_in_words(
    settings: dict[str, Any], reason: str, compiled: list[int], tmp_path: Path
) -> None:
    trainer, _ = build(tmp_path, **settings)
    with pytest.raises(CannotCompile, match=reason):
        trainer.compile()
