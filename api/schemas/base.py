"""What all bodies share."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer, WithJsonSchema

Json = dict[str, Any]


def rfc3339(instant: datetime) -> str:
    """Return an instant in UTC as RFC 3339 text with microseconds and `Z`."""
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Instant = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-05-04T09:30:00.123456Z"]}),
]
"""An instant, in UTC."""


class Body(BaseModel):
    """A response."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


class Wanted(BaseModel):
    """A request: unknown keys are errors, and `"5"` is no 5."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    @classmethod
    def ref(cls) -> Json:
        """Return the reference to its schema in the OpenAPI document."""
        return {"$ref": f"#/components/schemas/{cls.__name__}"}


Item = TypeVar("Item")
Row = TypeVar("Row")


class Listing(Body, Generic[Item]):
    """All there is, in order."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = False


class Page(Listing[Item], Generic[Item]):
    """A part of what there is; `after=<last_id>` asks for the next."""

    first_id: str | None
    last_id: str | None


def page(rows: Sequence[Row], body: Callable[[Row], Item], key: Callable[[Row], str], *, has_more: bool) -> Page[Item]:
    """Return rows as a page."""
    ids = [key(row) for row in rows]
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return Page(data=[body(row) for row in rows], has_more=has_more, first_id=first, last_id=last)
