"""Uploaded data sets."""

import json
from dataclasses import replace
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
from core.errors import Invalid, Issue
from core.messages import DatasetFile
from core.spec import components

router = APIRouter(prefix="/datasets", tags=["datasets"])

STORED: dict[int | str, dict[str, Any]] = {
    200: {"model": DatasetBody, "description": "These bytes are a version of it already."},
    201: {"headers": {"Location": {"schema": {"type": "string"}, "description": "Path of the data set."}}},
}
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Which one; the newest by default.")]
Rows = Annotated[int, Query(ge=1, le=16, description="So many samples, evenly spread over the set.")]
Draws = Annotated[int, Query(ge=1, le=16, description="So many draws of the random transforms for each.")]
Seed = Annotated[int, Query(ge=0, le=2**63 - 1, description="Of the random transforms.")]
TransformList = Annotated[
    str | None,
    Query(
        max_length=10_000,
        description="What `data.transforms.train` of a spec would be, as JSON.",
        examples=['[{"type": "RandomRotation", "degrees": 15}]'],
    ),
]
MAX_TRANSFORMS = 50
PLACE = "/data/transforms/train"
"""Where the transforms would stand in a spec."""
PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}, "description": "The picture."}
}


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


@router.get("/{dataset_id}/preview.png", response_class=Response, responses={**PNG, **problems(400, 404, 422, 503)})
async def drawing(
    svc: Svc,
    who: DatasetReader,
    dataset_id: DatasetId,
    *,
    transforms: TransformList = None,
    rows: Rows = 4,
    draws: Draws = 4,
    seed: Seed = 0,
    version: Version = None,
) -> Response:
    """Draw images as the transforms of a training set make them: a sample in each row, a draw in each column.

    Numbers that leave 0 to 1, as after Normalize, are stretched. The same seed gives the same picture.
    """
    listed = _transforms(transforms)

    def find() -> DatasetFile:
        with svc.database.session_scope(write=False) as session:
            row = datasets.version(session, who.project, dataset_id, version)
        return DatasetFile(path=str(uploads.local_file(svc, row)), format=row.format, sha256=row.sha256)

    file = await run_in_threadpool(find)
    picture = await svc.preflight.draw(file, listed, rows=rows, draws=draws, seed=seed)
    return Response(picture, media_type="image/png")


def _transforms(text: str | None) -> list[Any]:
    """Read a list of transforms and check it against the catalog.

    Raises:
        Invalid: no JSON, no list, or a transform that there is not; issues point into the list.
    """
    try:
        listed = json.loads(text or "[]")
    except (ValueError, RecursionError) as error:
        raise _invalid("not_json", f"transforms is not JSON: {error}") from error
    if not isinstance(listed, list) or len(listed) > MAX_TRANSFORMS:
        raise _invalid("not_a_list", f"transforms must be a list of at most {MAX_TRANSFORMS} transforms")
    found = list(components.check({"data": {"transforms": {"train": listed}}}))
    if found:
        issues = [replace(one, pointer="/transforms" + one.pointer.removeprefix(PLACE), fix=None) for one in found]
        raise Invalid("; ".join(issue.detail for issue in issues), issues=issues)
    if not all(isinstance(item, (str, dict)) for item in listed):
        raise _invalid("not_a_list", "each transform must be a name or an object with `type`")
    return listed


def _invalid(code: str, detail: str) -> Invalid:
    return Invalid(detail, issues=[Issue("/transforms", code, detail)])
