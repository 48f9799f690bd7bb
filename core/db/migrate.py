"""Bring a database to this program's tables. Safe when any number of processes start at once.

One transaction holds the lock, reads where the database stands and takes every step: it comes out whole or not at all.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, make_url, text

from core.db.engine import away_translated, make_engine
from core.errors import SchemaNewer

VERSION_TABLE = "epochd_schema"
ADVISORY_LOCK = 0x65706F636864  # "epochd"

_ROOT = Path(__file__).resolve().parents[2]


def scripts() -> Path:
    """Return the folder of the migrations: below `core` in an installed wheel, at the top of a checkout."""
    packed = _ROOT / "core" / "migrations"
    return packed if packed.is_dir() else _ROOT / "migrations"


def upgrade(url: str | URL, revision: str = "head") -> None:
    """Create or update the tables; SQLite's folder too, where it is missing.

    Raises:
        DatabaseAway: the database does not answer.
        SchemaNewer: the database was migrated by a newer version of this program.
    """
    _make_folder(make_url(url))
    with _engine(url) as engine:
        if revision == "head" and _current(engine) == head():
            return
        with locked(engine) as connection:
            _refuse_newer(connection)
            command.upgrade(_config(connection), revision)


def downgrade(url: str | URL, revision: str = "base") -> None:
    """Take migrations back, with the data that only their tables hold.

    Raises:
        DatabaseAway: the database does not answer.
        SchemaNewer: the database was migrated by a newer version of this program.
    """
    with _engine(url) as engine, locked(engine) as connection:
        _refuse_newer(connection)
        command.downgrade(_config(connection), revision)


def current(url: str | URL) -> str | None:
    """Return the revision of the database, None for an empty one."""
    with _engine(url) as engine:
        return _current(engine)


def head() -> str:
    """Return the revision of this program."""
    found = ScriptDirectory(str(scripts())).get_current_head()
    assert found is not None, "there is at least one migration"  # noqa: S101 - for ourselves
    return found


@contextmanager
def locked(engine: Engine) -> Generator[Connection, None, None]:
    """Open a transaction that no other migration runs beside: an advisory lock, or SQLite's one writer."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        yield connection


@contextmanager
def _engine(url: str | URL) -> Generator[Engine, None, None]:
    engine = make_engine(url)
    try:
        with away_translated():
            yield engine
    finally:
        engine.dispose()


def _current(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _refuse_newer(connection: Connection) -> None:
    found = _revision(connection)
    if found is None:
        return
    try:
        ScriptDirectory(str(scripts())).get_revision(found)
    except CommandError as error:
        raise SchemaNewer(
            f"The database has revision {found!r}, which this epochd (up to {head()!r}) does not know: "
            "a newer version has migrated it. Install that version or a newer one."
        ) from error


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _make_folder(url: URL) -> None:
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
