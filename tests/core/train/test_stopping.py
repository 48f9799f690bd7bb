from pathlib import Path
from typing import Any

import pytest
import torch

from core.spec.job import Converged, EarlyStopping, StopWhen
from core.train.loop import fit
from core.train.stopping import StopRules
from core.train.watch import TimeUsedUp
from tests.core.train.small import Recorder, build, perceptron, two_moons


def first_stop(rule: StopWhen, values: list[float]) -> tuple[int, str] | None:
    rules = StopRules([rule])
    for epoch, value in enumerate(values, start=1):
        stop = rules.check({rule.monitor: value}, epoch, step=epoch)
        if stop is not None:
            return epoch, stop.reason
    return None


def test_below_is_strict() -> None:
    rule = StopWhen(monitor="val_loss", below=0.5)
    assert first_stop(rule, [1.0, 0.5, 0.4]) == (3, "stopping_threshold")


def test_above_is_strict() -> None:
    rule = StopWhen(monitor="val_accuracy", above=0.5)
    assert first_stop(rule, [0.1, 0.5, 0.6]) == (3, "stopping_threshold")


def test_converged_needs_a_full_window_that_moved_less_than_tolerance() -> None:
    rule = StopWhen(monitor="train_loss", converged=Converged(window=3, tolerance=0.1))
    assert first_stop(rule, [1.0, 0.5, 0.45, 0.48, 0.2]) == (4, "converged")
    assert first_stop(rule, [1.0, 1.0]) is None


def test_nan_never_converges() -> None:
    rule = StopWhen(monitor="train_loss", converged=Converged(window=2, tolerance=1.0))
    assert first_stop(rule, [float("nan")] * 4) is None


def test_the_decision_of_a_rule_has_its_numbers() -> None:
    rules = StopRules([StopWhen(monitor="train_loss", below=0.5)])
    stop = rules.check({"train_loss": 0.25}, 3, 12)
    assert stop is not None
    assert stop.decision == {
        "kind": "stop_when", "epoch": 3, "step": 12, "monitor": "train_loss", "value": 0.25, "action": "stop",
        "reason": "below", "below": 0.5,
    }  # fmt: skip


def test_a_job_that_is_good_enough_stops_and_says_so(tmp_path: Path) -> None:
    trainer, recorder = build(tmp_path, rules=(StopWhen(monitor="train_loss", below=100.0),), epochs=9)
    assert fit(trainer) == "stopping_threshold"
    assert [row["epoch"] for row in recorder.rows] == [1]
    assert [decision["kind"] for decision in recorder.decisions] == ["stop_when"]


def test_early_stopping_ends_exactly_at_best_epoch_plus_patience(tmp_path: Path) -> None:
    trainer, recorder = build(
        tmp_path, val=two_moons(30, seed=2), stopping=EarlyStopping(patience=3, min_delta=0.01), epochs=200
    )
    assert fit(trainer) == "early_stopping"
    assert trainer.at.epoch == trainer.judge.best.epoch + 3  # type: ignore[operator]
    last = recorder.decisions[-1]
    assert (last["action"], last["reason"], last["wait"]) == ("stop", "patience", 3)
    assert recorder.rows[-1]["early_stopping"]["action"] == "stop"


def test_best_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    val = two_moons(30, seed=2)
    trainer, recorder = build(tmp_path, val=val, stopping=EarlyStopping(patience=3), epochs=200)
    fit(trainer)
    best = recorder.rows[trainer.judge.best.epoch - 1]  # type: ignore[operator]
    trainer.model.load_state_dict(trainer.judge.best.weights)
    assert trainer.val is not None
    assert trainer.evaluator(trainer.model, trainer.val) == best["val"]


def test_max_steps_ends_in_mid_epoch_with_a_row(tmp_path: Path) -> None:
    trainer, recorder = build(tmp_path, val=two_moons(30, seed=2), max_steps=5, epochs=9)
    assert fit(trainer) == "max_steps"
    assert [(row["epoch"], row["step"]) for row in recorder.rows] == [(1, 4), (2, 5)]
    assert recorder.rows[-1]["val"] is not None


def test_max_steps_at_the_very_end_is_completed(tmp_path: Path) -> None:
    trainer, _ = build(tmp_path, max_steps=12, epochs=3)
    assert fit(trainer) == "completed"


def explode(weights: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, lr=1e30)


