from pathlib import Path
from typing import Any

import pytest
import torch

from core.messages import Progress, Publish, Stopped
from core.spec.job import CheckpointEvery
from core.train.loop import fit
from core.train.trainer import Trainer
from core.train.watch import Interrupted
from tests.core.train.small import Recorder, build, two_moons
from tests.core.train.test_resume import assert_same, interrupted, known, resume, stop_after, undisturbed
from tests.core.train.test_run import Ends, digits, train


def test_stop_between_checkpoints_saves_where_training_stands(tmp_path: Path) -> None:
    spec = digits(epochs=5000, early_stopping=None, checkpoints={"every": {"epochs": 5000}})
    ends = train(spec, tmp_path / "1", Ends(lambda ends: "drain" if ends.of(Progress) else None))
    (publication,) = ends.of(Publish)
    assert isinstance(ends.last, Stopped)
    assert publication.checkpoint.step >= ends.of(Progress)[0].step > 0
    assert (tmp_path / "1" / publication.checkpoint.name).is_file()
    assert [row["epoch"] for row in ends.rows] == list(range(1, publication.checkpoint.epoch + 1))


@pytest.mark.parametrize("step", [4, 7])
def test_what_was_validated_before_the_stop_stands_in_the_row(step: int, tmp_path: Path) -> None:
    """Validation comes after every third update; these stops come between it and the end of its epoch."""
    more: dict[str, Any] = {"validate_steps": 3, "validate_epochs": None}
    assert_same(interrupted(tmp_path / "a", [step], **more), undisturbed(tmp_path / "b", **more))


def too_fast(folder: Path, recorder: Recorder, **more: Any) -> Trainer:
    """Return a training whose learning rate grows until it gets worse: its best epoch is not its last."""
    folder.mkdir(exist_ok=True)
    trainer, _ = build(
        folder, recorder=recorder, val=two_moons(40, seed=1), epochs=6, every=CheckpointEvery(epochs=1),
        scheduler=lambda optimizer, _steps: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=8.0), **more,
    )  # fmt: skip
    return trainer


def test_best_weights_of_an_earlier_attempt_stay_the_best(tmp_path: Path) -> None:
    whole, found = Recorder(), Recorder()
    expected = too_fast(tmp_path / "a", whole)
    fit(expected)
    best = expected.judge.best.epoch
    assert best is not None
    assert best < 6
    first = too_fast(tmp_path / "b", found)
    stop_after(first, 21)  # the first update of the last epoch
    with pytest.raises(Interrupted):
        fit(first)
    first.save()
    found.stop = lambda: None
    second = too_fast(tmp_path / "b", found, **known(found))
    resume(second, tmp_path / "b", found)
    fit(second)
    assert_same((second, found), (expected, whole))
