"""What a spec may name: the entries that `python -m core.train.catalog` derived from torch, torchvision, scikit-learn.

The data stands in `catalog.json` beside this module and is read once, at the first question.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]
"""JSON Schema; `x-component` names the kind of a nested component, `x-arguments` allows the component's own ones."""

FILE = Path(__file__).with_name("catalog.json")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One keyword argument of a component."""

    name: str
    schema: Schema
    required: bool = False
    inferred: bool = False
    """It may be left out because it follows from the data or the layer before."""
    default: Any = None
    """The library's default; none where `required`, `inferred` or where the default is none itself."""

    @property
    def annotation(self) -> str:
        """Its type in words, such as `integer | [integer, integer]`."""
        return in_words(self.schema)

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands on the wire."""
        body: dict[str, Any] = {"name": self.name, "annotation": self.annotation, "required": self.required}
        if self.inferred:
            body["inferred"] = True
        elif not self.required:
            body["default"] = self.default
        return {**body, "schema": self.schema}


@dataclass(frozen=True)
class Entry:
    """One name of one kind."""

    name: str
    kind: str
    help: str
    """The first line of its documentation."""
    parameters: tuple[Parameter, ...] = ()
    refused: str | None = None
    """Why a spec cannot use it, where it cannot."""
    instead: str | None = None
    """What to name instead of a refused one."""

    @cached_property
    def by_name(self) -> Mapping[str, Parameter]:
        """The parameters by name, in their order."""
        return {parameter.name: parameter for parameter in self.parameters}

    @property
    def inferred(self) -> tuple[str, ...]:
        """Names of the parameters that may be left out because they are inferred."""
        return tuple(parameter.name for parameter in self.parameters if parameter.inferred)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the component as a whole."""
        properties = {parameter.name: parameter.schema for parameter in self.parameters}
        return {
            "title": self.name,
            "description": self.help,
            "type": "object",
            "properties": {"type": {"const": self.name}, **properties},
            "required": ["type", *(parameter.name for parameter in self.parameters if parameter.required)],
            "additionalProperties": False,
        }

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands on the wire."""
        body: dict[str, Any] = {"name": self.name, "kind": self.kind, "help": self.help}
        if self.refused is not None:
            return {**body, "refused": self.refused, "instead": self.instead}
        parameters = [parameter.as_json() for parameter in self.parameters]
        return {**body, "parameters": parameters, "inferred": list(self.inferred), "schema": self.json_schema()}


def in_words(schema: Schema) -> str:
    """Return a schema as a short type, such as `integer | [integer, integer] | null`."""
    if "anyOf" in schema:
        return " | ".join(in_words(item) for item in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(json.dumps(item) for item in schema["enum"])
    if "x-component" in schema:
        return f"component of {schema['x-component']}"
    if schema.get("type") == "array":
        item, count = in_words(schema.get("items", {})), schema.get("maxItems")
        return f"[{', '.join([item] * count)}]" if count else f"[{item}, …]"
    return " | ".join(types_of(schema)) or "any"


def types_of(schema: Schema) -> list[str]:
    """Return the JSON types that a schema names; none for any type."""
    kind = schema.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def kinds() -> list[str]:
    """Return the kinds of components: `layers`, `losses`, `optimizers` and so on."""
    return list(_tables())


def entries(kind: str) -> list[Entry]:
    """Return all entries of a kind by name, refused ones too; none for an unknown kind."""
    return list(_tables().get(kind, {}).values())


def find(kind: str, name: str) -> Entry | None:
    """Return the entry of exactly this name."""
    return _tables().get(kind, {}).get(name)


def names(kind: str) -> list[str]:
    """Return the names of a kind that a spec can use."""
    return [entry.name for entry in entries(kind) if entry.refused is None]


def kind_of(name: str) -> str | None:
    """Return the first kind that has this name, refused or not."""
    return next((kind for kind, table in _tables().items() if name in table), None)


def versions() -> Mapping[str, str]:
    """Return the versions (major and minor) that the catalog was derived from, by package."""
    return _document()["versions"]


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, Entry]]:
    return {
        kind: {name: _entry(kind, name, body) for name, body in table.items()}
        for kind, table in _document()["kinds"].items()
    }


def _entry(kind: str, name: str, body: dict[str, Any]) -> Entry:
    parameters = tuple(Parameter(**parameter) for parameter in body.get("parameters", ()))
    return Entry(name, kind, body["help"], parameters, body.get("refused"), body.get("instead"))
