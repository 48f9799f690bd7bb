"""What is polled: a job and its metrics."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api import metrics_body
from api.answers import Answer
from api.dependencies import JobReader, Svc
from api.metrics_body import Form
from api.parameters import NOT_MODIFIED, AfterEpoch, JobId, LongLimit, problems
from api.schemas.base import Listing
from api.schemas.jobs import JobBody, job_body
from api.schemas.records import MetricsRow
from api.services import Services
from api.waiting import POLLED, conditional, etag_of, has_seen, wait_seconds
from core.db import jobs, series
from core.db.asked import Head

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

METRICS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}, "example": "epoch,step,train_loss\r\n1,57,0.93\r\n"}}}
}


@router.get("", response_model=JobBody, responses={**NOT_MODIFIED, **problems(404)}, openapi_extra=POLLED)
async def show(svc: Svc, who: JobReader, job_id: JobId, request: Request) -> Response:
    """Show a job. With `Prefer: wait` the answer comes at its next change."""
    head = await svc.heads.first(request, who.project, job_id)
    waited = wait_seconds(request, svc.settings.max_wait_seconds)
    knows_it = "if-none-match" not in request.headers or has_seen(request, etag_of(head.version))
    if knows_it and not head.is_terminal and await svc.changes.wait(job_id, head.version, waited, request):
        head = await svc.heads.get(who.project, job_id)
    answer = svc.answers.get(job_id, head.version)
    if answer is None:
        version, answer = await run_in_threadpool(_shown, svc, who.project, job_id)
        svc.answers.put(job_id, version, answer)
    return conditional(request, answer.body, answer.etag, media="application/json", waited=waited)


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


def _shown(svc: Svc, project: str, job_id: str) -> tuple[int, Answer]:
    """Read and render a job, which may be newer by now than its head was."""
    with svc.database.session_scope(write=False) as session:
        job = jobs.get(session, project, job_id)
    return job.version, Answer(job_body(job).model_dump_json().encode(), etag_of(job.version))


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


def _form(request: Request) -> Form:
    """Return CSV where the client names it and does not name JSON before it."""
    accept = request.headers.get("accept", "").lower()
    csv, json = accept.find("text/csv"), accept.find("application/json")
    return "text/csv" if csv >= 0 and (json < 0 or csv < json) else "application/json"
