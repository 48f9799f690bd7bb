"""For how long the database has been away from this process."""

import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine, ExceptionContext, event

from core.db.engine import away_translated
from core.errors import DatabaseAway


class Outage:
    """Adds up the time between a failed statement and the next transaction that comes through.

    Args:
        engine: whose transactions are watched.
        clock: seconds that only rise.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._before = 0.0
        event.listen(engine, "handle_error", self._failed)
        event.listen(engine, "commit", self._answered)

    @property
    def seconds(self) -> float:
        """All outages of this process together, the present one with them."""
        with self._lock:
            return self._before + (0.0 if self._since is None else self._clock() - self._since)

    def _failed(self, context: ExceptionContext) -> None:
        if self._since is not None or not _is_away(context.sqlalchemy_exception):
            return
        with self._lock:
            self._since = self._clock()

    def _answered(self, _connection: Connection) -> None:
        if self._since is None:  # nearly always, and without the lock
            return
        with self._lock:
            if self._since is not None:
                self._before += self._clock() - self._since
                self._since = None


def _is_away(error: BaseException | None) -> bool:
    """Ask the one who knows which errors mean that the database is away."""
    try:
        with away_translated():
            _raise_again(error)
    except DatabaseAway:
        return True
    except Exception:  # noqa: BLE001 - a wrong statement, which its own caller will see
        return False
    return False


def _raise_again(error: BaseException | None) -> None:
    if error is not None:
        raise error
