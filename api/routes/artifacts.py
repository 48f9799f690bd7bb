"""The files that a job left."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api.dependencies import JobReader, Svc
from api.files import send
from api.parameters import NOT_MODIFIED, JobId, problems
from api.schemas.base import Listing
from api.schemas.records import ArtifactBody, artifact_body
from core.db import jobs, series

router = APIRouter(prefix="/jobs/{job_id}/artifacts", tags=["jobs"])

Name = Annotated[str, Path(max_length=200, description="Such as `model.safetensors`.", examples=["model.safetensors"])]
BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.get("", responses=problems(404))
def listing(svc: Svc, who: JobReader, job_id: JobId) -> Listing[ArtifactBody]:
    """List the files with digest and size."""
    with svc.database.session_scope(write=False) as session:
        jobs.get(session, who.project, job_id)
        rows = series.artifacts(session, job_id)
    return Listing(data=[artifact_body(row) for row in rows])


@router.get(
    "/{name}",
    response_class=Response,
    responses={
        200: {**BYTES, "description": "The bytes; the ETag is their SHA-256."},
        206: {**BYTES, "description": "The range that was asked for."},
        **NOT_MODIFIED,
        **problems(400, 404, 416),
    },
)
def content(svc: Svc, who: JobReader, job_id: JobId, name: Name, request: Request) -> Response:
    """Download a file."""
    with svc.database.session_scope(write=False) as session:
        jobs.get(session, who.project, job_id)
        row = series.artifact(session, job_id, name)
    return send(svc, request, row)
