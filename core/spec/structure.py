"""The shape of a spec: what pydantic found wrong, as issues that say it plainly and at the right pointer."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from core.errors import Issue
from core.spec import aliases, job
from core.spec.nearest import nearest
from core.spec.parts import parts
from core.spec.pointer import join
from core.spec.wording import not_allowed, out_of_range, quoted, unknown, wrong_type

EXPECTED: dict[str, tuple[str, tuple[type, ...]]] = {
    "int_type": ("an integer", (int,)),
    "float_type": ("a number", (int, float)),
    "string_type": ("a string", (str,)),
    "bool_type": ("true or false", (bool,)),
    "tuple_type": ("an array", (list,)),
    "dict_type": ("an object", (dict,)),
    "model_type": ("an object", (dict,)),
}
"""pydantic's error type to the JSON type that was asked for, in words and in Python."""

RULES = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "needs at least {min_length} item",
    "too_long": "takes at most {max_length} entries",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "finite_number": "must be a finite number",
}
"""pydantic's error type to what the value breaks."""

PARTS = parts()
"""The model of the object at each path (without indices): whose fields an unknown key is compared with."""

OR_WORD: dict[tuple[str, ...], str] = {("batch_size",): '"full"', ("compile",): '"auto"'}
"""The word that a field takes besides values of its type."""
OR_TYPE: dict[tuple[str, ...], str] = {("batch_size",): "an integer", ("checkpoints", "every"): "an object"}
"""The type that a field takes besides its word."""


def issues_of(error: ValidationError, body: Any) -> Iterator[Issue]:
    """Say each of pydantic's findings plainly.

    Args:
        error: what validation of `body` raised.
        body: the value that was validated, as it was posted.
    """
    for found in error.errors(include_url=False):
        location = _location(found["loc"], body)
        pointer = join("", *location)
        kind, context, value = found["type"], found.get("ctx", {}), found["input"]
        if kind == "extra_forbidden":
            yield _unknown_key(location, body)
        elif kind == "missing":
            yield Issue(pointer, "missing", f"{quoted(str(location[-1]))} is required.", hint=_description(location))
        elif kind == "too_short" and len(value) >= context["min_length"]:
            continue  # pydantic counts valid items only; the invalid ones have issues of their own
        elif kind == "model_type" and context["class_name"] in ("Component", "LossTerm"):
            yield wrong_type(pointer, "a name or an object with `type`", value, lambda _: False)
        elif kind in EXPECTED:
            yield _wrong_type(location, *EXPECTED[kind], value)
        elif kind == "literal_error":
            yield _not_allowed(location, context["expected"], value)
        else:
            yield out_of_range(pointer, RULES.get(kind, f"is not valid: {found['msg']}").format(**context), value)


def _location(path: tuple[str | int, ...], body: Any) -> list[str | int]:
    """Return the place in the posted body: without tags of choices, and not inside a bare name."""
    location: list[str | int] = []
    for part in path:
        if isinstance(part, str) and part.startswith(job.CHOICE):
            continue
        if isinstance(body, str):
            break
        location.append(part)
        body = _child(body, part)
    return location


def _child(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (LookupError, TypeError):
        return None


def _unknown_key(location: list[str | int], body: Any) -> Issue:
    *parent, key = location
    path = _path(parent)
    fields = [field.alias or name for name, field in PARTS[path].model_fields.items()] if path in PARTS else []
    meant = nearest(str(key), fields, aliases.FIELDS.get(path, ()))
    owner = next((quoted(part) for part in reversed(path)), "a job spec")
    siblings = body
    for part in parent:
        siblings = siblings[part]
    return unknown(join("", *parent), str(key), f"a field of {owner}", meant, siblings)


def _wrong_type(location: list[str | int], expected: str, types: tuple[type, ...], value: Any) -> Issue:
    word = OR_WORD.get(_path(location))

    def fits(candidate: Any) -> bool:
        return isinstance(candidate, types) and (bool in types or not isinstance(candidate, bool))

    return wrong_type(join("", *location), f"{expected} or {word}" if word else expected, value, fits)


def _not_allowed(location: list[str | int], expected: str, value: Any) -> Issue:
    words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    return not_allowed(join("", *location), words, value, or_type=OR_TYPE.get(_path(location)))


def _description(location: list[str | int]) -> str | None:
    """Return what the docstring of a field says, where the field is known."""
    *parent, key = location
    model = PARTS.get(_path(parent))
    for name, field in model.model_fields.items() if model else ():
        if key in (name, field.alias):
            return " ".join((field.description or "").split()) or None
    return None


def _path(location: list[str | int]) -> tuple[str, ...]:
    return tuple(part for part in location if isinstance(part, str))
