"""Transactions that are repeated as workers and clients repeat them."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from core.db.engine import Database
from core.errors import DatabaseAway

LIMIT_SECONDS = 500.0  # of a machine that does much else
T = TypeVar("T")


def said(database: Database, call: Callable[[Session], T], *, write: bool = True) -> T:
    """Make one transaction. On SQLite it is repeated when it could not begin.

    SQLite has no queue of writers: beside eight that never rest one may try for longer than `engine.LOCK_SECONDS`.
    """
    until = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            with database.session_scope(write=write) as session:
                return call(session)
        except DatabaseAway:
            if database.engine.dialect.name != "sqlite" or time.monotonic() > until:
                raise
