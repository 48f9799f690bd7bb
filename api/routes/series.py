"""What a job tells while it runs: metrics, decisions, events, attempts, logs."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.dependencies import JobReader, Svc
from api.files import log_tail
from api.parameters import MAX_EPOCH, MAX_SERIAL, AfterNumber, JobId, LongLimit, problems
from api.schemas.base import Listing
from api.schemas.records import (
    AttemptBody,
    DecisionBody,
    EventBody,
    attempt_body,
    decision_body,
    event_body,
)
from api.services import Services
from core.db import jobs, series
from core.db.states import is_terminal
from core.db.tables import Event, Job
from core.errors import NotFound

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

STREAM_LOOK_SECONDS = 15.0
"""The event stream looks at the job at least so often."""


@router.get("/decisions", responses=problems(400, 404))
def decisions(
    svc: Svc, who: JobReader, job_id: JobId, after: AfterNumber = None, limit: LongLimit = 1000
) -> Listing[DecisionBody]:
    """List what was decided: early stopping, learning-rate cuts, retries, each with the numbers that caused it."""
    with svc.database.session_scope(write=False) as session:
        jobs.get(session, who.project, job_id)
        rows, has_more = series.decisions(session, job_id, after=after, limit=limit)
    return Listing(data=[decision_body(row) for row in rows], has_more=has_more)


@router.get("/events", responses=problems(400, 404))
def events(
    svc: Svc, who: JobReader, job_id: JobId, after: AfterNumber = None, limit: LongLimit = 1000
) -> Listing[EventBody]:
    """List what happened, numbered and in order."""
    with svc.database.session_scope(write=False) as session:
        jobs.get(session, who.project, job_id)
        rows, has_more = series.events(session, job_id, after=after, limit=limit)
    return Listing(data=[event_body(row) for row in rows], has_more=has_more)


def existing(svc: Svc, who: JobReader, job_id: JobId) -> Job:
    """Return the job before a stream begins: afterwards no status can be sent."""
    with svc.database.session_scope(write=False) as session:
        return jobs.get(session, who.project, job_id)


@router.get("/events/stream", response_class=EventSourceResponse, responses=problems(400, 404))
async def stream(
    svc: Svc,
    job: Annotated[Job, Depends(existing)],
    request: Request,
    after: AfterNumber = None,
    last_event_id: Annotated[
        int | None,
        Header(
            alias="Last-Event-ID", ge=0, le=MAX_SERIAL, description="The last id that was seen; goes before `after`."
        ),
    ] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Stream what happens (server-sent events), from the beginning or behind the last id seen, to the job's end.

    A comment comes every 15 seconds when nothing happens.
    """
    seen = last_event_id if last_event_id is not None else after
    while not svc.changes.is_closed:
        try:
            job, rows = await run_in_threadpool(_events, svc, job.project, job.id, seen)
        except NotFound:  # deleted meanwhile
            return
        for row in rows:
            seen = row.id
            yield ServerSentEvent(id=str(row.id), event=row.type, data=event_body(row))
        if not rows:
            if is_terminal(job):
                return
            await svc.changes.wait(job.id, job.version, STREAM_LOOK_SECONDS, request)


@router.get("/attempts", responses=problems(404))
def attempts(svc: Svc, who: JobReader, job_id: JobId) -> Listing[AttemptBody]:
    """List the job's executions, with outcome and cause."""
    with svc.database.session_scope(write=False) as session:
        jobs.get(session, who.project, job_id)
        rows = series.attempts(session, job_id)
    return Listing(data=[attempt_body(row) for row in rows])


@router.get("/logs", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **problems(400, 404)})
def logs(
    svc: Svc,
    who: JobReader,
    job_id: JobId,
    tail: Annotated[int | None, Query(ge=1, le=MAX_SERIAL, description="Only the last so many bytes.")] = None,
    attempt: Annotated[int | None, Query(ge=1, le=MAX_EPOCH, description="Which one; the latest by default.")] = None,
) -> Response:
    """Read what an attempt's trainer wrote; empty before it wrote anything."""
    with svc.database.session_scope(write=False) as session:
        jobs.get(session, who.project, job_id)
        rows = [row for row in series.attempts(session, job_id) if attempt in (None, row.number)]
    if attempt is not None and not rows:
        raise NotFound(f"{job_id} has no attempt {attempt}.")
    text = log_tail(svc, job_id, rows[-1].fence, tail) if rows else b""
    return Response(text.decode(errors="replace"), media_type="text/plain", headers={"Cache-Control": "no-cache"})


def _events(svc: Services, project: str, job_id: str, after: int | None) -> tuple[Job, Sequence[Event]]:
    with svc.database.session_scope(write=False) as session:
        job = jobs.get(session, project, job_id)
        return job, series.events(session, job_id, after=after)[0]
