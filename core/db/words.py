"""Text as both databases can keep it."""

import re

from sqlalchemy import Dialect, String, Text
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL keeps no NUL, and neither keeps half a surrogate pair; JSON bodies and file names can hold both."""


class Words(TypeDecorator[str]):
    """A line of text; characters that no database keeps become U+FFFD, so a search for them finds nothing."""

    impl = String
    cache_ok = True

    @override
    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _UNKEEPABLE.sub("\ufffd", value)


class Prose(Words):
    """Text of any length."""

    impl = Text
    cache_ok = True