def test_a_loss_that_is_not_finite_ends_the_job_with_its_row(tmp_path: Path) -> None:
    trainer, recorder = build(tmp_path, optimizer=explode, epochs=9)
    assert fit(trainer) == "non_finite"
    assert recorder.rows[-1]["train"]["loss"] is None
    assert recorder.rows[-1]["non_finite"]["train.loss"] in ("nan", "inf")


def test_without_a_finite_best_a_not_finite_monitor_is_a_failure(tmp_path: Path) -> None:
    trainer, recorder = build(
        tmp_path, optimizer=explode, val=two_moons(30, seed=2), stopping=EarlyStopping(patience=3), epochs=9
    )
    assert fit(trainer) == "non_finite"
    assert recorder.decisions[-1]["reason"] == "not_finite"


def test_with_a_best_to_go_back_to_a_not_finite_monitor_is_early_stopping(tmp_path: Path) -> None:
    trainer, _ = build(tmp_path, val=two_moons(30, seed=2), stopping=EarlyStopping(patience=9), epochs=9)
    steps = iter(range(100))
    count = trainer.count

    def poison(batches: Any) -> None:
        count(batches)
        if next(steps) == 6:  # in the second epoch
            with torch.no_grad():
                next(trainer.model.parameters()).fill_(float("nan"))

    trainer.count = poison  # type: ignore[method-assign]
    assert fit(trainer) == "early_stopping"
    assert trainer.judge.best.epoch == 1
    assert all(bool(value.isfinite().all()) for value in trainer.judge.best.weights.values())


def test_divergence_ends_as_diverged(tmp_path: Path) -> None:
    stopping = EarlyStopping(divergence_threshold=0.0001)
    trainer, _ = build(tmp_path, val=two_moons(30, seed=2), stopping=stopping, epochs=9)
    assert fit(trainer) == "diverged"


def test_the_time_limit_counts_active_seconds(tmp_path: Path) -> None:
    now = iter(range(10_000))
    trainer, _ = build(tmp_path, limit_seconds=50.0, clock=lambda: float(next(now)), epochs=1000)
    with pytest.raises(TimeUsedUp, match=r"execution\.max_runtime_seconds"):
        fit(trainer)
    assert 0 < trainer.at.step < 100


def test_validating_every_second_epoch_leaves_val_empty_between_and_validates_the_last(tmp_path: Path) -> None:
    trainer, recorder = build(tmp_path, val=two_moons(30, seed=2), validate_epochs=2, epochs=5)
    fit(trainer)
    assert [row["val"] is not None for row in recorder.rows] == [False, True, False, True, True]


def test_the_initial_state_is_the_row_of_epoch_zero(tmp_path: Path) -> None:
    trainer, recorder = build(tmp_path, val=two_moons(30, seed=2), evaluate_at_start=True, epochs=1)
    fit(trainer)
    loss = float(torch.nn.functional.cross_entropy(perceptron()(two_moons().inputs), two_moons().target).detach())
    assert [row["epoch"] for row in recorder.rows] == [0, 1]
    assert recorder.rows[0]["train"]["loss"] == pytest.approx(loss, rel=1e-6)


def test_a_lr_cut_is_a_decision_with_its_numbers(tmp_path: Path) -> None:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    trainer, recorder = build(
        tmp_path, val=two_moons(30, seed=2), epochs=3,
        scheduler=lambda optimizer, _steps: ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.9),
    )  # fmt: skip
    fit(trainer)
    first = next(decision for decision in recorder.decisions if decision["kind"] == "lr_cut")
    assert (first["epoch"], first["lr_before"], first["lr_after"]) == (2, [0.1], [0.05])
    assert [row["lr"] for row in recorder.rows] == [[0.1], [0.1], [0.05]]


def test_checkpoints_are_published_not_more_than_twice_a_second_with_rows_in_groups(tmp_path: Path) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.01
        return now

    recorder = Recorder()
    trainer, _ = build(tmp_path, recorder=recorder, clock=clock, epochs=40)
    fit(trainer)
    assert [row["epoch"] for row in recorder.rows] == list(range(1, 41))
    assert 1 < len(recorder.publications) <= now / 0.5 + 2
    assert all(p.rows[-1]["epoch"] == p.checkpoint.epoch for p in recorder.publications)
    assert len(list(tmp_path.glob("checkpoint-*.pt"))) == 2
