"""The catalog on the wire."""

from typing import Any

from pydantic import Field

from api.schemas.base import Body, Json


class KindBody(Body):
    """A kind of components."""

    kind: str
    names: list[str]
    """That a spec can use."""


class ParameterBody(Body):
    """One keyword argument."""

    name: str
    annotation: str
    """Its type in words."""
    required: bool
    inferred: bool = False
    """May be left out because it follows from the data or the layer before."""
    default: Any = None
    schema_: Json = Field(alias="schema")
    """JSON Schema."""


class ComponentBody(Body):
    """Something that a spec may name."""

    name: str
    kind: str
    help: str
    parameters: list[ParameterBody] = Field(default_factory=list[ParameterBody])
    inferred: list[str] = Field(default_factory=list[str])
    """Names of the arguments that may be left out because they are inferred."""
    schema_: Json | None = Field(default=None, alias="schema")
    """JSON Schema of the component as a whole; null for a refused one."""
    refused: str | None = None
    """Why a spec cannot use it, where it cannot."""
    instead: str | None = None
    """What to name instead of a refused one."""
