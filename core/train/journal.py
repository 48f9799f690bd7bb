"""Finished rows wait here until a checkpoint that holds them is on disk: durable before visible.

The state is copied at once, and training goes on; writing, syncing and publishing happen beside it, one checkpoint at
a time.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from core.faults import hit
from core.messages import Progress, Publish
from core.spec.job import CheckpointEvery
from core.train.beside import Beside
from core.train.roles import CheckpointStore, MetricSink

AUTO_SECONDS = 0.5
"""`checkpoints.every: "auto"`: at most twice a second, and not while the one before is being written."""
LONG_SECONDS = 600.0
"""A checkpoint at least so often within a long epoch."""

Row = dict[str, Any]


class Journal:
    """Groups rows with the checkpoint that holds them, and publishes both at once.

    Args:
        sink: who takes the publications.
        store: who keeps the checkpoints.
        every: the spec's `checkpoints.every`.
        published_epochs: rows up to this epoch are known already; computed again, they are not sent again.
        is_start_published: whether the row of epoch 0 is known already.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        sink: MetricSink,
        store: CheckpointStore,
        *,
        every: str | CheckpointEvery = "auto",
        published_epochs: int = 0,
        is_start_published: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sink, self.store, self.every, self.clock = sink, store, every, clock
        self.known_epochs = published_epochs if published_epochs or is_start_published else -1
        self.rows: list[Row] = []
        self.decisions: list[dict[str, Any]] = []
        self.saved_at = -math.inf
        self.begun_at = clock()
        self.beside = Beside()

    def add(self, row: Row, decisions: list[dict[str, Any]]) -> None:
        """Take the row of a finished epoch, and what was decided in it."""
        if row["epoch"] > self.known_epochs:
            self.rows.append(with_finite_numbers(row))
            self.decisions.extend(with_finite_numbers(decision) for decision in decisions)

    def is_due(self, epoch: int) -> bool:
        """Whether a checkpoint is due after finished `epoch`."""
        if isinstance(self.every, CheckpointEvery):
            return epoch % self.every.epochs == 0
        return not self.beside.is_busy and self.clock() - self.saved_at >= AUTO_SECONDS

    def is_overdue(self) -> bool:
        """Whether the epoch is so long that a checkpoint within it is due."""
        return self.clock() - max(self.saved_at, self.begun_at) >= LONG_SECONDS

    def publish(
        self,
        state: dict[str, Any],
        *,
        epoch: int,
        progress: Progress,
        best: dict[str, Any] | None,
        active_seconds: float,
    ) -> None:
        """Copy `state`; beside the training write that copy, then publish it with the rows that waited.

        `state` may change as soon as this returns. Where a checkpoint is under way it waits for that one first. Nothing
        happens while epochs that are known already are computed again: the pointer never goes back.

        Raises:
            OSError: and whatever else the checkpoint before failed with.
        """
        if epoch < self.known_epochs:
            return
        if self.rows:
            hit("epoch.finished")
        self.settle()
        write = self.store.take(state, epoch=epoch, step=progress.step)
        self.saved_at = self.clock()
        rows, decisions = list(self.rows), list(self.decisions)
        self.rows.clear()
        self.decisions.clear()

        def write_and_tell() -> None:
            checkpoint = write()
            self.sink.publish(
                Publish(
                    checkpoint=checkpoint,
                    rows=rows,
                    decisions=decisions,
                    best=best,
                    progress=progress,
                    active_seconds=active_seconds,
                )
            )
            hit("checkpoint.told")

        self.beside.begin(write_and_tell)

    def look(self) -> None:
        """Raise what a checkpoint failed with, where that is known already; cheap enough for every update."""
        self.beside.look()

    def settle(self) -> None:
        """Return when no checkpoint is under way any more; raise what it failed with."""
        self.beside.wait()


def with_finite_numbers(row: Row) -> Row:
    """Return `row` with values that JSON has no number for as null, and named under `non_finite`."""
    names: dict[str, str] = {}

    def clean(value: Any, path: str) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            names[path] = str(value)
            return None
        if isinstance(value, dict):
            return {key: clean(item, f"{path}.{key}" if path else key) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item, f"{path}.{place}") for place, item in enumerate(value)]
        return value

    cleaned = clean(row, "")
    return {**cleaned, "non_finite": names} if names else cleaned
