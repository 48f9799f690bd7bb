"""The checker sees each violation: rows and files of a sound job, each time with one thing wrong."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from core import digests
from core.db import jobs, leases
from core.db.claims import Checkpoint
from core.db.endings import AttemptEnd
from core.db.engine import Database
from core.db.leases import ArtifactFile
from core.db.tables import Attempt, Epoch, Event, Job
from tests.faults import invariants
from tests.faults.invariants import Evidence

KEY = "sound 1"
NUMERICS = {"device": "cpu", "threads": 1}
SECRET = "hush"


@pytest.fixture
def sound(database: Database, tmp_path: Path) -> Evidence:
    """A job of three epochs that two attempts have carried; an older version wrote the first two checkpoints."""
    artifacts = tmp_path / "artifacts"
    written = tmp_path / "logs"
    written.mkdir()

    def file(job_id: str, name: str) -> str:
        path = artifacts / f"jobs/{job_id}/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        return f"jobs/{job_id}/{name}"

    def publish(job_id: str, fence: int, epoch: int) -> None:
        name = f"{fence}/kept/checkpoint-{epoch}.pt"
        digest = (digests.of if epoch < 3 else digests.of_checkpoint)(name.encode())
        with database.session_scope() as session:
            checkpoint = Checkpoint(epoch=epoch, key=file(job_id, name), digest=digest)
            leases.publish(session, job_id, fence, checkpoint=checkpoint, rows=[{"epoch": epoch, "seconds": 0.1}])

    def begin() -> leases.Claim:
        with database.session_scope() as session:
            claim = leases.claim(session, "wk_1", ("cpu",), host="here")
            assert claim is not None
        with database.session_scope() as session:
            leases.start(
                session, claim.job_id, claim.fence, resolved_spec={}, numerics=NUMERICS, from_epoch=claim.epochs_done
            )
        return claim

    with database.session_scope() as session:
        new = jobs.NewJob(
            project="default", spec={"epochs": 3}, spec_digest="digest", body_sha256="body", idempotency_key=KEY
        )
        job_id = jobs.create(session, new)[0].id
    first = begin()
    publish(job_id, first.fence, 1)
    with database.session_scope() as session:
        end = AttemptEnd(code="drained")
        leases.requeue(session, job_id, first.fence, outcome="drained", end=end, counts_as=None)
    second = begin()
    publish(job_id, second.fence, 2)
    publish(job_id, second.fence, 3)
    (artifacts / f"jobs/{job_id}/{first.fence}/kept/checkpoint-1.pt").unlink()  # two are kept
    with database.session_scope() as session:
        name = "model.safetensors"
        model = ArtifactFile(name=name, size_bytes=1, key=file(job_id, name), sha256=digests.of(name.encode()))
        leases.finish(
            session,
            job_id,
            second.fence,
            state="succeeded",
            stop_reason="completed",
            end=AttemptEnd(),
            artifacts=[model],
        )
    (rows,) = invariants.read(database, KEY)
    return Evidence(
        database=database,
        artifacts=artifacts,
        written=written,
        accepted={KEY: {job_id}},
        prefix=KEY,
        references={"digest": invariants.reference(rows)},
        secrets=(SECRET,),
    )


def test_sound_job_violates_nothing(sound: Evidence) -> None:
    assert invariants.violations(sound) == []


def end_twice(session: Session) -> None:
    session.execute(update(Event).where(Event.is_terminal).values(type="job.failed"))


def record_late(session: Session) -> None:
    ended_at = session.scalars(select(Attempt.ended_at).where(Attempt.number == 1)).one()
    assert ended_at is not None
    late = ended_at + timedelta(seconds=60)
    session.execute(update(Epoch).where(Epoch.epoch == 1).values(recorded_at=late))


TAMPERED: dict[str, tuple[str, Callable[[Session], object]]] = {
    "running": (
        "I2",
        lambda session: session.execute(update(Job).values(state="running", lease_until=session.scalar(select(
            Job.created_at)))),
    ),
    "failed": ("I2", lambda session: session.execute(update(Job).values(state="failed"))),
    "other end": ("I3", end_twice),
    "same fence again": (
        "I3",
        lambda session: session.execute(update(Event).where(Event.type == "job.requeued").values(fence=1)),
    ),
    "gap": ("I4", lambda session: session.execute(delete(Epoch).where(Epoch.epoch == 2))),
    "old checkpoint": ("I4", lambda session: session.execute(update(Job).values(checkpoint_epoch=2))),
    "fence falls": ("I5", lambda session: session.execute(update(Epoch).where(Epoch.epoch == 3).values(fence=1))),
    "row of the first attempt": (
        "I5",
        lambda session: session.execute(update(Epoch).where(Epoch.epoch == 2).values(attempt=1, fence=1)),
    ),
    "row after the end": ("I5", record_late),
    "other numbers": (
        "I6",
        lambda session: session.execute(update(Epoch).where(Epoch.epoch == 2).values(body='{"epoch":2,"loss":1.0}')),
    ),
    "pointer into the void": ("I8", lambda session: session.execute(update(Job).values(checkpoint_key="jobs/x/1/no"))),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_wrong_row_is_a_violation(sound: Evidence, what: str) -> None:
    invariant, tamper = TAMPERED[what]
    with sound.database.session_scope() as session:
        tamper(session)
    assert invariant in {problem_of(text) for text in invariants.violations(sound)}


def test_second_id_of_a_key_is_a_violation(sound: Evidence) -> None:
    (job_id,) = sound.accepted[KEY]
    doubled = replace(sound, accepted={KEY: {job_id, "job_2"}})
    assert {problem_of(text) for text in invariants.violations(doubled)} == {"I1"}


def test_accepted_job_without_a_row_is_a_violation(sound: Evidence) -> None:
    lost = replace(sound, accepted={**sound.accepted, "sound 2": {"job_2"}})
    assert {problem_of(text) for text in invariants.violations(lost)} == {"I1"}


@pytest.mark.parametrize("name", ["checkpoint-2.pt", "checkpoint-3.pt", "model.safetensors"])
def test_damaged_file_is_a_violation(sound: Evidence, name: str) -> None:
    next(sound.artifacts.rglob(name)).write_bytes(b"")
    assert {problem_of(text) for text in invariants.violations(sound)} == {"I8"}


def test_file_that_nothing_points_to_is_a_violation(sound: Evidence) -> None:
    (job_id,) = sound.accepted[KEY]
    (sound.artifacts / "jobs" / job_id / ".half-written.tmp").touch()
    assert {problem_of(text) for text in invariants.violations(sound)} == {"I8"}


def test_secret_in_a_log_is_a_violation(sound: Evidence) -> None:
    (sound.written / "api.log").write_text(f"connecting with {SECRET}")
    assert {problem_of(text) for text in invariants.violations(sound)} == {"I10"}


def problem_of(violation: str) -> str:
    """Return the invariant's id."""
    return next(word for word in violation.replace(":", " ").split() if word.startswith("I") and word[1:].isdecimal())
