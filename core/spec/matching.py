"""Whether a value matches a schema of the catalog, and if not, where and why.

The catalog uses a small part of JSON Schema: `type`, `enum`, `anyOf`, `items`, `minItems`, `maxItems`, bounds,
`pattern`, `format: regex`, `properties`, `required`, `additionalProperties`. Types are strict: `true` is no number and
5.0 no integer. What stands below `x-component` or `x-arguments` is the caller's.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from core.errors import Issue
from core.spec.catalog import Schema, types_of
from core.spec.pointer import join
from core.spec.wording import not_allowed, one_of, out_of_range, subject, wrong_type

Nested = Callable[[Any, Schema, str], Iterator[Issue]]
"""Checks a value whose schema has `x-component` or `x-arguments`, at a pointer."""

_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "integer": ("an integer", (int,)),
    "number": ("a number", (int, float)),
    "string": ("a string", (str,)),
    "boolean": ("true or false", (bool,)),
    "array": ("an array", (list,)),
    "object": ("an object", (dict,)),
    "null": ("null", (type(None),)),
}


def mismatches(value: Any, schema: Schema, pointer: str, nested: Nested) -> Iterator[Issue]:
    """Say where a value breaks a schema."""
    if "anyOf" in schema:
        yield from _alternatives(value, schema, pointer, nested)
    elif "x-component" in schema:
        yield from nested(value, schema, pointer)
    elif not _has_type(value, schema):
        yield wrong_type(pointer, described(schema), value, lambda candidate: _accepts(candidate, schema))
    elif "enum" in schema:
        if value not in schema["enum"]:
            yield not_allowed(pointer, schema["enum"], value)
    elif isinstance(value, list):
        yield from _items(value, schema, pointer, nested)
    elif isinstance(value, dict):
        yield from _properties(value, schema, pointer, nested)
    else:
        yield from _bounds(value, schema, pointer)


def described(schema: Schema) -> str:
    """Say what a schema asks for: `an integer or an array of 2 integers`."""
    if "anyOf" in schema:
        return " or ".join(described(item) for item in schema["anyOf"])
    if "enum" in schema:
        return one_of(schema["enum"])
    if "x-component" in schema:
        return "a name or an object with `type`"
    if schema.get("type") == "array":
        least, most = schema.get("minItems"), schema.get("maxItems")
        return f"an array of {most}" if most is not None and least == most else "an array"
    return " or ".join(_TYPES[name][0] for name in types_of(schema)) or "anything"


def _alternatives(value: Any, schema: Schema, pointer: str, nested: Nested) -> Iterator[Issue]:
    """Judge by the alternative that is meant: the one of the value's type."""
    fitting = [item for item in schema["anyOf"] if _has_type(value, item)]
    if not fitting:
        yield wrong_type(pointer, described(schema), value, lambda candidate: _accepts(candidate, schema))
    elif not any(_accepts(value, item) for item in fitting[:-1]):
        yield from mismatches(value, fitting[-1], pointer, nested)


def _accepts(value: Any, schema: Schema) -> bool:
    """Say whether a value matches, whatever the components nested in it are."""
    return _has_type(value, schema) and not any(mismatches(value, schema, "", lambda *_: iter(())))


def _has_type(value: Any, schema: Schema) -> bool:
    if "anyOf" in schema:
        return any(_has_type(value, item) for item in schema["anyOf"])
    if "enum" in schema:
        return any(type(value) is type(word) for word in schema["enum"])
    if "x-component" in schema:
        return isinstance(value, (str, dict))
    names = types_of(schema)
    if isinstance(value, bool):
        return not names or "boolean" in names
    return not names or any(isinstance(value, _TYPES[name][1]) for name in names)


def _items(value: list[Any], schema: Schema, pointer: str, nested: Nested) -> Iterator[Issue]:
    least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if not least <= len(value) <= most:
        count = f"{'exactly' if least == most else 'at least'} {least} item{'' if least == 1 else 's'}"
        yield Issue(pointer, "out_of_range", f"{subject(pointer)} needs {count}, got {len(value)}.")
        return
    items: Schema = schema.get("items", {})
    for index, item in enumerate(value):
        yield from mismatches(item, items, join(pointer, index), nested)


def _properties(value: dict[str, Any], schema: Schema, pointer: str, nested: Nested) -> Iterator[Issue]:
    for name in schema.get("required", ()):
        if name not in value:
            yield Issue(join(pointer, name), "missing", f'"{name}" is required.')
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, item in value.items():
        if (found := known.get(name, others)) is not None:
            yield from mismatches(item, found, join(pointer, name), nested)
    if "x-arguments" in schema:
        yield from nested(value, schema, pointer)


def _bounds(value: Any, schema: Schema, pointer: str) -> Iterator[Issue]:
    if isinstance(value, str):
        yield from _text(value, schema, pointer)
        return
    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "minimum": ("must be at least", lambda bound: value >= bound),
        "exclusiveMinimum": ("must be greater than", lambda bound: value > bound),
        "maximum": ("must be at most", lambda bound: value <= bound),
        "exclusiveMaximum": ("must be less than", lambda bound: value < bound),
    }
    for keyword, (rule, holds) in rules.items():
        if keyword in schema and not holds(schema[keyword]):
            yield out_of_range(pointer, f"{rule} {schema[keyword]}", value)


def _text(value: str, schema: Schema, pointer: str) -> Iterator[Issue]:
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield out_of_range(pointer, f"must match {schema['pattern']}", value)
    if schema.get("format") == "regex":
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            yield out_of_range(pointer, f"must be a regular expression ({error})", value)
