"""What one attempt writes to the database: in order, one transaction each, kept while the database is away.

A write is refused with `OwnershipLost` once another worker has the job; then nothing more may be written.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from core.db.engine import Database
from core.errors import DatabaseAway

RETRY_SECONDS = 0.5
log = structlog.get_logger(__name__)

Action = Callable[[], None]


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction."""

    write: Callable[[Session], None]
    before: Action = _nothing
    """Files are stored here: no transaction is held open for them."""
    after: Action = _nothing
    """Called once the transaction is committed."""


class Ledger:
    """An ordered list of writes that survives an outage of the database, or of the storage."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: deque[Entry] = deque()
        self._away_since: float | None = None
        self._not_before = 0.0

    @property
    def away_seconds(self) -> float:
        """For how long the database has taken no write; 0 while it does."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def add(self, entry: Entry) -> None:
        """Put an entry at the end."""
        self._pending.append(entry)

    def flush(self) -> bool:
        """Write what waits; return whether nothing waits any more.

        Raises:
            OwnershipLost: another worker owns the job now.
        """
        while self._pending:
            entry = self._pending[0]
            if not self.attempt(entry.write, before=entry.before):
                return False
            self._pending.popleft()
            entry.after()
        return True

    def attempt(self, write: Callable[[Session], None], *, before: Action = _nothing, is_writing: bool = True) -> bool:
        """Do one write (or only a read) now, out of order; return False while the database is away.

        Raises:
            OwnershipLost: another worker owns the job now.
        """
        if time.monotonic() < self._not_before:
            return False
        try:
            before()
            with self._database.session_scope(write=is_writing) as session:
                write(session)
        except (DatabaseAway, OSError) as away:
            self._note_away(away)
            return False
        if is_writing and self._away_since is not None:  # a database whose disk is full can still be read
            log.info("database.back", away_seconds=round(self.away_seconds, 1))
            self._away_since = None
        return True

    def _note_away(self, away: Exception) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning("database.away", reason=str(away))
        self._not_before = now + RETRY_SECONDS
