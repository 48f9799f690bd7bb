"""From Python annotations to JSON Schema."""

import enum
import inspect
import math
import numbers
import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch.optim.lr_scheduler import LRScheduler

from core.spec.catalog import types_of

Schema = dict[str, Any]

DTYPES = ["bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "uint8"]
NULL: Schema = {"type": "null"}
_ORDER = ("integer", "number", "string", "boolean", "object", "array", "null")
NESTED: dict[type, str] = {torch.nn.Module: "layers", LRScheduler: "lr_schedulers"}
"""Objects that a spec writes as components, and of which kind."""
_PLAIN: dict[Any, Schema] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    numbers.Number: {"type": "number"},
    bool: {"type": "boolean"},
    str: {"type": "string"},
    None: {"type": "null"},
    type(None): {"type": "null"},
    torch.dtype: {"enum": DTYPES},
    Any: {},
}


def schema_of(annotation: Any) -> Schema | None:
    """Return the JSON Schema of an annotation; none where JSON cannot express any of its values."""
    if annotation in _PLAIN:
        return dict(_PLAIN[annotation])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return either([schema for item in arguments if (schema := schema_of(item)) is not None])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {"enum": sorted(member.value for member in annotation)}
    if annotation is torch.Size:
        return {"type": "array", "items": {"type": "integer"}}
    return _array(origin or annotation, arguments) or _nested(annotation)


def schema_of_default(default: Any) -> Schema:
    """Return the JSON Schema of an argument without annotation, from its default."""
    if isinstance(default, enum.Enum):
        return {"enum": sorted(member.value for member in type(default))}
    if isinstance(default, (list, tuple)):
        return {"type": "array"}
    known = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": known[type(default)]} if type(default) in known else {}


def either(schemas: list[Schema]) -> Schema | None:
    """Join alternatives: simple types into one `type` list, the others below `anyOf`."""
    if not schemas:
        return None
    if any(not schema for schema in schemas):
        return {}
    schemas = [item for schema in schemas for item in schema.get("anyOf", [schema])]
    simple = sorted(
        {name for schema in schemas if schema.keys() == {"type"} for name in types_of(schema)}, key=_ORDER.index
    )
    if "number" in simple and "integer" in simple:
        simple.remove("integer")
    others: list[Schema] = []
    for schema in schemas:
        if schema.keys() != {"type"} and schema not in others:
            others.append(schema)
    joined = [{"type": simple[0] if len(simple) == 1 else simple}] if simple else []
    joined += others
    return joined[0] if len(joined) == 1 else {"anyOf": joined}


def json_default(value: Any) -> Any:
    """Return a default as JSON; an enum or dtype by the name that a spec would write.

    Raises:
        ValueError: it has no form in JSON.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, (list, tuple)):
        return [json_default(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if inspect.isfunction(value) or inspect.isbuiltin(value):
        return value.__name__
    raise ValueError(f"{value!r} has no form in JSON")


def _array(origin: Any, arguments: tuple[Any, ...]) -> Schema | None:
    if not (isinstance(origin, type) and issubclass(origin, Iterable)) or issubclass(origin, (str, dict, torch.Tensor)):
        return None
    if issubclass(origin, torch.nn.Module):
        return None
    items = [schema_of(item) for item in arguments if item is not Ellipsis]
    known = [item for item in items if item is not None]
    if len(known) != len(items):
        return None
    schema: Schema = {"type": "array"}
    if joined := either(known):
        schema["items"] = joined
    if issubclass(origin, tuple) and arguments and Ellipsis not in arguments:
        schema |= {"minItems": len(arguments), "maxItems": len(arguments)}
    return schema


def _nested(annotation: Any) -> Schema | None:
    if isinstance(annotation, type):
        for base, kind in NESTED.items():
            if issubclass(annotation, base):
                return {"x-component": kind}
    return None
