"""A checkpoint is on disk, whole, before anybody hears of it; until then the one before it stays as it was."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from core import digests, faults
from core.messages import Progress, Publish, Stage
from core.train.checkpoint import FolderStore, write_durably
from core.train.journal import Journal

WATCHED = {os.fsync: "fsync", os.replace: "rename", os.rename: "rename"}


def system_calls(action: Callable[[], Any]) -> list[str]:
    """Return which of the watched calls an action makes, in order."""
    seen: list[str] = []

    def note(_frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function in WATCHED:
            seen.append(WATCHED[function])

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return seen


def test_bytes_then_name_then_folder_are_made_durable(tmp_path: Path) -> None:
    calls = system_calls(lambda: write_durably(tmp_path / "file", b"data"))
    assert calls == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("point", ["checkpoint.written", "checkpoint.synced"])
def test_end_before_the_rename_leaves_the_file_as_it_was(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, points = tmp_path / "file", tmp_path / "points"
    points.mkdir()
    write_durably(path, b"old and whole")
    monkeypatch.setattr(faults, "_folder", lambda: points)
    (points / point).write_text("raise")
    with pytest.raises(faults.FaultInjected):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old and whole"


class Reader:
    """Plays MetricSink: reads every checkpoint at the moment it hears of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: list[tuple[list[int], int]] = []

    def publish(self, publication: Publish) -> None:
        checkpoint = publication.checkpoint
        assert digests.of_file(self.folder / checkpoint.name, checkpoint.digest) == checkpoint.digest
        self.read.append(([row["epoch"] for row in publication.rows], checkpoint.epoch))

    def progress(self, progress: Progress) -> None:
        pass

    def stage(self, stage: Stage) -> None:
        pass


def test_rows_are_told_with_a_checkpoint_that_can_be_read_already(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    journal = Journal(reader, FolderStore(tmp_path))
    for epoch in (1, 2, 3):
        journal.add({"epoch": epoch}, [])
        if epoch != 2:
            progress = Progress(epoch=epoch, epochs=3, step=epoch, steps=3)
            journal.publish({"epoch": epoch}, epoch=epoch, progress=progress, best=None, active_seconds=0.0)
    journal.settle()
    assert reader.read == [([1], 1), ([2, 3], 3)]
