"""The engine and the one way to a session: `Database.session_scope`, one transaction each."""

import select
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url, text
from sqlalchemy.orm import Session, sessionmaker

from core.errors import DatabaseAway

CONNECT_SECONDS = 5  # to reach PostgreSQL
STATEMENT_SECONDS = 30.0  # one statement on PostgreSQL
LOCK_SECONDS = 10.0  # waiting for a row on PostgreSQL, for the writer's place on SQLite
IDLE_SECONDS = 60.0  # an open transaction that does nothing on PostgreSQL
UNACKNOWLEDGED_SECONDS = 15.0  # a half-open link to PostgreSQL
TRUSTED_SECONDS = 1.0  # after its last use a connection to PostgreSQL is used again without asking whether it lives
POOL_SIZE = 10
POOL_OVERFLOW = 40  # FastAPI's thread pool has 40 threads

BEGIN = "epochd_begin"
"""Execution option: the word after BEGIN on SQLite."""


def make_engine(url: str | URL, *, statement_seconds: float = STATEMENT_SECONDS) -> Engine:
    """Build an engine with the rules of this service for SQLite or PostgreSQL.

    Raises:
        ValueError: the URL names another database.
    """
    url = make_url(url)
    match url.get_backend_name():
        case "sqlite":
            return _sqlite(url)
        case "postgresql":
            return _postgresql(url, statement_seconds)
        case other:
            raise ValueError(f"{other!r} is not supported: use sqlite:///<file> or postgresql+psycopg://…")


def sqlite_file(url: str | URL) -> Path | None:
    """Return the file of a SQLite database; None of any other."""
    url = make_url(url)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": LOCK_SECONDS}, json_serializer=_json)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Take transactions away from the driver, and set what SQLite keeps per connection."""
    connection.isolation_level = None
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        connection.execute("PRAGMA journal_mode=WAL")  # kept in the file; asking first avoids a lock at every connect
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    """Begin as a writer where asked to.

    A transaction that begins by reading and then writes fails at once with "database is locked" when another wrote in
    between: with 8 writers that was 443 errors against none for BEGIN IMMEDIATE.
    """
    word = connection.get_execution_options().get(BEGIN, "IMMEDIATE")
    connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if word == 'IMMEDIATE' else 'ON'}")
    connection.exec_driver_sql(f"BEGIN {word}")


def _postgresql(url: URL, statement_seconds: float) -> Engine:
    session = {
        "statement_timeout": statement_seconds,
        "lock_timeout": LOCK_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(UNACKNOWLEDGED_SECONDS * 1000),
        "options": " ".join(f"-c {name}={int(seconds * 1000)}" for name, seconds in session.items()),
    }
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={key: value for key, value in arguments.items() if key not in url.query},
        json_serializer=_json,
        pool_pre_ping=True,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=LOCK_SECONDS,
    )
    _ping_in_doubt(engine)
    return engine


def _ping_in_doubt(engine: Engine) -> None:
    """Ask a pooled connection whether it lives only where that is in doubt: a round trip less for what is used often.

    A server that has ended or that ends a connection closes its socket, which then has something to read; a link that
    broke in silence within the last second fails at the first statement, as one does that breaks a moment later.
    """
    used_at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
    ping = engine.dialect.do_ping

    def ping_in_doubt(dbapi_connection: Any) -> bool:
        trusted_until = used_at.get(dbapi_connection, 0.0) + TRUSTED_SECONDS
        is_trusted = time.monotonic() < trusted_until and not _has_input(dbapi_connection.fileno())
        return is_trusted or ping(dbapi_connection)

    def note(connection: Any, _record: object) -> None:
        if connection is not None:  # it is None where it was closed instead
            used_at[connection] = time.monotonic()

    engine.dialect.do_ping = ping_in_doubt  # pyrefly: ignore[method-assign] - a dialect of this engine's own
    event.listen(engine, "checkin", note)


def _has_input(number: int) -> bool:
    """Say whether a socket has bytes or an end to read."""
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


_json = partial(dumps, allow_nan=False, separators=(",", ":"))


class Database:
    """A database and its sessions. Safe to share between threads, not between processes."""

    def __init__(self, url: str | URL) -> None:
        self.engine = make_engine(url)
        readers = self.engine.execution_options(postgresql_readonly=True, **{BEGIN: "DEFERRED"})
        is_server = self.engine.dialect.name == "postgresql"
        self._lookups = self.engine.execution_options(isolation_level="AUTOCOMMIT") if is_server else readers
        self._write = sessionmaker(self.engine, expire_on_commit=False)
        self._read = sessionmaker(readers, expire_on_commit=False)

    @contextmanager
    def session_scope(self, *, write: bool = True) -> Generator[Session, None, None]:
        """Open a session for one transaction: committed at the end, rolled back by any exception.

        Args:
            write: false refuses every writing statement, and on SQLite waits for no writer.

        Raises:
            DatabaseAway: the database does not answer, or not in time; nothing is known to have happened.
        """
        session = (self._write if write else self._read)()
        with away_translated(), session, session.begin():
            yield session

    @contextmanager
    def lookup(self) -> Generator[Connection, None, None]:
        """Open a connection for statements that only read, each of which sees all that was committed before it began.

        For what every poll asks: on PostgreSQL there is no transaction to begin and to end.

        Raises:
            DatabaseAway: as `session_scope` does.
        """
        with away_translated(), self._lookups.connect() as connection:
            yield connection
            connection.commit()

    def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            DatabaseAway: there was none.
        """
        with self.session_scope(write=False) as session:
            session.execute(text("SELECT 1"))

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def away_translated() -> Generator[None, None, None]:
    """Turn what drivers say about a database that does not answer into `DatabaseAway`."""
    try:
        yield
    except exc.TimeoutError as error:
        raise DatabaseAway("No free database connection; repeat with the same Idempotency-Key.") from error
    except exc.DBAPIError as error:
        if not _is_away(error):
            raise
        if _is_full(error):
            raise DatabaseAway("The database's disk is full; once there is space, repeat with the same key.") from error
        raise DatabaseAway("The database does not answer; repeat with the same Idempotency-Key.") from error


def _is_full(error: exc.DBAPIError) -> bool:
    names = (getattr(error.orig, "sqlite_errorname", ""), getattr(error.orig, "sqlstate", ""))
    return names[0] == "SQLITE_FULL" or names[1] == "53100"  # disk_full


def _is_away(error: exc.DBAPIError) -> bool:
    """Tell an absent database from a wrong statement (SQLite calls both an operational error)."""
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return isinstance(error, exc.OperationalError) and code not in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY}
    return isinstance(error, exc.OperationalError)
