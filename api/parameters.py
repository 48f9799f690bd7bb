"""Parameters that several routes share, with their ranges."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query

from api.schemas.problem import ProblemBody
from core import ids
from core.errors import NotFound

MAX_EPOCH = 2**31 - 1
MAX_SERIAL = 2**63 - 1

_JOB_EXAMPLE = "job_0199a1b2c3d47e5f8a9b0c1d2e3f4a5b"
_KEY_EXAMPLE = "key_0199a1b2c3d47e5f8a9b0c1d2e3f4a5b"
_DATASET_EXAMPLE = "ds_0199a1b2c3d47e5f8a9b0c1d2e3f4a5b"

Limit = Annotated[int, Query(ge=1, le=100, description="At most so many.")]
LongLimit = Annotated[int, Query(ge=1, le=10_000, description="At most so many.")]
Order = Annotated[Literal["asc", "desc"], Query(description="By time of creation.")]
AfterJob = Annotated[
    str | None, Query(pattern=r"^job_[0-9a-f]{32}$", description="Begin behind this one.", examples=[_JOB_EXAMPLE])
]
AfterDataset = Annotated[
    str | None, Query(pattern=r"^ds_[0-9a-f]{32}$", description="Begin behind this one.", examples=[_DATASET_EXAMPLE])
]
AfterEpoch = Annotated[int | None, Query(ge=-1, le=MAX_EPOCH, description="Only rows of later epochs.")]
AfterNumber = Annotated[int | None, Query(ge=0, le=MAX_SERIAL, description="Only those with a higher id.")]


async def job_id(job_id: Annotated[str, Path(description="A job's id.", examples=[_JOB_EXAMPLE])]) -> str:
    """Return the id; what has not the shape of one names nothing.

    Raises:
        NotFound: it has not.
    """
    if not ids.is_id("job", job_id):
        raise NotFound(f"There is no job {job_id!r} in this project.")
    return job_id


async def dataset_id(
    dataset_id: Annotated[str, Path(description="A data set's id.", examples=[_DATASET_EXAMPLE])],
) -> str:
    """Return the id; what has not the shape of one names nothing.

    Raises:
        NotFound: it has not.
    """
    if not ids.is_id("ds", dataset_id):
        raise NotFound(f"There is no data set {dataset_id!r} in this project.")
    return dataset_id


async def key_id(key_id: Annotated[str, Path(description="A key's id.", examples=[_KEY_EXAMPLE])]) -> str:
    """Return the id; what has not the shape of one names nothing.

    Raises:
        NotFound: it has not.
    """
    if not ids.is_id("key", key_id):
        raise NotFound(f"There is no key {key_id!r} in this project.")
    return key_id


KeyId = Annotated[str, Depends(key_id)]
JobId = Annotated[str, Depends(job_id)]
DatasetId = Annotated[str, Depends(dataset_id)]

_MEANINGS = {
    400: "Malformed: no JSON, or a parameter out of its range.",
    401: "A key is needed, or this one is not valid.",
    403: "The key may not do this.",
    404: "Not there, or another project's.",
    409: "Not possible in this state; `allowed_actions` says what is.",
    413: "More bytes than the operator allows.",
    415: "Not the content type that this route takes.",
    416: "The range lies outside of the file.",
    422: "Understood, but it cannot work; `errors` says where and why.",
    503: "Not now; repeat after `Retry-After` seconds.",
    507: "A disk of the service is full; nothing was kept. Repeat after `Retry-After` seconds.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's problems."""
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {"description": _MEANINGS[status], "content": {"application/problem+json": {"schema": REF}}}
    if status in (503, 507):
        found["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return found


REF = {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "What If-None-Match names is still right."}}
