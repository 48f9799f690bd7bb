"""Numbers for those who watch over a service: what waits, for how long, and what has happened lately."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.orm import Session

from core.db.clock import now
from core.db.tables import Attempt, Event, Job

ACTIVE = ("queued", "running", "paused")
COUNTED = (
    "job.created", "job.claimed", "job.epoch", "job.requeued", "job.lost", "job.paused", "job.succeeded", "job.failed",
    "job.cancelled",
)  # fmt: skip
"""Types of events that `happenings` returns."""
SETTLED_SECONDS = 1.0
"""Events get their ids before their commit: a younger one may still hide behind its neighbour."""


class Happening(NamedTuple):
    """An event, and the attempt that it ended."""

    id: int
    type: str
    project: str
    body: Mapping[str, Any]
    outcome: str | None
    code: str | None


def active(session: Session, project: str | None) -> list[tuple[str, str, int]]:
    """Return queue, state and number of the jobs (of a project, none: of all) that have not ended."""
    statement = select(Job.queue, Job.state, func.count()).where(Job.state.in_(ACTIVE), *_of(project))
    return [(queue, state, count) for queue, state, count in session.execute(statement.group_by(Job.queue, Job.state))]


def waiting_seconds(session: Session, project: str | None) -> dict[str, float]:
    """Return for how long the oldest job of each queue could have been claimed; a back-off is not counted."""
    newest = select(Event.recorded_at).where(Event.job_id == Job.id).order_by(Event.id.desc()).limit(1)
    since = case((Job.run_after.is_not(None), Job.run_after), else_=newest.scalar_subquery())
    statement = select(Job.queue, since).where(
        Job.state == "queued", Job.desired == "run", or_(Job.run_after.is_(None), Job.run_after <= now()), *_of(project)
    )
    moment = session.scalars(select(now())).one()
    oldest: dict[str, datetime] = {}
    for queue, began in session.execute(statement):
        oldest[queue] = min(oldest.get(queue, moment), began or moment)
    return {queue: (moment - began).total_seconds() for queue, began in oldest.items()}


def leases_over(session: Session, project: str | None, *, by_seconds: float = 0.0) -> int:
    """Return how many jobs run whose lease was over so long ago: more than a moment's few means that nobody reaps."""
    over = select(func.count()).where(Job.state == "running", Job.lease_until < now(-by_seconds), *_of(project))
    return session.scalar(over) or 0


def newest_event(session: Session) -> int:
    """Return the number of the newest event, 0 where there is none."""
    return session.scalar(select(func.max(Event.id))) or 0


def happenings(
    session: Session, after: int, *, settled_seconds: float = SETTLED_SECONDS, limit: int = 20_000
) -> Sequence[Happening]:
    """Return the events after a number, in order, that are old enough for none to be missed."""
    ended = and_(Attempt.job_id == Event.job_id, Attempt.fence == Event.fence - 1, Event.type != "job.claimed")
    statement = (
        select(Event.id, Event.type, Job.project, Event.body, Attempt.outcome, Attempt.code)
        .join(Job, Job.id == Event.job_id)
        .outerjoin(Attempt, ended)  # whoever ends an attempt raises the fence by one
        .where(Event.id > after, Event.recorded_at < now(-settled_seconds), Event.type.in_(COUNTED))
        .order_by(Event.id)
        .limit(limit)
    )
    return [Happening(*row) for row in session.execute(statement)]


def _of(project: str | None) -> tuple[ColumnElement[bool], ...]:
    return () if project is None else (Job.project == project,)
