"""JSON pointers (RFC 6901): how an issue says which place of a body it means."""

from collections.abc import Iterable
from typing import Any


def join(base: str, *parts: str | int) -> str:
    """Append keys and indices to a pointer."""
    return base + "".join(f"/{_escape(str(part))}" for part in parts)


def split(pointer: str) -> list[str]:
    """Return the unescaped parts of a pointer."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def resolve(body: Any, pointer: str) -> Any:
    """Return the value that a pointer names.

    Raises:
        LookupError: nothing is there.
    """
    return _walk(body, split(pointer))


def _walk(value: Any, parts: Iterable[str]) -> Any:
    for part in parts:
        if isinstance(value, dict):
            value = value[part]
        elif isinstance(value, list) and part.isdecimal():
            value = value[int(part)]
        else:
            raise KeyError(part)
    return value


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
