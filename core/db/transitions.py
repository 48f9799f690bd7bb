"""The one place where a job's row changes and its events are written.

Every event of a job is inserted after an UPDATE of the job's row in the same transaction. The row's lock makes the
event ids of one job rise in the order of their commits, so a reader that asks for "after id n" misses none.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.orm import Session

from core.db.clock import now
from core.db.states import LEGAL, TERMINAL, Desired, State
from core.db.tables import Attempt, Base, Job
from core.errors import OwnershipLost

UNOWNED: dict[str, Any] = {"worker_id": None, "lease_until": None, "stage": None}
"""Columns of a job that no worker owns."""


FRESH = {"populate_existing": True, "synchronize_session": False}
"""Objects that the session already holds take the returned values."""


class Owned(NamedTuple):
    """Of a running job what a publication compares: not its specs."""

    id: str
    fence: int
    attempt: int
    desired: Desired
    epochs_done: int
    checkpoint_key: str | None
    checkpoint_digest: str | None
    checkpoint_epoch: int | None
    active_seconds: float


def owned(session: Session, job_id: str, fence: int) -> Job:
    """Lock the job's row for its owner.

    Raises:
        OwnershipLost: the job is not running, or under another fence.
    """
    statement = select(Job).where(Job.id == job_id, Job.state == "running", Job.fence == fence).with_for_update()
    job = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if job is None:
        raise ownership_lost(job_id, fence)
    return job


def change(session: Session, job_id: str, *guards: ColumnElement[bool], values: Mapping[str, Any]) -> Job | None:
    """Change the job's row if the guards hold; clients see a new version.

    Returns:
        The row as it is now, or None where no row passed the guards.
    """
    statement = update(Job).where(Job.id == job_id, *guards).values(version=Job.version + 1, **values).returning(Job)
    return session.scalars(statement, execution_options=FRESH).one_or_none()


def move(
    session: Session,
    job: Job,
    state: State,
    *,
    event: str,
    body: Mapping[str, Any] | None = None,
    desired: Desired = "run",
    values: Mapping[str, Any] | None = None,
) -> Job:
    """Move a locked job to another state that no worker owns, with a new fence and an event.

    Raises:
        OwnershipLost: the row is no longer what `job` says.
    """
    assert state in LEGAL[job.state], f"{job.state} to {state}"  # noqa: S101 - for ourselves
    is_terminal = state in TERMINAL
    moved = change(
        session,
        job.id,
        Job.state == job.state,
        Job.fence == job.fence,
        values={
            **UNOWNED,
            "state": state,
            "desired": desired,
            "fence": Job.fence + 1,
            "run_after": None,
            **({"finished_at": now()} if is_terminal else {}),
            **(values or {}),
        },
    )
    if moved is None:
        raise ownership_lost(job.id, job.fence)
    record(session, moved, event, body or {}, is_terminal=is_terminal)
    return moved


EVENTS, DECISIONS = (insert(Base.metadata.tables[name]) for name in ("events", "decisions"))


def record(
    session: Session, job: Job | Owned, event: str, body: Mapping[str, Any], *, is_terminal: bool = False
) -> None:
    """Append an event. The job's row must have been changed by this transaction before (see the module)."""
    row = {"job_id": job.id, "type": event, "fence": job.fence, "body": dict(body), "is_terminal": is_terminal}
    session.connection().execute(EVENTS, row)


def decide(session: Session, job: Job | Owned, decisions: Iterable[Mapping[str, Any]]) -> None:
    """Append decisions: `{"kind", "epoch", …}`, the other keys are the numbers that caused them."""
    rows = [{"job_id": job.id, "attempt": job.attempt, **decision_columns(decision)} for decision in decisions]
    if rows:
        session.connection().execute(DECISIONS, rows)


def decision_columns(decision: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a decision's row says of it."""
    numbers = {key: value for key, value in decision.items() if key not in {"kind", "epoch"}}
    return {"kind": decision["kind"], "epoch": decision.get("epoch"), "body": numbers}


def end_attempt(session: Session, job: Job, outcome: str, values: Mapping[str, Any]) -> None:
    """Close the running attempt's row."""
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.number == job.attempt, Attempt.ended_at.is_(None))
        .values({"outcome": outcome, "ended_at": now(), "to_epoch": job.epochs_done, **values}),
        execution_options={"synchronize_session": False},
    )


def ownership_lost(job_id: str, fence: int) -> OwnershipLost:
    """Say that a statement with this fence hit no row."""
    return OwnershipLost(f"{job_id} is no longer owned with fence {fence}: stop its trainer and write nothing more.")
