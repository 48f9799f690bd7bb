"""Checkpoints are written beside the training: what that must not change, with stores that wait or fail."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core import faults
from core.messages import CheckpointRef, Failed, Progress, Publish, Stopped
from core.spec.job import CheckpointEvery
from core.train.checkpoint import FolderStore, load
from core.train.journal import AUTO_SECONDS, Journal
from core.train.pipe import Pipe, SupervisorGoneError
from core.train.updating import Updater
from tests.core.train.attempts import SPEC, Job
from tests.core.train.small import Recorder

SECONDS = 60.0
"""Nobody waits so long: a test that hangs says so."""
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Store:
    """Plays CheckpointStore: writes a checkpoint when it is let go, and notes what happens in which order."""

    def __init__(self, *, error: BaseException | None = None) -> None:
        self.error = error
        self.events: list[str] = []
        self.go = threading.Event()
        self.owner = threading.current_thread()

    def take(self, state: dict[str, Any], *, epoch: int, step: int) -> Callable[[], CheckpointRef]:
        assert threading.current_thread() is self.owner, "the state changes while it is copied"
        self.events.append(f"take {epoch}")

        def write() -> CheckpointRef:
            assert self.go.wait(SECONDS)
            if self.error is not None:
                raise self.error
            self.events.append(f"write {epoch}")
            return CheckpointRef(name=f"{epoch}", digest="", size_bytes=0, epoch=epoch, step=step)

        return write


class Sink(Recorder):
    """Notes what is published among the events of a store."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def publish(self, publication: Publish) -> None:
        super().publish(publication)
        self.events.append(f"tell {publication.checkpoint.epoch}")


def finish(journal: Journal, epoch: int, *, is_saved: bool = True) -> None:
    """Finish an epoch of one update, with a checkpoint or without."""
    journal.add({"epoch": epoch}, [{"epoch": epoch}])
    if is_saved:
        progress = Progress(epoch=epoch, epochs=9, step=epoch, steps=9)
        journal.publish({}, epoch=epoch, progress=progress, best=None, active_seconds=float(epoch))


def test_training_goes_on_while_a_checkpoint_is_written_and_its_rows_are_told_after_it() -> None:
    store = Store()
    sink = Sink(store.events)
    journal = Journal(sink, store)
    finish(journal, 1)
    finish(journal, 2, is_saved=False)
    assert (store.events, sink.rows) == (["take 1"], [])
    store.go.set()
    journal.settle()
    assert store.events == ["take 1", "write 1", "tell 1"]
    assert sink.rows == sink.decisions == [{"epoch": 1}]
    assert sink.publications[0].active_seconds == 1.0


def test_rows_of_epochs_that_end_meanwhile_come_together_with_the_next_checkpoint() -> None:
    now = 0.0
    store = Store()
    sink = Sink(store.events)
    journal = Journal(sink, store, clock=lambda: now)
    finish(journal, 1)
    for epoch in (2, 3):
        now += 2 * AUTO_SECONDS
        assert not journal.is_due(epoch)
        finish(journal, epoch, is_saved=False)
    store.go.set()
    journal.settle()
    assert journal.is_due(3)
    finish(journal, 4)
    journal.settle()
    assert [[row["epoch"] for row in told.rows] for told in sink.publications] == [[1], [2, 3, 4]]


def test_checkpoint_after_every_epoch_waits_for_the_one_before() -> None:
    store = Store()
    journal = Journal(Sink(store.events), store, every=CheckpointEvery(epochs=1))
    finish(journal, 1)
    assert journal.is_due(2)
    later = threading.Timer(0.05, store.go.set)  # an epoch that does not wait is taken before
    later.start()
    finish(journal, 2)
    journal.settle()
    later.join()
    assert store.events == [f"{what} {epoch}" for epoch in (1, 2) for what in ("take", "write", "tell")]


def next_epoch(journal: Journal) -> None:
    finish(journal, 2)


@pytest.mark.parametrize("error", [FULL, MemoryError(), SupervisorGoneError(), SystemExit(3)], ids=type)
@pytest.mark.parametrize("noticed", [Journal.look, Journal.settle, next_epoch])
def test_what_goes_wrong_beside_the_training_is_raised_in_it_once(
    error: BaseException, noticed: Callable[[Journal], None]
) -> None:
    store = Store(error=error)
    sink = Sink(store.events)
    journal = Journal(sink, store)
    journal.look()
    finish(journal, 1)
    journal.look()
    store.go.set()
    while journal.beside.is_busy:
        time.sleep(0.001)
    with pytest.raises(type(error)) as raised:
        noticed(journal)
    assert raised.value is error
    assert (store.events, sink.publications) == (["take 1"], [])
    journal.settle()


def test_supervisor_that_is_gone_is_noticed_where_the_training_runs() -> None:
    class Gone(Recorder):
        def publish(self, publication: Publish) -> None:
            raise SupervisorGoneError

    store = Store()
    store.go.set()
    journal = Journal(Gone(), store)
    finish(journal, 1)
    with pytest.raises(SupervisorGoneError):
        journal.settle()


