"""Problems (RFC 9457), as they are documented; `api.problems` writes them."""

from typing import Any

from pydantic import ConfigDict, Field

from api.schemas.base import Body


def _is_none(value: object) -> bool:
    return value is None


class IssueBody(Body):
    """One thing wrong with one place of the request."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    pointer: str
    """JSON pointer into the request's body, such as `/model/layers/3/in_features`; `""`: the body as a whole."""
    code: str
    """Stable machine word."""
    detail: str
    """One plain sentence."""
    hint: str | None = Field(default=None, exclude_if=_is_none)
    """What to do about it; left out where that is not known."""
    fix: list[dict[str, Any]] | None = Field(default=None, exclude_if=_is_none)
    """JSON Patch (RFC 6902) that mends the body; left out where there is none."""


class ProblemBody(Body):
    """Every error of this service: `application/problem+json` (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    """URI of the kind of problem; its last part is stable."""
    title: str
    status: int
    detail: str
    """What is wrong with which value, and what to do next."""
    instance: str
    """Path of the request."""
    errors: list[IssueBody]
    """Every single thing that is wrong, where it can be named."""
