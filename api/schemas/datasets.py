"""Data sets on the wire."""

from collections.abc import Sequence
from typing import Any, Literal

from api.schemas.base import Body, Instant, Json
from core.db.tables import Dataset, DatasetVersion


class VersionBody(Body):
    """The bytes of one version, and what they hold."""

    version: int
    format: str
    """`csv`, `parquet`, `npz`, `images`, `idx` or `jsonl`."""
    filename: str | None
    sha256: str
    size_bytes: int
    profile: Json
    """Rows, columns, dtypes, missing values, label counts."""
    created_at: Instant


class DatasetBody(VersionBody):
    """An uploaded data set, with its newest version (or the one that was just uploaded)."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    versions: list[VersionBody]
    """All of them, oldest first."""


class PreviewBody(Body):
    """The first rows of a version."""

    version: int
    columns: list[Any]
    rows: list[Any]


def version_body(row: DatasetVersion) -> VersionBody:
    """Return a row as it stands on the wire."""
    return VersionBody.model_validate(_fields(row))


def dataset_body(
    dataset: Dataset, versions: Sequence[DatasetVersion], shown: DatasetVersion | None = None
) -> DatasetBody:
    """Return a data set with one version in the foreground: `shown`, or the newest."""
    return DatasetBody.model_validate(
        {
            **_fields(shown or versions[-1]),
            "id": dataset.id,
            "name": dataset.name,
            "versions": [version_body(version) for version in versions],
        }
    )


def _fields(row: DatasetVersion) -> dict[str, Any]:
    return {name: getattr(row, name) for name in VersionBody.model_fields}
