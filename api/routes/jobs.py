"""Jobs: submit, look, wish."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from starlette.concurrency import run_in_threadpool

from api import submission
from api.dependencies import JobReader, JobWriter, JsonBody, Svc
from api.examples import spec_body
from api.files import forget
from api.parameters import AfterJob, JobId, Limit, Order, problems
from api.schemas.base import Page, page
from api.schemas.jobs import JobBody, JobEdit, PreflightBody, job_body
from api.schemas.parsing import parsed
from api.waiting import etag_of
from core.db import jobs
from core.db.states import Status
from core.errors import SpecInvalid

router = APIRouter(tags=["jobs"])

Name = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$", description="Exactly this name.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key and body answers the first job again, with `Idempotency-Replayed: true`; "
        "another body is a 422. 1 to 255 printable ASCII characters.",
        examples=["6f1c1d52-9f0e-4f6e-8b57-0a9f3f0c5a3e"],
    ),
]
CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "Path of the job."},
            "ETag": {"schema": {"type": "string"}, "description": "Its version."},
            "Idempotency-Replayed": {"schema": {"const": "true"}, "description": "The job was there already."},
        }
    }
}


@router.post("/preflight", openapi_extra=spec_body(), responses=problems(400, 413, 415, 422, 503))
async def preflight(svc: Svc, who: JobReader, body: JsonBody) -> PreflightBody:
    """Check a spec without queueing it: build it, push one fake batch through, say what it means."""
    try:
        prepared = await run_in_threadpool(submission.prepare, svc, who, body)
    except SpecInvalid as error:
        errors = [issue.as_json() for issue in error.issues]
        return PreflightBody.model_validate(
            {"ok": False, "errors": errors, "warnings": [], "summary": None, "resolved_spec": None}
        )
    return PreflightBody.model_validate(await submission.check(svc, prepared))


@router.post("/jobs", status_code=201, openapi_extra=spec_body(), responses={**CREATED, **problems(400, 413, 415, 422)})
async def create(svc: Svc, who: JobWriter, body: JsonBody, response: Response, idempotency_key: Key = None) -> JobBody:
    """Submit a job. The answer comes after it is safe in the database: an accepted job reaches its end."""
    key = submission.idempotency_key(idempotency_key)
    job, is_new = await submission.submit(svc, who, body, key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["ETag"] = etag_of(job.version)
    if not is_new:
        response.headers["Idempotency-Replayed"] = "true"
    return job_body(job)


@router.get("/jobs", responses=problems(400))
def listing(
    svc: Svc,
    who: JobReader,
    *,
    status: Status | None = None,
    name: Name = None,
    limit: Limit = 20,
    after: AfterJob = None,
    order: Order = "desc",
) -> Page[JobBody]:
    """List the project's jobs."""
    with svc.database.session_scope(write=False) as session:
        rows, has_more = jobs.page(
            session, who.project, status=status, name=name, limit=limit, after=after, order=order
        )
    return page(rows, job_body, lambda job: job.id, has_more=has_more)


@router.patch(
    "/jobs/{job_id}",
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": JobEdit.ref()}}}},
    responses=problems(400, 404, 413, 415, 422),
)
def edit(svc: Svc, who: JobWriter, job_id: JobId, body: JsonBody, response: Response) -> JobBody:
    """Change name, metadata or priority. A higher priority goes first among the jobs that wait."""
    wanted = parsed(JobEdit, body)
    fields = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    with svc.database.session_scope() as session:
        job = jobs.edit(session, who.project, job_id, **fields)
    response.headers["ETag"] = etag_of(job.version)
    return job_body(job)


@router.delete("/jobs/{job_id}", status_code=204, responses=problems(404, 409))
def delete(svc: Svc, who: JobWriter, job_id: JobId) -> None:
    """Delete a job that has ended, with its rows and files."""
    with svc.database.session_scope() as session:
        jobs.delete(session, who.project, job_id)
    forget(svc, job_id)


@router.post("/jobs/{job_id}/cancel", status_code=202, responses=problems(404, 409))
def cancel(svc: Svc, who: JobWriter, job_id: JobId) -> JobBody:
    """Cancel: a waiting job at once, a running one within seconds. Again is a no-op."""
    with svc.database.session_scope() as session:
        job = jobs.request_cancel(session, who.project, job_id)
    return job_body(job)


@router.post("/jobs/{job_id}/pause", status_code=202, responses=problems(404, 409))
def pause(svc: Svc, who: JobWriter, job_id: JobId) -> JobBody:
    """Pause: the trainer stops at a checkpoint and frees its place. Again is a no-op."""
    with svc.database.session_scope() as session:
        job = jobs.request_pause(session, who.project, job_id)
    return job_body(job)


@router.post("/jobs/{job_id}/resume", status_code=202, responses=problems(404, 409))
def resume(svc: Svc, who: JobWriter, job_id: JobId) -> JobBody:
    """Resume a paused job from its checkpoint; on a CPU the weights are those of an undisturbed run."""
    with svc.database.session_scope() as session:
        job = jobs.request_resume(session, who.project, job_id)
    if job.state == "queued":
        svc.ring(job)
    return job_body(job)
