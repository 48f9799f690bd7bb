"""Who is there to work, and what waits. A worker's row is news for people; ownership is the lease, never this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from core.db.clock import now
from core.db.inserts import insert
from core.db.tables import Job, Worker

FRESH_SECONDS = 60.0  # a worker that was silent for longer is not listed
STALE_SECONDS = 3600.0  # and its row is swept after so long

_UNSYNCED = {"synchronize_session": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a worker says about itself when it starts.

    Attributes:
        id: `wk_…`, new for every process.
        devices: `{"name", "index", "memory_bytes"}` of each.
        slots: attempts that it runs at the same time.
    """

    id: str
    name: str
    host: str
    pid: int
    version: str
    queues: Sequence[str]
    devices: Sequence[Mapping[str, Any]]
    slots: int


def announce(session: Session, worker: Announcement) -> None:
    """Write the worker's row, again where it was swept away meanwhile; rows of workers long gone go with that."""
    sweep(session)
    values = {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "queues": list(worker.queues),
        "devices": [dict(device) for device in worker.devices],
        "slots": worker.slots,
    }
    session.execute(
        insert(session, Worker)
        .values(id=worker.id, is_draining=False, **values)
        .on_conflict_do_update(index_elements=["id"], set_={**values, "seen_at": now()})
    )


def seen(session: Session, worker_id: str) -> bool:
    """Note a sign of life; false where the row is gone and the worker has to announce itself again."""
    statement = update(Worker).where(Worker.id == worker_id).values({"seen_at": now()}).returning(Worker.id)
    return session.scalars(statement, execution_options=_UNSYNCED).one_or_none() is not None


def drain(session: Session, worker_id: str) -> None:
    """Note that the worker takes no more jobs."""
    session.execute(
        update(Worker).where(Worker.id == worker_id).values({"is_draining": True, "seen_at": now()}),
        execution_options=_UNSYNCED,
    )


def leave(session: Session, worker_id: str) -> None:
    """Delete the row of a worker that ends well."""
    session.execute(delete(Worker).where(Worker.id == worker_id), execution_options=_UNSYNCED)


def sweep(session: Session, *, stale_seconds: float = STALE_SECONDS) -> list[str]:
    """Delete the rows of workers that were silent for so long, and return their ids."""
    statement = delete(Worker).where(Worker.seen_at < now(-stale_seconds)).returning(Worker.id)
    return list(session.scalars(statement, execution_options=_UNSYNCED))


def listing(session: Session, *, fresh_seconds: float = FRESH_SECONDS) -> list[Worker]:
    """Return the workers that gave a sign of life lately, by name."""
    statement = select(Worker).where(Worker.seen_at >= now(-fresh_seconds)).order_by(Worker.name, Worker.id)
    return list(session.scalars(statement))


def running(session: Session, project: str) -> dict[str, list[str]]:
    """Return which jobs of the project each worker runs: ids by worker id."""
    statement = select(Job.worker_id, Job.id).where(Job.project == project, Job.state == "running").order_by(Job.id)
    jobs: dict[str, list[str]] = {}
    for worker_id, job_id in session.execute(statement):
        jobs.setdefault(worker_id or "", []).append(job_id)
    return jobs


def queue(session: Session, project: str) -> dict[str, dict[str, int]]:
    """Return how many of the project's jobs wait and run: `{queue: {"queued": n, "running": n, "paused": n}}`."""
    states = ("queued", "running", "paused")
    statement = (
        select(Job.queue, Job.state, func.count())
        .where(Job.project == project, Job.state.in_(states))
        .group_by(Job.queue, Job.state)
        .order_by(Job.queue)
    )
    counts: dict[str, dict[str, int]] = {}
    for name, state, count in session.execute(statement):
        counts.setdefault(name, dict.fromkeys(states, 0))[state] = count
    return counts


def states(session: Session, project: str | None) -> dict[str, int]:
    """Return how many jobs of the project (none: of all) are in each state that any is in."""
    statement = select(Job.state, func.count()).group_by(Job.state).order_by(Job.state)
    if project is not None:
        statement = statement.where(Job.project == project)
    return dict(session.execute(statement).all())
