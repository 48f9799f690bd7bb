"""Parameters that several routes share, with their ranges."""

from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import AfterValidator

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


def _id(prefix: ids.Prefix, what: str) -> AfterValidator:
    """Check the shape of an id: what has another names nothing, which is no mistake of form but a 404."""

    def check(value: str) -> str:
        if not ids.is_id(prefix, value):
            raise NotFound(f"There is no {what} {value!r} in this project.")
        return value

    return AfterValidator(check)


JobId = Annotated[str, Path(description="A job's id.", examples=[_JOB_EXAMPLE]), _id("job", "job")]
DatasetId = Annotated[str, Path(description="A data set's id.", examples=[_DATASET_EXAMPLE]), _id("ds", "data set")]
KeyId = Annotated[str, Path(description="A key's id.", examples=[_KEY_EXAMPLE]), _id("key", "key")]

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
