"""Interrupted anywhere and resumed, a training ends with the same bits as one that nobody disturbed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from core.spec.job import CheckpointEvery, EarlyStopping, StopWhen
from core.train.checkpoint import load
from core.train.data import Split
from core.train.loop import fit
from core.train.trainer import Trainer
from core.train.watch import Interrupted
from tests.core.train.small import Recorder, are_equal, build, perceptron, two_moons, weights_of

EPOCHS, STEPS = 6, 4
TIMED = ("seconds", "samples_per_second")


def noise(inputs: Tensor) -> Tensor:
    return inputs + 0.1 * torch.randn_like(inputs)


def everything(folder: Path, recorder: Recorder | None = None, **more: Any) -> tuple[Trainer, Recorder]:
    """Dropout, BatchNorm, AdamW, OneCycleLR by step, EMA, early stopping, random transforms."""
    folder.mkdir(exist_ok=True)
    return build(
        folder,
        recorder=recorder,
        model=perceptron(dropout=0.3, batch_norm=True),
        val=two_moons(40, seed=1),
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=0.01),
        scheduler=lambda optimizer, steps: OneCycleLR(optimizer, max_lr=0.05, total_steps=EPOCHS * steps),
        interval="step",
        transform=noise,
        ema=0.9,
        stopping=EarlyStopping(patience=3, min_delta=0.01),
        rules=(StopWhen(monitor="train_loss", below=0.001),),
        every=CheckpointEvery(epochs=1),
        epochs=EPOCHS,
        **more,
    )


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


def stop_after(trainer: Trainer, step: int) -> None:
    """Ask for a stop once `step` updates are done, however short they are."""
    trainer.watch.control.stop = lambda: "pause" if trainer.at.step >= step else None  # type: ignore[attr-defined]
    look = trainer.watch.look
    trainer.watch.tick = lambda _progress: look()  # type: ignore[method-assign]


def resume(trainer: Trainer, folder: Path, recorder: Recorder) -> None:
    reference = recorder.publications[-1].checkpoint
    trainer.load_state_dict(load(folder / reference.name, reference.digest))


def known(recorder: Recorder) -> dict[str, Any]:
    """Return what the database would tell the next attempt."""
    published = max((row["epoch"] for row in recorder.rows), default=0)
    return {"published_epochs": published, "is_start_published": bool(recorder.publications)}


def interrupted(folder: Path, steps: list[int], **more: Any) -> tuple[Trainer, Recorder]:
    """Train with a stop after each of `steps`, every time in a new trainer."""
    recorder = Recorder()
    for step in steps:
        trainer, _ = everything(folder, recorder, **known(recorder), **more)
        if recorder.publications:
            resume(trainer, folder, recorder)
        stop_after(trainer, step)
        with pytest.raises(Interrupted):
            fit(trainer)
        trainer.save()
    recorder.stop = lambda: None
    torch.manual_seed(99)  # what the new process happens to draw must not matter
    trainer, _ = everything(folder, recorder, **known(recorder), **more)
    resume(trainer, folder, recorder)
    assert fit(trainer) == "completed"
    return trainer, recorder


def assert_same(left: tuple[Trainer, Recorder], right: tuple[Trainer, Recorder]) -> None:
    assert without_times(left[1].rows) == without_times(right[1].rows)
    assert left[1].decisions == right[1].decisions
    assert are_equal(weights_of(left[0].model), weights_of(right[0].model))
    assert are_equal(weights_of(left[0].judged_model), weights_of(right[0].judged_model))
    assert left[0].judge.best.epoch == right[0].judge.best.epoch
    assert are_equal(list(left[0].judge.best.weights.values()), list(right[0].judge.best.weights.values()))


def undisturbed(folder: Path, **more: Any) -> tuple[Trainer, Recorder]:
    trainer, recorder = everything(folder, **more)
    assert fit(trainer) == "completed"
    return trainer, recorder


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 8, 10, 12, 16, 20, 23, 24])
def test_stopped_at_any_step_the_bits_are_those_of_an_undisturbed_run(step: int, tmp_path: Path) -> None:
    assert_same(interrupted(tmp_path / "a", [step]), undisturbed(tmp_path / "b"))


def test_stopped_at_every_step_the_bits_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    steps = list(range(1, EPOCHS * STEPS))
    assert_same(interrupted(tmp_path / "a", steps), undisturbed(tmp_path / "b"))


@pytest.mark.parametrize("step", [2, 3, 6, 9])
def test_validation_within_an_epoch_resumes_exactly(step: int, tmp_path: Path) -> None:
    more: dict[str, Any] = {"validate_steps": 3, "validate_epochs": None, "accumulate": 1, "evaluate_at_start": True}
    found = interrupted(tmp_path / "a", [step], **more)
    expected = undisturbed(tmp_path / "b", **more)
    assert_same(found, expected)


def test_a_stop_within_validation_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    trainer, recorder = everything(folder)
    is_validating = False
    look = trainer.watch.look

    def tick(_progress: object) -> None:
        nonlocal is_validating
        is_validating = trainer.at.step == STEPS and not trainer.judged_model.training
        look()

    trainer.watch.tick = tick  # type: ignore[method-assign]
    evaluator = trainer.evaluator.tick
    calls: list[int] = []

    def in_evaluation() -> None:
        calls.append(trainer.at.step)
        if len(calls) == 2:  # the second epoch's
            recorder.stop = lambda: "drain"
        evaluator()

    trainer.evaluator.tick = in_evaluation
    with pytest.raises(Interrupted):
        fit(trainer)
    trainer.save()
    assert recorder.publications[-1].checkpoint.step == 2 * STEPS
    assert recorder.publications[-1].checkpoint.epoch == 1
    recorder.stop = lambda: None
    second, _ = everything(folder, recorder, published_epochs=1)
    resume(second, folder, recorder)
    fit(second)
    assert_same((second, recorder), undisturbed(tmp_path / "b"))


def test_epochs_that_are_known_already_are_computed_again_but_not_sent(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    first, recorder = everything(folder)
    stop_after(first, 2 * STEPS)
    with pytest.raises(Interrupted):
        fit(first)
    first.save()
    old = recorder.publications[0].checkpoint  # epoch 1
    known = Recorder()
    second, _ = everything(folder, known, published_epochs=3)
    second.load_state_dict(load(folder / old.name, old.digest))
    fit(second)
    expected = undisturbed(tmp_path / "b")
    assert without_times(known.rows) == without_times(expected[1].rows[3:])
    assert [d["epoch"] for d in known.decisions] == [4, 5, 6]
    assert min(publication.checkpoint.epoch for publication in known.publications) >= 3
    assert are_equal(weights_of(second.model), weights_of(expected[0].model))


def test_an_epoch_stopped_early_by_max_steps_resumes_to_its_row(tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None) -> tuple[Trainer, Recorder]:
        folder.mkdir()
        trainer, recorder = build(folder, val=two_moons(20, seed=1), max_steps=6, epochs=9)
        if stop is not None:
            stop_after(trainer, stop)
            with pytest.raises(Interrupted):
                fit(trainer)
            trainer.save()
            recorder.stop = lambda: None
            trainer, _ = build(
                folder, recorder=recorder, val=two_moons(20, seed=1), max_steps=6, epochs=9, **known(recorder)
            )
            resume(trainer, folder, recorder)
        assert fit(trainer) == "max_steps"
        return trainer, recorder

    found, expected = run(tmp_path / "a", 6), run(tmp_path / "b", None)
    assert [row["step"] for row in found[1].rows] == [4, 6]
    assert_same(found, expected)


@pytest.mark.parametrize("left", [0, 1, 3])
def test_the_batches_that_are_done_are_neither_gathered_nor_computed_again(left: int, tmp_path: Path) -> None:
    samples = 60  # in 4 batches of at most 16
    first, recorder = build(tmp_path, epochs=1)
    stop_after(first, STEPS - left)
    with pytest.raises(Interrupted):
        fit(first)
    first.save()
    recorder.stop = lambda: None
    second, _ = build(tmp_path, recorder=recorder, epochs=1)
    resume(second, tmp_path, recorder)
    forwards: list[int] = []
    gathered: list[int] = []
    second.model.register_forward_pre_hook(lambda _model, inputs: forwards.append(len(inputs[0])))
    split = second.train.split

    class Counted(Split):
        def gather(self, order: Tensor) -> tuple[Tensor, Tensor]:
            gathered.append(len(order))
            return super().gather(order)

    second.train.split = Counted(split.inputs, split.target, split.rows)
    fit(second)
    assert len(forwards) == left
    assert sum(gathered) == sum(forwards) == max(0, samples - 16 * (STEPS - left))


def bfloat16() -> torch.nn.Module:
    return perceptron().to(torch.bfloat16)


@pytest.mark.parametrize("name", ["ASGD", "Adafactor", "AdamW", "NAdam", "RAdam", "Rprop"])
def test_sums_that_are_finer_than_the_weights_are_not_rounded(name: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "optimizer": lambda weights: getattr(torch.optim, name)(weights, lr=0.01),
        "precision": "bf16-true",
        "epochs": 2,
    }
    first, recorder = build(tmp_path, model=bfloat16(), **more)
    fit(first)
    second, _ = build(tmp_path, model=bfloat16(), **more)
    resume(second, tmp_path, recorder)
    expected, found = (trainer.updater.optimizer.state_dict()["state"] for trainer in (first, second))
    assert found.keys() == expected.keys()
    for index, values in expected.items():
        for key, value in values.items():
            torch.testing.assert_close(found[index][key], value, rtol=0.0, atol=0.0)
