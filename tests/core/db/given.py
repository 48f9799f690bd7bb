"""The smallest jobs and claims that tests begin with."""

from typing import Any

from sqlalchemy import select, update

from core import ids
from core.db import jobs, leases
from core.db.clock import now
from core.db.engine import Database
from core.db.leases import AttemptEnd, Checkpoint, Claim
from core.db.series import events
from core.db.tables import Job

PROJECT = "default"
SPEC: dict[str, Any] = {"epochs": 3}


def new_job(**fields: Any) -> jobs.NewJob:
    """Return a job that could be posted."""
    return jobs.NewJob(**{"project": PROJECT, "spec": SPEC, "spec_digest": "d" * 64, "body_sha256": "b" * 64} | fields)


def queued(database: Database, **fields: Any) -> Job:
    """Accept a job."""
    with database.session_scope() as session:
        return jobs.create(session, new_job(**fields))[0]


def claimed(database: Database, worker: str = "wk_one", *, lease_seconds: float = 30.0) -> Claim:
    """Claim the best job."""
    with database.session_scope() as session:
        claim = leases.claim(session, worker, ["cpu"], host="here", lease_seconds=lease_seconds)
    assert claim is not None
    return claim


def running(database: Database, **fields: Any) -> Claim:
    """Accept and claim a job."""
    queued(database, **fields)
    return claimed(database)


def read(database: Database, job_id: str) -> Job:
    """Read the job as it is now."""
    with database.session_scope(write=False) as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def event_types(database: Database, job_id: str) -> list[str]:
    """Read what happened to the job."""
    with database.session_scope(write=False) as session:
        return [event.type for event in events(session, job_id)[0]]


def publish(database: Database, claim: Claim, *epochs: int, key: str | None = None, fence: int | None = None) -> str:
    """Publish rows of these epochs with a checkpoint that holds the last one."""
    last = epochs[-1] if epochs else 0
    checkpoint = Checkpoint(key=key or ids.new("req"), digest="c" * 64, epoch=last)
    with database.session_scope() as session:
        return leases.publish(
            session,
            claim.job_id,
            claim.fence if fence is None else fence,
            checkpoint=checkpoint,
            rows=[{"epoch": epoch, "train": {"loss": 1 / (epoch + 1)}} for epoch in epochs],
        )


def finish(database: Database, claim: Claim, state: Any = "succeeded", **fields: Any) -> None:
    """End the job for good."""
    with database.session_scope() as session:
        arguments = {"stop_reason": "completed", "end": AttemptEnd()} | fields
        leases.finish(session, claim.job_id, claim.fence, state=state, **arguments)


def crash(database: Database, claim: Claim, code: str = "killed", **fields: Any) -> str:
    """Give the job back after a crash, to be claimed again at once."""
    with database.session_scope() as session:
        arguments = {"outcome": "crashed", "counts_as": "crash", "delay_seconds": 0.0} | fields
        return leases.requeue(session, claim.job_id, claim.fence, end=AttemptEnd(code=code), **arguments)


def let_lease_end(database: Database, job_id: str) -> None:
    """Put the lease's end into the past."""
    with database.session_scope() as session:
        session.execute(update(Job).where(Job.id == job_id).values({"lease_until": now(-1.0)}))


def reap(database: Database) -> list[str]:
    """Take jobs away from workers whose lease is over."""
    with database.session_scope() as session:
        return leases.reap(session)
