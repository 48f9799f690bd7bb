"""What a job tells while it runs: metrics, decisions, events, attempts, logs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api import metrics_body
from api.answers import Answer
from api.dependencies import JobReader, Svc
from api.files import log_tail
from api.metrics_body import Form
from api.parameters import MAX_EPOCH, MAX_SERIAL, NOT_MODIFIED, AfterEpoch, AfterNumber, JobId, LongLimit, problems
from api.schemas.base import Listing
from api.schemas.records import (
    AttemptBody,
    DecisionBody,
    EventBody,
    MetricsRow,
    attempt_body,
    decision_body,
    event_body,
)
from api.services import Services
from api.waiting import POLLED, conditional, has_seen, wait_seconds
from core.db import jobs, series
from core.db.jobs import Head
from core.db.states import is_terminal
from core.db.tables import Event, Job
from core.errors import NotFound

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

STREAM_LOOK_SECONDS = 15.0
"""The event stream looks at the job at least so often."""
METRICS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}, "example": "epoch,step,train_loss\r\n1,57,0.93\r\n"}}}
}


@router.get(
    "/metrics",
    response_model=Listing[MetricsRow],
    responses={**METRICS, **NOT_MODIFIED, **problems(400, 404)},
    openapi_extra=POLLED,
)
async def metrics(
    svc: Svc,
    who: JobReader,
    job_id: JobId,
    request: Request,
    *,
    after: AfterEpoch = None,
    limit: LongLimit = 1000,
) -> Response:
    """Read the epochs' rows, in order. A row once read never changes.

    With `Prefer: wait` the answer comes when a row behind `after` exists or the job has ended. `Accept: text/csv`
    gives a flat table.
    """
    form = _form(request)
    waited = wait_seconds(request, svc.settings.max_wait_seconds)
    deadline = asyncio.get_running_loop().time() + waited
    head = await svc.heads.first(request, who.project, job_id)
    while True:
        answer = await _metrics(svc, head, after, limit, form)
        left = deadline - asyncio.get_running_loop().time()
        is_news = not answer.is_empty and not has_seen(request, answer.etag)
        if is_news or head.is_terminal or not await svc.changes.wait(job_id, head.version, left, request):
            break
        head = await svc.heads.get(who.project, job_id)
    return conditional(request, answer.body, answer.etag, media=form, vary="Accept", waited=waited)


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


async def _metrics(svc: Services, head: Head, after: int | None, limit: int, form: Form) -> Answer:
    """Return a page of rows: as it was made before, unless the job has a newer row since then."""
    if head.last_epoch is None or (after is not None and after >= head.last_epoch):
        return metrics_body.answer([], has_more=False, form=form)
    key = (head.job_id, after, limit, form)
    answer = svc.answers.get(key, head.last_epoch)
    if answer is None:
        answer = await run_in_threadpool(_read_metrics, svc, head.job_id, after, limit, form)
        svc.answers.put(key, head.last_epoch, answer)
    return answer


def _read_metrics(svc: Services, job_id: str, after: int | None, limit: int, form: Form) -> Answer:
    with svc.database.session_scope(write=False) as session:
        rows, has_more = series.rows(session, job_id, after=after, limit=limit)
    return metrics_body.answer(rows, has_more=has_more, form=form)


def _events(svc: Services, project: str, job_id: str, after: int | None) -> tuple[Job, Sequence[Event]]:
    with svc.database.session_scope(write=False) as session:
        job = jobs.get(session, project, job_id)
        return job, series.events(session, job_id, after=after)[0]


def _form(request: Request) -> Form:
    """Return CSV where the client names it and does not name JSON before it."""
    accept = request.headers.get("accept", "").lower()
    csv, json = accept.find("text/csv"), accept.find("application/json")
    return "text/csv" if csv >= 0 and (json < 0 or csv < json) else "application/json"
