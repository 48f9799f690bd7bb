"""What a job leaves behind row by row: metrics, decisions, events, attempts, artifacts. Reading only."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db.paging import cut, page
from core.db.tables import Artifact, Attempt, Decision, Epoch, Event
from core.errors import NotFound


class MetricsRow(NamedTuple):
    """One epoch: the wire's row as JSON text, and what is added to it."""

    body: str
    attempt: int
    recorded_at: datetime


def rows(
    session: Session, job_id: str, *, after: int | None = None, limit: int = 1000
) -> tuple[list[MetricsRow], bool]:
    """Return up to `limit` epochs after the epoch `after`, in order, and whether there are more."""
    statement = select(Epoch.body, Epoch.attempt, Epoch.recorded_at).where(Epoch.job_id == job_id)
    if after is not None:
        statement = statement.where(Epoch.epoch > after)
    found = session.execute(statement.order_by(Epoch.epoch).limit(limit + 1))
    return cut([MetricsRow(*row) for row in found], limit)


def decisions(
    session: Session, job_id: str, *, after: int | None = None, limit: int = 1000
) -> tuple[list[Decision], bool]:
    """Return up to `limit` decisions after the number `after`, oldest first, and whether there are more."""
    return page(session, select(Decision).where(Decision.job_id == job_id), Decision.id, after=after, limit=limit)


def events(session: Session, job_id: str, *, after: int | None = None, limit: int = 1000) -> tuple[list[Event], bool]:
    """Return up to `limit` events after the number `after`, oldest first, and whether there are more."""
    return page(session, select(Event).where(Event.job_id == job_id), Event.id, after=after, limit=limit)


def attempts(session: Session, job_id: str) -> list[Attempt]:
    """Return every execution of the job, the first one first."""
    return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))


def artifacts(session: Session, job_id: str) -> list[Artifact]:
    """Return the files that the job left, by name."""
    return list(session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)))


def artifact(session: Session, job_id: str, name: str) -> Artifact:
    """Return one file of the job.

    Raises:
        NotFound: the job left no file of that name.
    """
    found = session.get(Artifact, (job_id, name))
    if found is None:
        raise NotFound(f"{job_id} has no artifact {name!r}.")
    return found
