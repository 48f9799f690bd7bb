"""The database: is it there, is it ours, can it be written, is it whole, what time does it have?"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
from sqlalchemy import insert, select, text

from core import ids
from core.db import migrate
from core.db.clock import now
from core.db.engine import Database, sqlite_file
from core.db.tables import Worker
from core.doctor.findings import Finding, error, ok, warning
from core.errors import DatabaseAway
from core.settings import GIB, Settings

ROUND_TRIPS = 5
SLOW_SECONDS = 0.05
SKEW_SECONDS = 2.0
LARGE_LOG_BYTES = GIB
BUSY_SHARE = 0.8
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre"})


def is_there(settings: Settings) -> Iterator[Finding]:
    """Make sure that looking at the database does not make one."""
    file = sqlite_file(settings.sqlalchemy_url)
    if file is not None and not file.is_file():
        yield error(
            "database.reachable",
            f"There is no database {file}.",
            "Start the service once, or set EPOCHD_DATA_DIR or EPOCHD_DATABASE_URL to those of the deployment.",
        )


def look(settings: Settings, database: Database) -> Iterator[Finding]:
    """Check a database that is there.

    Raises:
        DatabaseAway: it does not answer.
    """
    yield _reachable(database)
    revision = _revision(settings)
    yield revision
    yield _clock(database)
    yield from _sqlite(settings, database) if sqlite_file(settings.sqlalchemy_url) else _postgresql(database)
    if revision.status != "error":
        yield _writable(database)


def _reachable(database: Database) -> Finding:
    is_sqlite = database.engine.dialect.name == "sqlite"
    with database.session_scope(write=False) as session:
        version = str(session.scalar(text("SELECT sqlite_version()" if is_sqlite else "SHOW server_version")))
        seconds = min(_timed(lambda: session.execute(text("SELECT 1"))) for _ in range(ROUND_TRIPS))
    name = "SQLite" if is_sqlite else "PostgreSQL"
    found = f"{name} {version} answers in {seconds * 1000:.1f} ms."
    if seconds <= SLOW_SECONDS:
        return ok("database.reachable", found, version=version, round_trip_seconds=seconds)
    advice = "Every epoch is one transaction: bring API and workers nearer to the database, or look at its load."
    return warning("database.reachable", found, advice, version=version, round_trip_seconds=seconds)


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _revision(settings: Settings) -> Finding:
    found, ours = migrate.current(settings.sqlalchemy_url), migrate.head()
    numbers = {"database": found, "program": ours}
    if found == ours:
        return ok("database.revision", f"Its tables are of revision {found}, as this program's.", **numbers)
    if found is None:
        advice = "Start the API or a worker, or run `python -m core.db.migrate`."
        return error("database.revision", "It has no tables of epochd yet.", advice, **numbers)
    if migrate.knows(found):
        advice = "The next start of this program migrates it; a migration that is not compatible asks for a full stop."
        return warning("database.revision", f"It has revision {found}, this program {ours}.", advice, **numbers)
    advice = "Install the version that the other machines run, or a newer one; this one does not start."
    return error("database.revision", f"It has revision {found}, unknown to this program ({ours}).", advice, **numbers)


def _clock(database: Database) -> Finding:
    with database.session_scope(write=False) as session:
        before = datetime.now(UTC)
        theirs = session.scalars(select(now())).one()
        ours = before + (datetime.now(UTC) - before) / 2
    return judged_clock((ours - theirs).total_seconds())


def judged_clock(skew_seconds: float) -> Finding:
    """Judge the difference between this machine's clock and the database's."""
    found = f"This machine's clock is {abs(skew_seconds):.2f} s {'ahead of' if skew_seconds > 0 else 'behind'} it."
    if abs(skew_seconds) <= SKEW_SECONDS:
        return ok("database.clock", found, skew_seconds=skew_seconds)
    advice = "Leases use the database's clock only, so no job is at risk; logs and file times are: synchronise (NTP)."
    return warning("database.clock", found, advice, skew_seconds=skew_seconds)


def _writable(database: Database) -> Finding:
    """Insert a worker that is never committed."""
    with database.engine.connect() as connection, connection.begin() as transaction:
        began = time.perf_counter()
        row = {"id": ids.new("wk"), "name": "doctor", "host": "", "pid": 0, "version": "", "slots": 0}
        connection.execute(insert(Worker).values(queues=[], devices=[], is_draining=True, **row))
        transaction.rollback()
    seconds = time.perf_counter() - began
    return ok("database.write", f"A row was written and taken back in {seconds * 1000:.1f} ms.", seconds=seconds)


def _sqlite(settings: Settings, database: Database) -> Iterator[Finding]:
    with database.session_scope(write=False) as session:
        said = [str(line) for line in session.scalars(text("PRAGMA quick_check(5)"))]
        mode = str(session.scalar(text("PRAGMA journal_mode")))
    if said == ["ok"]:
        yield ok("database.integrity", "SQLite finds its file whole.")
    else:
        advice = "Stop the service and restore the last backup (docs/howto/operate.md)."
        yield error("database.integrity", f"SQLite finds damage: {'; '.join(said)}.", advice, problems=said)
    file = sqlite_file(settings.sqlalchemy_url)
    assert file is not None  # noqa: S101 - for ourselves
    yield _log(file, mode)
    yield judged_file_system(file_system_of(file), file)


def _log(file: Path, mode: str) -> Finding:
    log = file.with_name(f"{file.name}-wal")
    size_bytes = log.stat().st_size if log.is_file() else 0
    found = f"Its journal mode is {mode}; {size_bytes:,} bytes wait in the log."
    if mode != "wal":
        advice = "Readers and writers block each other: the file system may not share memory; use a local disk."
        return warning("database.journal", found, advice, mode=mode, log_bytes=size_bytes)
    if size_bytes > LARGE_LOG_BYTES:
        advice = "Something reads for ever and keeps the log from being emptied: look for a hanging process."
        return warning("database.journal", found, advice, mode=mode, log_bytes=size_bytes)
    return ok("database.journal", found, mode=mode, log_bytes=size_bytes)


def judged_file_system(kind: str, file: Path) -> Finding:
    """Judge where a SQLite file lies."""
    if kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse.ssh"):
        advice = "SQLite needs locks and shared memory that network file systems do not keep: use a local disk, or "
        advice += "PostgreSQL for several machines."
        return warning("database.file_system", f"{file} lies on {kind}.", advice, file_system=kind)
    return ok("database.file_system", f"{file} lies on {kind}, which is local.", file_system=kind)


def file_system_of(path: Path) -> str:
    """Return the kind of file system that a path lies on."""
    mounts = {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}
    place = path.resolve()
    return next((mounts[str(one)] for one in (place, *place.parents) if str(one) in mounts), "unknown")


def _postgresql(database: Database) -> Iterator[Finding]:
    with database.session_scope(write=False) as session:
        most = int(session.scalar(text("SHOW max_connections")) or 0)
        used = int(session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")))
    found = f"{used} of {most} connections are in use."
    if used < BUSY_SHARE * most:
        yield ok("database.connections", found, used=used, most=most)
        return
    advice = "Raise max_connections, or run fewer API processes; each keeps up to 50 connections."
    yield warning("database.connections", found, advice, used=used, most=most)


def away(failure: DatabaseAway) -> Finding:
    """Say that the database does not answer."""
    cause = getattr(failure.__cause__, "orig", None) or failure.__cause__
    advice = "See that it runs, that EPOCHD_DATABASE_URL names it, and that this machine may connect."
    return error("database.reachable", f"The database does not answer: {cause or failure.detail}".strip(), advice)
