"""Finished epochs on their way: stored before they are seen, kept until they are taken, never changed once tried."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from core import digests, faults
from core.db import engine
from core.messages import CheckpointRef, Publish
from tests.service import eventually
from tests.worker.conftest import Desk
from worker.folder import AttemptFolder
from worker.ledger import Entry, Ledger
from worker.publishing import Publisher


def publisher_of(desk: Desk, job_id: str) -> tuple[Publisher, AttemptFolder]:
    """Claim the job, and return what publishes its epochs."""
    claim = desk.claim()
    assert claim is not None
    folder = AttemptFolder(desk.site.storage, desk.site.settings.caches, job_id, claim.fence)
    folder.make()
    return Publisher(claim, folder), folder


def publish_first(desk: Desk, publisher: Publisher) -> None:
    """Publish what waits first."""
    publisher.store()
    with desk.site.database.session_scope() as session:
        publisher.write(session)
    publisher.written()


def finished(folder: AttemptFolder, epoch: int, best_epoch: int | None = None) -> Publish:
    """Write a checkpoint as the trainer does, and return what the trainer says then."""
    data = f"state after {epoch}".encode()
    name = f"checkpoint-{epoch}-{epoch}.pt"
    (folder.path / name).write_bytes(data)
    digest = digests.of_checkpoint(data)
    reference = CheckpointRef(name=name, digest=digest, size_bytes=len(data), epoch=epoch, step=epoch)
    best = None if best_epoch is None else {"epoch": best_epoch, "monitor": "val_loss", "value": 0.5}
    return Publish(checkpoint=reference, rows=[{"epoch": epoch, "step": epoch}], best=best, active_seconds=float(epoch))


def test_rows_are_seen_only_once_their_checkpoint_is_stored(
    make_desk: Callable[..., Desk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = tmp_path / "points"
    points.mkdir()
    monkeypatch.setattr(faults, "_folder", lambda: points)
    desk = make_desk(artifacts_url=f"memory://{tmp_path.name}")
    (points / "publish.stored").write_text("wait")
    job_id = desk.submit(epochs=3)
    carrying = desk.carry_in_background()
    assert eventually((points / "publish.stored.fired").exists)
    seen = desk.epochs(job_id)
    (points / "publish.stored.go").touch()
    carrying.join()
    assert seen == []
    assert (desk.job(job_id).state, desk.epochs(job_id)) == ("succeeded", [1, 2, 3])


def test_publication_that_may_be_committed_is_repeated_as_it_was(desk: Desk) -> None:
    job_id = desk.submit(epochs=2)
    publisher, folder = publisher_of(desk, job_id)
    assert publisher.take(finished(folder, 1))
    publisher.store()
    with desk.site.database.session_scope() as session:
        publisher.write(session)  # committed; then the connection breaks, and nobody hears of it
    assert publisher.take(finished(folder, 2))
    publish_first(desk, publisher)
    publish_first(desk, publisher)
    assert desk.epochs(job_id) == [1, 2]
    assert desk.job(job_id).checkpoint_epoch == 2


def test_two_attempts_share_no_folder(desk: Desk) -> None:
    paths = {AttemptFolder(desk.site.storage, desk.site.settings.caches, "job_1", fence).path for fence in (1, 2)}
    assert len(paths) == 2


def test_last_two_published_checkpoints_and_the_best_are_kept(desk: Desk) -> None:
    publisher, folder = publisher_of(desk, desk.submit(epochs=5))
    for epoch in range(1, 6):
        assert publisher.take(finished(folder, epoch, best_epoch=min(epoch, 2)))
        publish_first(desk, publisher)
    kept = sorted(path.name for path in (folder.path / "kept").iterdir())
    assert kept == ["checkpoint-2-2.pt", "checkpoint-4-4.pt", "checkpoint-5-5.pt"]


def test_write_that_was_not_taken_is_repeated_in_its_place(
    make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.05)
    desk = make_desk()
    ledger, done = Ledger(desk.site.database), list[int]()
    for number in (1, 2):
        ledger.add(Entry(lambda session: session.execute(text("SELECT 1")), after=lambda n=number: done.append(n)))
    with desk.site.database.session_scope() as holding:  # SQLite's one writer: the database is away for others
        holding.execute(text("SELECT 1"))
        assert not ledger.flush()
        assert done == []
    assert eventually(ledger.flush)
    assert done == [1, 2]
