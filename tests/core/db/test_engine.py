from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import bindparam, exc, select, text
from sqlalchemy.orm import Session

from core.db import engine, jobs
from core.db.clock import Instant, now
from core.db.engine import Database
from core.db.tables import Job
from core.errors import DatabaseAway, IdempotencyMismatch
from tests.core.db.given import new_job, queued, read
from tests.servers import Postgres


def test_an_exception_takes_back_the_whole_transaction(database: Database) -> None:
    def twice(session: Session) -> None:
        for body in ("first", "second"):
            jobs.create(session, new_job(idempotency_key="k", body_sha256=body))

    with pytest.raises(IdempotencyMismatch), database.session_scope() as session:
        twice(session)
    with database.session_scope(write=False) as session:
        assert session.scalars(select(Job)).all() == []


def test_rows_can_be_read_after_their_transaction(database: Database) -> None:
    assert queued(database, name="kept").name == "kept"


def test_a_reading_scope_refuses_to_write(database: Database) -> None:
    with pytest.raises(exc.DBAPIError, match=r"(?i)read-?only"), database.session_scope(write=False) as session:
        jobs.create(session, new_job())
    queued(database)


def test_a_wrong_statement_is_no_absent_database(database: Database) -> None:
    with pytest.raises(exc.DBAPIError), database.session_scope() as session:
        session.execute(text("SELECT planted FROM nowhere"))


def test_eight_threads_that_read_and_then_write_never_find_the_database_locked(database: Database) -> None:
    job = queued(database, priority=0)

    def increment(_: int) -> None:
        with database.session_scope() as session:
            kept = session.scalars(select(Job).where(Job.id == job.id).with_for_update()).one()
            jobs.edit(session, kept.project, kept.id, priority=kept.priority + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(80)))
    assert read(database, job.id).priority == 80


@pytest.mark.postgres
def test_a_connection_that_the_server_has_just_ended_is_replaced_unnoticed(postgres_url: str) -> None:
    database, other = Database(postgres_url), Database(postgres_url)
    with database.session_scope(write=False) as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
    with other.session_scope() as session:
        assert session.scalar(text(f"SELECT pg_terminate_backend({pid}, 5000)"))
    with database.session_scope(write=False) as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) != pid
    database.dispose()
    other.dispose()


def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    with database.session_scope() as writing:
        jobs.create(writing, new_job())
        with database.session_scope(write=False) as reading:
            assert reading.scalars(select(Job)).all() == []


def test_sqlite_is_durable_and_checks_references(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with database.session_scope() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.dispose()
    full = 2
    assert pragmas == {"journal_mode": "wal", "synchronous": full, "foreign_keys": 1, "busy_timeout": 10_000}


def test_a_locked_sqlite_is_away_after_the_time_out(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.05)
    database = Database(sqlite_url)
    with database.session_scope() as first:
        jobs.create(first, new_job())
        with pytest.raises(DatabaseAway), database.session_scope() as second:
            jobs.create(second, new_job())
    database.dispose()


def test_a_file_that_cannot_be_opened_is_away(tmp_path: Path) -> None:
    with pytest.raises(DatabaseAway):
        Database(f"sqlite:///{tmp_path / 'nowhere' / 'epochd.db'}").ping()


@pytest.mark.postgres
def test_a_stopped_postgres_is_away_and_comes_back(private_postgres: Callable[[], Postgres]) -> None:
    server = private_postgres()
    database = Database(server.url)
    database.ping()
    server.kill()
    with pytest.raises(DatabaseAway):
        database.ping()
    server.start()
    database.ping()
    database.dispose()


@pytest.mark.postgres
def test_a_postgres_that_dies_in_a_transaction_is_away(private_postgres: Callable[[], Postgres]) -> None:
    server = private_postgres()
    database = Database(server.url)

    def die_between(session: Session) -> None:
        session.execute(text("SELECT 1"))
        server.kill()
        session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseAway), database.session_scope() as session:
        die_between(session)
    database.dispose()


@pytest.mark.postgres
def test_a_statement_that_takes_too_long_on_postgres_is_away(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = engine.make_engine(postgres_url, statement_seconds=0.05)
    with pytest.raises(DatabaseAway), engine.away_translated(), slow.connect() as connection:
        connection.execute(text("SELECT pg_sleep(60)"))
    slow.dispose()


@pytest.mark.parametrize("url", ["mysql://localhost/x", "duckdb:///x"])
def test_another_database_is_refused_by_name(url: str) -> None:
    with pytest.raises((ValueError, exc.NoSuchModuleError), match=url.split(":", maxsplit=1)[0]):
        engine.make_engine(url)


class TestClock:
    def test_is_now_in_utc(self, database: Database) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        with database.session_scope(write=False) as session:
            found = session.scalars(select(now())).one()
        assert before < found < datetime.now(UTC) + timedelta(seconds=1)

    @pytest.mark.parametrize("seconds", [30.0, -5.0, 0.25, 1e6])
    def test_counts_so_many_seconds_ahead(self, database: Database, seconds: float) -> None:
        with database.session_scope(write=False) as session:
            ahead, here = session.execute(select(now(seconds), now())).one()
        assert abs((ahead - here).total_seconds() - seconds) < 0.5

    def test_instants_come_back_as_they_went(self, database: Database) -> None:
        instant = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
        with database.session_scope(write=False) as session:
            assert session.scalars(select(bindparam("at", instant, Instant()))).one() == instant

    def test_naive_times_are_refused(self, database: Database) -> None:
        naive = datetime(2026, 1, 2)  # noqa: DTZ001 - the point of the test
        with pytest.raises(exc.StatementError, match="no time zone"), database.session_scope(write=False) as session:
            session.scalars(select(bindparam("at", naive, Instant()))).one()
