from pathlib import Path
from typing import Any

import pytest

from core.messages import Progress, Publish, Stopped
from tests.core.train.test_resume import assert_same, interrupted, undisturbed
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
