"""The shape of a spec: what pydantic found wrong, as issues that say it plainly and at the right pointer."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from core.errors import Issue
from core.spec import job
from core.spec.nearest import FIELDS, nearest
from core.spec.pointer import join, split

EXPECTED = {
    "int_type": "an integer", "float_type": "a number", "string_type": "a string", "bool_type": "true or false",
    "tuple_type": "an array", "dict_type": "an object", "model_type": "an object",
}  # fmt: skip
"""pydantic's error type to the JSON type that was asked for."""

PARTS: dict[tuple[str, ...], type[BaseModel]] = {
    (): job.JobSpec,
    ("data",): job.Data,
    ("data", "val"): job.DataSplit,
    ("data", "test"): job.DataSplit,
    ("data", "columns"): job.Columns,
    ("data", "transforms"): job.Transforms,
    ("regularization",): job.Regularization,
    ("gradient_clipping",): job.GradientClipping,
    ("ema",): job.Ema,
    ("swa",): job.Swa,
    ("early_stopping",): job.EarlyStopping,
    ("stop_when",): job.StopWhen,
    ("stop_when", "converged"): job.Converged,
    ("validate_every",): job.ValidateEvery,
    ("checkpoints",): job.Checkpoints,
    ("execution",): job.Execution,
}
"""The model of the object at each path (without indices): whose fields an unknown key is compared with."""


def issues_of(error: ValidationError, body: Any) -> Iterator[Issue]:
    """Say each of pydantic's findings plainly.

    Args:
        error: what validation of `body` raised.
        body: the value that was validated, as it was posted.
    """
    for found in error.errors(include_url=False):
        location = [part for part in found["loc"] if not (isinstance(part, str) and part.startswith(job.CHOICE))]
        kind, context, value = found["type"], found.get("ctx", {}), found["input"]
        if kind == "extra_forbidden":
            yield _unknown_key(location, body)
        elif kind == "missing":
            detail = f'"{location[-1]}" is required.'
            yield Issue(join("", *location), "missing", detail, hint=_description(location))
        elif kind == "too_short" and len(value) >= context["min_length"]:
            continue  # pydantic counts valid items only; the invalid ones have issues of their own
        elif kind in EXPECTED:
            yield _wrong_type(join("", *location), EXPECTED[kind], value)
        else:
            yield _out_of_range(join("", *location), kind, context, value)


def _unknown_key(location: list[str | int], body: Any) -> Issue:
    *parent, key = location
    path = tuple(part for part in parent if isinstance(part, str))
    fields = [field.alias or name for name, field in PARTS[path].model_fields.items()] if path in PARTS else []
    meant = nearest(str(key), fields, tuple(FIELDS.get("/".join(path), {}).items()))
    owner = next((f'"{part}"' for part in reversed(path)), "a job spec")
    detail = f'"{_short(str(key))}" is not a field of {owner}.'
    return unknown(join("", *parent), str(key), detail, meant, _at(body, parent))


def unknown(parent: str, key: str, detail: str, meant: str | None, siblings: Mapping[str, Any]) -> Issue:
    """Build the issue of a key that an object does not take; `meant` is the key to suggest, where there is one."""
    pointer = join(parent, key)
    remove = {"op": "remove", "path": pointer}
    if meant is None:
        return Issue(pointer, "unknown_key", detail, fix=(remove,))
    move = {"op": "move", "from": pointer, "path": join(parent, meant)}
    fix = (remove if meant in siblings else move,)
    return Issue(pointer, "unknown_key", detail, hint=f"Did you mean `{meant}`?", fix=fix)


def shown(value: Any) -> str:
    """Describe a value for a sentence: its JSON type and its text, cut where it is long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the string "{_short(value)}"'
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "an array" if isinstance(value, (list, tuple)) else "an object"


def _wrong_type(pointer: str, expected: str, value: Any) -> Issue:
    fix = None
    if isinstance(value, str) and (meant := _literal(value)) is not None and _is(meant, expected):
        fix = ({"op": "replace", "path": pointer, "value": meant},)
    elif isinstance(value, float) and value.is_integer() and expected == "an integer":
        fix = ({"op": "replace", "path": pointer, "value": int(value)},)
    elif expected == "an array" and isinstance(value, (str, dict)):
        fix = ({"op": "replace", "path": pointer, "value": [value]},)
    detail = f"{_name(pointer)} must be {expected}, not {shown(value)}."
    return Issue(pointer, "wrong_type", detail, fix=fix)


def _out_of_range(pointer: str, kind: str, context: dict[str, Any], value: Any) -> Issue:
    name = _name(pointer)
    rules = {
        "greater_than": "must be greater than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "too_short": "needs at least {min_length} item",
        "too_long": "takes at most {max_length} items",
        "string_too_short": "must not be empty",
        "string_too_long": "must have at most {max_length} characters",
        "string_pattern_mismatch": "must match {pattern}",
        "literal_error": "must be {expected}",
        "finite_number": "must be a finite number",
    }
    rule = rules.get(kind, "is not valid").format(**context)
    if kind == "literal_error" and pointer == "/batch_size":
        rule = "must be an integer or 'full'"
    if kind == "literal_error":
        words = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        meant = nearest(value, words) if isinstance(value, str) else None
        fix = ({"op": "replace", "path": pointer, "value": meant},) if meant else None
        hint = f"Did you mean `{meant}`?" if meant else None
        return Issue(pointer, "not_allowed", f"{name} {rule}, not {shown(value)}.", hint=hint, fix=fix)
    return Issue(pointer, "out_of_range", f"{name} {rule}, got {shown(value)}.")


def _name(pointer: str) -> str:
    if not pointer:
        return "A job spec"
    *_, parent, last = ["", *split(pointer)]
    return f'Item {last} of "{parent}"' if last.isdecimal() else f'"{last}"'


def _description(location: list[str | int]) -> str | None:
    """Return what the docstring of a field says, where the field is known."""
    *parent, key = location
    model = PARTS.get(tuple(part for part in parent if isinstance(part, str)))
    for name, field in model.model_fields.items() if model else ():
        if key in (name, field.alias):
            return " ".join((field.description or "").split()) or None
    return None


def _literal(text: str) -> Any:
    try:
        return json.loads(text.lower()) if len(text) < 64 else None
    except ValueError:
        return None


def _is(value: Any, expected: str) -> bool:
    types: dict[str, type | tuple[type, ...]] = {
        "an integer": int,
        "a number": (int, float),
        "true or false": bool,
        "an array": list,
        "an object": dict,
    }
    return isinstance(value, types.get(expected, ())) and (expected == "true or false") == isinstance(value, bool)


def _at(body: Any, location: list[str | int]) -> Any:
    for part in location:
        body = body[part]
    return body


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"
