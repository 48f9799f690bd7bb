"""Noticing that somebody has committed to SQLite's file, for a fraction of what a question costs."""

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress

from sqlalchemy import URL

from core.db.engine import sqlite_file

Count = Callable[[], int | None]
"""Returns a number that is another one as soon as a commit can be seen; None where nothing tells."""


@contextmanager
def watching(url: URL) -> Generator[Count, None, None]:
    """Watch a database for commits of others, from the thread that enters; on PostgreSQL nothing tells."""
    connection = _connected(url)
    if connection is None:
        yield lambda: None
        return

    def count() -> int | None:
        with suppress(sqlite3.Error):
            return int(connection.execute("PRAGMA data_version").fetchone()[0])
        return None

    with closing(connection):
        yield count


def _connected(url: URL) -> sqlite3.Connection | None:
    file = sqlite_file(url)
    if file is None:
        return None
    try:  # a file that is not there is not made here
        return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=0)
    except sqlite3.Error:
        return None
