"""Keyset pages: ids sort by time of creation, so a page begins after an id and stays right while rows arrive."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Order = Literal["asc", "desc"]
Row = TypeVar("Row")


def page(
    session: Session,
    statement: Select[Row],
    key: InstrumentedAttribute[Any],
    *,
    after: Any = None,
    limit: int,
    order: Order = "asc",
) -> tuple[list[Row], bool]:
    """Return up to `limit` rows beyond `after` in the order of `key`, and whether there are more."""
    if after is not None:
        statement = statement.where(key > after if order == "asc" else key < after)
    statement = statement.order_by(key.asc() if order == "asc" else key.desc()).limit(limit + 1)
    return cut(session.scalars(statement).all(), limit)


def cut(rows: Sequence[Row], limit: int) -> tuple[list[Row], bool]:
    """Take the row beyond the limit away, which only says that there are more."""
    return list(rows[:limit]), len(rows) > limit
