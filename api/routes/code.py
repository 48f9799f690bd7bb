"""A job as one plain PyTorch file: the way out of this service."""

import hashlib
import re
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from api.dependencies import JobReader, Svc
from api.parameters import NOT_MODIFIED, JobId, problems
from api.waiting import CONDITIONAL, has_seen
from core.code import Upload, script
from core.db import datasets, jobs
from core.errors import Conflict, NotFound

router = APIRouter(tags=["jobs"])

MEDIA = "text/x-python"
PLACES = ("train", "val", "test")
PYTHON: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {MEDIA: {"schema": {"type": "string"}, "example": "import torch\n"}},
        "description": "The script; the ETag is its SHA-256.",
        "headers": {
            "ETag": {"schema": {"type": "string"}, "description": "Of the text."},
            "Content-Disposition": {"schema": {"type": "string"}, "description": "A file name, after the job's."},
        },
    }
}


@router.get(
    "/jobs/{job_id}/code",
    response_class=Response,
    responses={**PYTHON, **NOT_MODIFIED, **problems(404, 409, 422)},
    openapi_extra=CONDITIONAL,
)
def code(svc: Svc, who: JobReader, job_id: JobId, request: Request) -> Response:
    """Write the job as a script of torch, torchvision, scikit-learn and numpy; on a CPU it gives the same weights.

    A job that uses what a script cannot repeat is a 409 whose `errors` name the fields and what to do.
    """
    with svc.database.session_scope(write=False) as session:
        job = jobs.get(session, who.project, job_id)
        resolved, numerics, name = job.resolved_spec, job.numerics, job.name or job_id
        uploads = _uploads(session, who.project, resolved or {})
    if resolved is None or "task" not in resolved:
        raise Conflict("The job's sizes are not known yet: it was accepted unchecked. Ask again once it has started.")
    text = script(resolved, uploads=uploads, numerics=numerics).encode()
    headers = {"ETag": f'"{hashlib.sha256(text).hexdigest()}"', "Cache-Control": "private, no-cache"}
    if has_seen(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(file_name(name), safe='')}"
    return Response(text, media_type=MEDIA, headers=headers)


def file_name(name: str) -> str:
    """Return a name for the file of a job's script, of letters, digits, `-`, `_` and dots."""
    words = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    return f"{words or 'train'}.py"


def _uploads(session: Session, project: str, resolved: dict[str, Any]) -> dict[str, Upload]:
    """Return what is known of the uploads that a spec names; those that were deleted are left out."""
    found: dict[str, Upload] = {}
    for place in PLACES:
        source = resolved.get("data", {}).get(place)
        if isinstance(source, dict) and source.get("type") == "dataset":
            try:
                version = datasets.version(session, project, str(source.get("id")), source.get("version"))
            except NotFound:
                continue
            found[f"{version.dataset_id}@{version.version}"] = Upload(version.format, version.sha256, version.profile)
    return found
