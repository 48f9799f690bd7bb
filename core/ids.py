"""Ids of everything: a prefix that says what it is, and a UUIDv7, so that they sort by time of creation."""

import re
from typing import Literal

import uuid_utils

Prefix = Literal["job", "ds", "wk", "key", "req"]

_SHAPE = re.compile(r"[a-z]{2,4}_[0-9a-f]{32}")


def new(prefix: Prefix) -> str:
    """Return a new id such as `job_0199a1b2…`: `prefix`, an underscore and 32 hexadecimal digits."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def is_id(prefix: Prefix, text: str) -> bool:
    """Tell whether `text` has the shape of an id of that kind."""
    return text.startswith(f"{prefix}_") and _SHAPE.fullmatch(text) is not None
