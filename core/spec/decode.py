"""Bytes to plain JSON values, refusing what other readers, databases and torch would each take differently.

Python's decoder takes duplicate keys (the last wins), `NaN`, `Infinity`, `1e999` (infinity), lone surrogates and any
depth that its stack allows. A job spec is stored, compared by digest and read again by other programs: none of these
may get that far.
"""

import json
import math
import re
from typing import Any

from core.errors import Issue, Malformed
from core.spec.pointer import join

MAX_DEPTH = 80
"""Objects and arrays within each other; 20 nested layers need 40 to 60."""
MAX_ITEMS = 10_000
"""Items of one array or object: five times the layers of a model."""

# Strings are matched whole, so that what stands in them is not taken for numbers or brackets.
_TOKEN = re.compile(
    r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]|-?(?:NaN|Infinity)|(?P<number>-?[0-9][0-9.eE+-]*)',
    re.DOTALL,
)


class _Repeated(dict[str, Any]):
    """An object that named a key twice; kept until its pointer is known."""

    key = ""


def decode(body: bytes | str) -> Any:
    """Read one JSON value.

    Raises:
        Malformed: not JSON, or not JSON that every reader takes alike; says line and column, or the pointer.
    """
    text = _text(body)
    _scan(text)
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _malformed(text, error.pos, "json_invalid", f"The body is not valid JSON: {error.msg}") from error
    check_plain(value)
    return value


def check_plain(body: Any) -> None:
    """Make sure that a decoded value is JSON: plain types, finite 64-bit numbers, text that can be stored.

    Raises:
        Malformed: something else is in it; the issue has its pointer.
    """
    waiting: list[tuple[str, int, Any]] = [("", 0, body)]
    while waiting:
        pointer, depth, value = waiting.pop()
        problem = _problem(value, depth)
        if problem:
            code, detail = problem
            raise Malformed(f"{detail} (at {pointer or 'the top'}).", issues=[Issue(pointer, code, f"{detail}.")])
        if isinstance(value, dict):
            waiting += [(join(pointer, key), depth + 1, item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [(join(pointer, index), depth + 1, item) for index, item in enumerate(value)][::-1]


def _text(body: bytes | str) -> str:
    if isinstance(body, str):
        return body
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        detail = f"The body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}."
        raise Malformed(detail, issues=[Issue("", "utf8_invalid", detail, hint="Send JSON as UTF-8.")]) from error


def _scan(text: str) -> None:
    """Refuse by position what the decoder would take or break its stack on."""
    depth = 0
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                detail = f"Arrays and objects are nested deeper than {MAX_DEPTH}"
                raise _malformed(text, token.start(), "too_deep", detail)
        elif word in "]}":
            depth -= 1
        elif word.endswith(("NaN", "Infinity")):
            raise _malformed(text, token.start(), "non_finite", f"{word} is not a JSON number")
        elif token["number"] and not _fits(word):
            raise _malformed(text, token.start(), "number_too_large", f"The number {_short(word)} is too large")


def _fits(number: str) -> bool:
    """Whether a literal is a finite double or a 64-bit integer; what is no number at all is the decoder's to say."""
    if number.lstrip("-").isdigit():
        return len(number) <= 20 and -(2**63) <= int(number) < 2**63
    try:
        return math.isfinite(float(number))
    except ValueError:
        return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    repeated = _Repeated(plain)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            repeated.key = key
            break
        seen.add(key)
    return repeated


def _problem(value: Any, depth: int) -> tuple[str, str] | None:
    if isinstance(value, (dict, list)):
        return _container_problem(value, depth)
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else ("number_too_large", "The integer does not fit 64 bits")
    if isinstance(value, float):
        return None if math.isfinite(value) else ("non_finite", f"{value} is not a JSON number")
    return "json_invalid", f"A {type(value).__name__} is not a JSON value"


def _container_problem(value: dict[Any, Any] | list[Any], depth: int) -> tuple[str, str] | None:
    if depth >= MAX_DEPTH:
        return "too_deep", f"Arrays and objects are nested deeper than {MAX_DEPTH}"
    if len(value) > MAX_ITEMS:
        return "too_many_items", f"An array or object has {len(value)} items; {MAX_ITEMS} are the limit"
    if isinstance(value, _Repeated):
        return "duplicate_key", f'The key "{value.key}" stands twice in the same object'
    for key in value if isinstance(value, dict) else ():
        if not isinstance(key, str):
            return "json_invalid", f"The key {key!r} is not a string"
        if problem := _text_problem(key):
            return problem
    return None


def _text_problem(text: str) -> tuple[str, str] | None:
    if "\0" in text:
        return "text_invalid", "Text with the character U+0000 cannot be stored"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return "text_invalid", f"Text with the lone surrogate U+{ord(text[error.start]):04X} is not Unicode"
    return None


def _malformed(text: str, position: int, code: str, detail: str) -> Malformed:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    detail = f"{detail} (line {line}, column {column})."
    return Malformed(detail, issues=[Issue("", code, detail)], extra={"line": line, "column": column})


def _short(word: str) -> str:
    return word if len(word) <= 24 else f"{word[:20]}…"
