"""What the API does with jobs: accept, look, and say what their owner wants.

Every function takes the session of one transaction and the caller's project. What belongs to another project does not
exist. The owner's wishes lock the row first, then decide; workers skip a locked row, so nobody waits for long.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any, Final

from sqlalchemy import Select, exists, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session

from core import ids
from core.db.among import Reader, among, is_postgresql, values
from core.db.inserts import insert
from core.db.paging import Order
from core.db.paging import page as keyset_page
from core.db.states import TERMINAL, Status, allowed_actions, has_status, is_terminal, wire_status
from core.db.tables import Event, Job
from core.db.transitions import change, move, record
from core.errors import Conflict, IdempotencyMismatch, NotFound

__all__ = [
    "UNSET", "NewJob", "Unset", "allowed_actions", "create", "delete", "edit", "get", "is_terminal",
    "page", "request_cancel", "request_pause", "request_resume", "versions", "wire_status",
]  # fmt: skip


class Unset(Enum):
    """A field that is not to be changed, where `None` is a value."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that passed preflight.

    Attributes:
        spec: as posted.
        body_sha256: of what was posted; the same idempotency key must come with the same.
        metadata: the owner's own strings.
    """

    project: str
    spec: dict[str, Any]
    spec_digest: str
    body_sha256: str
    resolved_spec: dict[str, Any] | None = None
    idempotency_key: str | None = None
    name: str | None = None
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    queue: str = "cpu"
    priority: int = 0


def create(session: Session, new: NewJob) -> tuple[Job, bool]:
    """Accept a job.

    Returns:
        The job, and whether it is new: the same key with the same body gives the first one, also when both race.

    Raises:
        IdempotencyMismatch: the key was used for another body.
    """
    while True:
        job = session.scalars(
            insert(session, Job)
            .values(
                id=ids.new("job"),
                project=new.project,
                name=new.name,
                labels=new.metadata,
                spec=new.spec,
                resolved_spec=new.resolved_spec,
                spec_digest=new.spec_digest,
                idempotency_key=new.idempotency_key,
                body_sha256=new.body_sha256,
                queue=new.queue,
                priority=new.priority,
            )
            .on_conflict_do_nothing(index_elements=["project", "idempotency_key"])
            .returning(Job)
        ).one_or_none()
        if job is not None:
            record(session, job, "job.created", {"name": job.name, "queue": job.queue, "priority": job.priority})
            return job, True
        if (first := first_of_key(session, new)) is not None:
            return first, False
        # The first one was deleted between the two statements: the key is free again.


def first_of_key(session: Session, new: NewJob) -> Job | None:
    job = session.scalars(
        select(Job).where(Job.project == new.project, Job.idempotency_key == new.idempotency_key)
    ).one_or_none()
    if job is not None and job.body_sha256 != new.body_sha256:
        raise IdempotencyMismatch(
            f"This Idempotency-Key was used for {job.id} with another body; use a new key for a new job."
        )
    return job


def get(session: Session, project: str, job_id: str) -> Job:
    """Return the job.

    Raises:
        NotFound: the project has none of that id.
    """
    job = session.scalars(select(Job).where(Job.project == project, Job.id == job_id)).one_or_none()
    if job is None:
        raise _not_found(job_id)
    return job


def page(
    session: Session,
    project: str,
    *,
    status: Status | None = None,
    name: str | None = None,
    limit: int = 20,
    after: str | None = None,
    order: Order = "desc",
) -> tuple[list[Job], bool]:
    """Return up to `limit` jobs of the project beyond the id `after`, and whether there are more."""
    statement = select(Job).where(Job.project == project)
    if status is not None:
        statement = statement.where(has_status(status, is_indexed=name is None))
    if name is not None:
        statement = statement.where(Job.name == name)
    return keyset_page(session, statement, Job.id, after=after, limit=limit, order=order)


def versions(reader: Reader, job_ids: Iterable[str]) -> dict[str, int]:
    """Return the version of each of these jobs that exists; a watcher compares it with what it saw."""
    on_postgresql = is_postgresql(reader)
    rows = reader.execute(_versions(on_postgresql=on_postgresql), values(job_ids, on_postgresql=on_postgresql))
    return {job_id: version for job_id, version in rows}  # noqa: C416 - a row is no pair to the type checker


@cache
def _versions(*, on_postgresql: bool) -> Select[str, int]:
    return select(Job.id, Job.version).where(among(Job.id, on_postgresql=on_postgresql))


def edit(
    session: Session,
    project: str,
    job_id: str,
    *,
    name: str | Unset | None = UNSET,
    metadata: dict[str, str] | Unset = UNSET,
    priority: int | Unset = UNSET,
) -> Job:
    """Change what people may change of a job at any time.

    Raises:
        NotFound: the project has no such job.
    """
    fields = {"name": name, "labels": metadata, "priority": priority}
    values = {column: value for column, value in fields.items() if value is not UNSET}
    job = _locked(session, project, job_id)
    changed = {column: value for column, value in values.items() if getattr(job, column) != value}
    return _changed(session, job, changed) if changed else job


def delete(session: Session, project: str, job_id: str) -> Job:
    """Delete an ended job with all its rows, and return what it was; its files are the caller's to delete.

    Raises:
        NotFound: the project has no such job.
        Conflict: it has not ended.
    """
    deleted = session.scalars(
        sql_delete(Job).where(Job.project == project, Job.id == job_id, Job.state.in_(TERMINAL)).returning(Job),
        execution_options={"synchronize_session": False},
    ).one_or_none()
    if deleted is None:
        raise _refused(get(session, project, job_id), "delete")
    session.expunge(deleted)
    return deleted


def request_cancel(session: Session, project: str, job_id: str) -> Job:
    """Cancel a waiting job now; ask the worker of a running one to. Again changes nothing.

    Raises:
        NotFound: the project has no such job.
        Conflict: the job has ended otherwise.
    """
    job = _locked(session, project, job_id)
    match wire_status(job):
        case "queued" | "paused":
            return move(
                session,
                job,
                "cancelled",
                event="job.cancelled",
                body={"stop_reason": "cancelled", "epoch": job.epochs_done},
                values={"stop_reason": "cancelled"},
            )
        case "running" | "pausing":
            return _wish(session, job, "cancel", "job.cancel_requested")
        case "cancelling" | "cancelled":
            return job
        case _:
            raise _refused(job, "cancel")


def request_pause(session: Session, project: str, job_id: str) -> Job:
    """Hold back a waiting job now; ask the worker of a running one to stop at a checkpoint. Again changes nothing.

    Raises:
        NotFound: the project has no such job.
        Conflict: the job has ended, or is being cancelled.
    """
    job = _locked(session, project, job_id)
    match wire_status(job):
        case "queued":
            return move(session, job, "paused", event="job.paused", body={"epoch": job.epochs_done})
        case "running":
            return _wish(session, job, "pause", "job.pause_requested")
        case "pausing" | "paused":
            return job
        case _:
            raise _refused(job, "pause")


def request_resume(session: Session, project: str, job_id: str) -> Job:
    """Queue a paused job again; take back a pause that is not done yet. Again changes nothing.

    Raises:
        NotFound: the project has no such job.
        Conflict: the job was never paused, is being cancelled or has ended.
    """
    job = _locked(session, project, job_id)
    match wire_status(job):
        case "paused":
            return move(session, job, "queued", event="job.resumed", body={"epoch": job.epochs_done})
        case "pausing":
            return _wish(session, job, "run", "job.resumed")
        case "queued" | "running" if _was_resumed(session, job):
            return job
        case _:
            raise _refused(job, "resume")


def _was_resumed(session: Session, job: Job) -> bool:
    return bool(session.scalar(select(exists().where(Event.job_id == job.id, Event.type == "job.resumed"))))


def _wish(session: Session, job: Job, desired: str, event: str) -> Job:
    changed = _changed(session, job, {"desired": desired})
    record(session, changed, event, {"epoch": job.epochs_done})
    return changed


def _locked(session: Session, project: str, job_id: str) -> Job:
    """Lock the job's row (SQLite's writing transaction already has the whole database)."""
    statement = select(Job).where(Job.project == project, Job.id == job_id).with_for_update()
    job = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if job is None:
        raise _not_found(job_id)
    return job


def _changed(session: Session, job: Job, values: dict[str, Any]) -> Job:
    changed = change(session, job.id, Job.state == job.state, Job.fence == job.fence, values=values)
    assert changed is not None, "the row is locked"  # noqa: S101 - for ourselves
    return changed


def _not_found(job_id: str) -> NotFound:
    return NotFound(f"There is no job {job_id!r} in this project.")


def _refused(job: Job, action: str) -> Conflict:
    status, actions = wire_status(job), allowed_actions(job)
    advice = f"possible now: {', '.join(actions)}" if actions else "wait until it is cancelled"
    return Conflict(f"{job.id} is {status}: {action} is not possible; {advice}.", extra={"allowed_actions": actions})
