"""Issues in plain sentences: the same words for the same mistake, wherever it stands."""

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from core.errors import Issue
from core.spec import aliases
from core.spec.nearest import nearest
from core.spec.pointer import join, split


def shown(value: Any) -> str:
    """Describe a value for a sentence: its JSON type and its text, cut where it is long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the string {quoted(value)}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "an array" if isinstance(value, (list, tuple)) else "an object"


def quoted(text: str) -> str:
    """Put a name into quotation marks, cut where it is long."""
    return f'"{text}"' if len(text) <= 80 else f'"{text[:77]}…"'


def subject(pointer: str) -> str:
    """Name the place of a pointer for the start of a sentence."""
    if not pointer:
        return "A job spec"
    *parents, last = split(pointer)
    if not last.isdecimal():
        return quoted(last)
    owner = next((part for part in reversed(parents) if not part.isdecimal()), "")
    return f"Item {last} of {quoted(owner)}" if owner else f"Item {last}"


def one_of(words: Iterable[Any]) -> str:
    """List what is allowed: `"a", "b" or "c"`."""
    *others, last = [json.dumps(word) for word in words]
    return f"{', '.join(others)} or {last}" if others else last


def unknown(
    parent: str, key: str, owner: str, meant: str | None, siblings: Mapping[str, Any], *, code: str = "unknown_key"
) -> Issue:
    """Build the issue of a key that an object does not take.

    Args:
        parent: pointer of the object.
        key: the unknown key.
        owner: what does not have it, as the end of a sentence.
        meant: the key to suggest, where there is one.
        siblings: the object.
        code: the issue's word.
    """
    pointer = join(parent, key)
    detail = f"{quoted(key)} is not {owner}."
    remove = {"op": "remove", "path": pointer}
    if meant is None:
        return Issue(pointer, code, detail, fix=(remove,))
    move = {"op": "move", "from": pointer, "path": join(parent, meant)}
    fix = (remove if meant in siblings else move,)
    return Issue(pointer, code, detail, hint=f"Did you mean `{meant}`?", fix=fix)


def wrong_type(pointer: str, expected: str, value: Any, fits: Callable[[Any], bool]) -> Issue:
    """Build the issue of a value of the wrong JSON type; `fits` says whether a converted one would be right."""
    detail = f"{subject(pointer)} must be {expected}, not {shown(value)}."
    for candidate in _converted(value):
        if fits(candidate):
            return Issue(pointer, "wrong_type", detail, fix=(replace(pointer, candidate),))
    return Issue(pointer, "wrong_type", detail)


def not_allowed(pointer: str, allowed: Iterable[Any], value: Any, *, or_type: str | None = None) -> Issue:
    """Build the issue of a value that is none of the allowed words (nor of a type that is allowed as well)."""
    words = list(allowed)
    texts = [word for word in words if isinstance(word, str)]
    meant = nearest(value, texts, aliases.WORDS) if isinstance(value, str) else None
    expected = f"{or_type} or {one_of(words)}" if or_type else one_of(words)
    detail = f"{subject(pointer)} must be {expected}, not {shown(value)}."
    if meant is None:
        return Issue(pointer, "not_allowed", detail)
    return Issue(pointer, "not_allowed", detail, hint=f"Did you mean `{meant}`?", fix=(replace(pointer, meant),))


def out_of_range(pointer: str, rule: str, value: Any) -> Issue:
    """Build the issue of a value of the right type that is too large, small, long or short."""
    return Issue(pointer, "out_of_range", f"{subject(pointer)} {rule}, got {shown(value)}.")


def replace(pointer: str, value: Any) -> dict[str, Any]:
    """Return the JSON Patch operation that puts a value in the place of another."""
    return {"op": "replace", "path": pointer, "value": value}


def _converted(value: Any) -> list[Any]:
    """Return what a value of the wrong type may have been meant to be."""
    if isinstance(value, float) and value.is_integer():
        return [int(value), [value]]
    if isinstance(value, str) and len(value) < 24:
        with contextlib.suppress(ValueError):
            scalar = json.loads(value.strip().lower(), parse_constant=str)
            if isinstance(scalar, (bool, int)) or (isinstance(scalar, float) and math.isfinite(scalar)):
                return [scalar, [value]]
    return [[value]]