def test_state_may_change_as_soon_as_it_is_taken(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for epoch in (1, 2, 3):  # one that is shorter than the one before it, too
        state = {"weight": torch.full((40_000 // epoch,), float(epoch)), "at": [epoch]}
        expected = state["weight"].clone()
        write = store.take(state, epoch=epoch, step=epoch)
        state["weight"].fill_(-1.0)
        state["at"].append(-1)
        found = write()
        assert found.size_bytes == (tmp_path / found.name).stat().st_size
        loaded = load(tmp_path / found.name, found.digest)
        assert torch.equal(loaded["weight"], expected)
        assert loaded["at"] == [epoch]


def test_checkpoint_that_could_not_be_written_does_not_stand_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm(tmp_path / "points", monkeypatch, **{"checkpoint.written": "raise ENOSPC"})
    store = FolderStore(tmp_path)
    with pytest.raises(OSError, match="No space") as raised:
        store.save({"weight": torch.zeros(3)}, epoch=1, step=1)
    found = store.save({"weight": torch.ones(400_000)}, epoch=2, step=2)
    assert raised.value.errno == errno.ENOSPC
    assert load(tmp_path / found.name, found.digest)["weight"].sum() == 400_000


class Written:
    """A channel that keeps what is sent."""

    closed = False

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def receive(self, timeout: float | None = 0) -> None:
        pass


def test_progress_that_was_told_never_goes_back() -> None:
    def progress(step: int) -> Progress:
        return Progress(epoch=step // 4, epochs=9, step=step, steps=36)

    def publication(step: int) -> Publish:
        checkpoint = CheckpointRef(name="c", digest="", size_bytes=0, epoch=step // 4, step=step)
        return Publish(checkpoint=checkpoint, rows=[], progress=progress(step))

    channel = Written()
    pipe = Pipe(channel)
    pipe.publish(publication(4))
    pipe.progress(progress(9))
    pipe.publish(publication(8))
    pipe.publish(publication(12))
    steps = [message.step if isinstance(message, Progress) else message.progress.step for message in channel.sent]
    assert steps == [4, 9, 9, 12]
    assert [one.checkpoint.step for one in channel.sent if isinstance(one, Publish)] == [4, 8, 12]


def arm(folder: Path, monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    folder.mkdir()
    monkeypatch.setattr(faults, "_folder", lambda: folder)
    for point, fault in points.items():
        (folder / point).write_text(fault)


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainers look up after every update."""
    monkeypatch.setattr("core.train.watch.POLL_SECONDS", 0.0)


def fail_at(monkeypatch: pytest.MonkeyPatch, update: int, error: Exception) -> None:
    """Let training fail in its n-th update."""
    sound, done = Updater.update, 0

    def failing(self: Updater, batches: Any) -> None:
        nonlocal done
        done += 1
        if done == update:
            raise error
        sound(self, batches)

    monkeypatch.setattr(Updater, "update", failing)


SLOW = {"checkpoint.written": "sleep 0.2"}
STEPS = 4
"""Updates in an epoch of `SPEC`."""
IN_EPOCH_2 = 1 + (STEPS + 1) + 2
"""Looks: one before there is any data, one after every update, one after the only batch that is validated."""


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize("reason", ["pause", "cancel", "drain"])
def test_last_word_of_a_stop_follows_the_rows_that_are_being_published(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm(tmp_path / "points", monkeypatch, **SLOW)
    job = Job(SPEC, tmp_path)
    supervisor = job.attempt(stop_at=IN_EPOCH_2, reason=reason)
    assert isinstance(supervisor.last, Stopped)
    assert [row["epoch"] for row in job.rows] == [1]
    assert [told.checkpoint.step for told in job.publications] == [STEPS, STEPS + 2][: 1 if reason == "cancel" else 2]


@pytest.mark.usefixtures("attentive")
def test_last_word_of_a_failure_follows_the_rows_that_are_being_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm(tmp_path / "points", monkeypatch, **SLOW)
    fail_at(monkeypatch, STEPS + 1, MemoryError())
    job = Job(SPEC, tmp_path)
    last = job.attempt().last
    assert isinstance(last, Failed)
    assert last.code == "oom"
    assert [row["epoch"] for row in job.rows] == [1]


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("error", [None, MemoryError()], ids=["training goes on", "training fails, too"])
def test_full_disk_is_told_as_such_and_nothing_is_published(
    epochs: int, error: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm(tmp_path / "points", monkeypatch, **{"checkpoint.synced": "raise ENOSPC"})
    if error is not None:
        fail_at(monkeypatch, STEPS + 1, error)
    job = Job({**SPEC, "epochs": epochs}, tmp_path)
    last = job.attempt().last
    assert isinstance(last, Failed)
    assert (last.code, last.message) == ("disk_full", f"OSError: {FULL}")
    assert job.publications == []
    assert [path for path in (tmp_path / "1").iterdir() if path.name != "resume"] == []
