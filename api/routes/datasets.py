"""Uploaded data sets."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api import uploads
from api.dependencies import DatasetReader, DatasetWriter, Svc
from api.forms import UPLOAD_BODY, upload_form
from api.parameters import AfterDataset, DatasetId, Limit, Order, problems
from api.schemas.base import Page, page
from api.schemas.datasets import DatasetBody, PreviewBody, dataset_body
from core.db import datasets

router = APIRouter(prefix="/datasets", tags=["datasets"])

STORED: dict[int | str, dict[str, Any]] = {
    200: {"model": DatasetBody, "description": "These bytes are a version of it already."},
    201: {"headers": {"Location": {"schema": {"type": "string"}, "description": "Path of the data set."}}},
}
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Which one; the newest by default.")]


@router.post(
    "",
    status_code=201,
    openapi_extra={"requestBody": UPLOAD_BODY},
    responses={**STORED, **problems(400, 413, 415, 422, 507)},
)
async def upload(svc: Svc, who: DatasetWriter, request: Request, response: Response) -> DatasetBody:
    """Upload a data set, or a new version of one. The same bytes are the same version."""
    with uploads.space_needed():
        async with upload_form(request, svc.settings.max_upload_bytes) as form:
            body, is_new = await run_in_threadpool(uploads.store, svc, who.project, form)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/datasets/{body.id}"
    return body


@router.get("", responses=problems(400))
def listing(
    svc: Svc, who: DatasetReader, limit: Limit = 20, after: AfterDataset = None, order: Order = "desc"
) -> Page[DatasetBody]:
    """List the project's data sets."""
    with svc.database.session_scope(write=False) as session:
        rows, has_more = datasets.page(session, who.project, limit=limit, after=after, order=order)
        bodies = [dataset_body(row, datasets.versions(session, row.id)) for row in rows]
    return page(bodies, lambda body: body, lambda body: body.id, has_more=has_more)


@router.get("/{dataset_id}", responses=problems(404))
def show(svc: Svc, who: DatasetReader, dataset_id: DatasetId) -> DatasetBody:
    """Show a data set with all its versions."""
    with svc.database.session_scope(write=False) as session:
        row = datasets.get(session, who.project, dataset_id)
        return dataset_body(row, datasets.versions(session, dataset_id))


@router.get("/{dataset_id}/preview", responses=problems(400, 404, 422))
def preview(
    svc: Svc, who: DatasetReader, dataset_id: DatasetId, limit: Limit = 20, version: Version = None
) -> PreviewBody:
    """Show the first samples of a version."""
    from core.datasets.profiling import preview as first_samples

    with svc.database.session_scope(write=False) as session:
        row = datasets.version(session, who.project, dataset_id, version)
    shown = first_samples(uploads.local_file(svc, row), row.format, limit)
    return PreviewBody(version=row.version, columns=shown["columns"], rows=shown["rows"])
