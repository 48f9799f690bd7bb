"""`python -m core.backup DIR`: database and files of a running service, as of one moment; `epochd backup` starts it.

    in one transaction (a snapshot):
        read which files the rows name
        open checkpoints of jobs that go on        their workers remove them one or two checkpoints later
        copy the database                          DIR/epochd.db, or DIR/database.dump by pg_dump
    copy what was opened
    copy what else the rows name                   written once and never changed; only what DIR does not have yet
    begin again, should a file have gone before it was opened

So whatever the copied rows point to is there, with the recorded digest. DIR is a data folder like the service's own:
with SQLite `epochd up --data-dir DIR` serves it. The same DIR may be used again and again.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from core.db import migrate, references
from core.db.engine import away_translated, make_engine
from core.db.references import File
from core.errors import EpochdError
from core.settings import Settings, load_settings
from core.storage import Storage, write

ROUNDS = 5
HELD = 500  # open files
LOG = "trainer.log"
SQLITE_NAME, POSTGRESQL_NAME = "epochd.db", "database.dump"

Take = Callable[[File], None]


class Copy:
    """Brings files to their place in the backup.

    Attributes:
        missing: keys that a row names and the storage does not have.
        damaged: keys whose bytes do not have the recorded digest.
    """

    def __init__(self, storage: Storage, place: Path) -> None:
        self._storage = storage
        self._place = place
        self._waiting: list[File] = []
        self._held: list[tuple[File, IO[bytes]]] = []
        self.files = self.size_bytes = 0
        self.missing: set[str] = set()
        self.damaged: set[str] = set()

    def begin(self) -> None:
        """Begin a round."""
        self.missing.clear()
        self._waiting.clear()

    def take(self, file: File) -> None:
        """Note a file that a row names; what may go any moment is opened now, for an open file stays readable."""
        if file.digest is not None and (self._place / file.key).is_file():
            return
        if not file.is_passing or len(self._held) >= HELD:
            self._waiting.append(file)
            return
        try:
            self._held.append((file, self._storage.open(file.key)))
        except FileNotFoundError:
            self.missing.add(file.key)

    def finish(self) -> None:
        """Copy what was noted."""
        for file, content in self._held:
            with content:
                self._done(file, *write(content, self._place / file.key, file.digest))
        self._held.clear()
        for file in self._waiting:
            try:
                self._done(file, *self._storage.fetch(file.key, self._place / file.key, file.digest))
            except FileNotFoundError:
                if file.digest is not None:  # an attempt that was lost early may have no log
                    self.missing.add(file.key)

    def _done(self, file: File, digest: str, size_bytes: int) -> None:
        self.files += 1
        self.size_bytes += size_bytes
        if file.digest not in (None, digest):
            self.damaged.add(file.key)


def back_up(settings: Settings, folder: Path) -> dict[str, Any]:
    """Copy the deployment into a folder.

    Returns:
        `{"database", "files", "bytes", "missing", "damaged"}`: the last two name what the deployment itself has lost.

    Raises:
        EpochdError: there is no database of this program's revision, or pg_dump is not there or fails.
        DigestUnknown: a newer version recorded the digest of a file.
        DatabaseAway: the database does not answer.
    """
    migrate.ensure_current(settings.sqlalchemy_url)
    url, storage, place = make_url(settings.sqlalchemy_url), Storage(settings.storage_url), folder / "artifacts"
    place.mkdir(parents=True, exist_ok=True)
    snapshot = _sqlite if url.get_backend_name() == "sqlite" else _postgresql
    copied, gone_before = Copy(storage, place), set[str]()
    for _ in range(ROUNDS):
        copied.begin()
        snapshot(url, folder, copied.take)
        copied.finish()
        if copied.missing <= gone_before:  # none, or what was not there the last time either
            break
        gone_before = set(copied.missing)
    return {
        "database": str(folder / (SQLITE_NAME if snapshot is _sqlite else POSTGRESQL_NAME)),
        "files": copied.files,
        "bytes": copied.size_bytes,
        "missing": sorted(copied.missing),
        "damaged": sorted(copied.damaged),
    }


def _sqlite(url: URL, folder: Path, take: Take) -> None:
    """Copy a SQLite file page by page from the snapshot that the rows are read from."""
    target = folder / SQLITE_NAME
    partial = target.with_name(f".{SQLITE_NAME}.partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(str(url.database), isolation_level=None)) as source:
        source.execute("BEGIN")
        engine = create_engine("sqlite://", creator=lambda: source, poolclass=StaticPool)
        with Session(engine) as session:
            for file in references.files(session, LOG):
                take(file)
        with closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
    with partial.open("rb") as whole:
        os.fsync(whole.fileno())
    partial.replace(target)


def _postgresql(url: URL, folder: Path, take: Take) -> None:
    """Let pg_dump read the snapshot that the rows are read from."""
    engine = make_engine(url)
    try:
        with away_translated(), engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            snapshot = str(connection.scalar(text("SELECT pg_export_snapshot()")))
            for file in references.files(Session(connection), LOG):
                take(file)
            _dump(url, folder / POSTGRESQL_NAME, snapshot)
    finally:
        engine.dispose()


def _dump(url: URL, target: Path, snapshot: str) -> None:
    partial = target.with_name(f".{target.name}.partial")
    plain = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    command = [
        _pg_dump(), "--format=custom", "--no-owner", f"--snapshot={snapshot}", f"--file={partial}", f"--dbname={plain}",
    ]  # fmt: skip
    secret = (
        {} if url.password is None else {"PGPASSWORD": str(url.password)}
    )  # not on a command line, where all see it
    ended = subprocess.run(command, env=os.environ | secret, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise EpochdError(f"pg_dump failed: {ended.stderr.strip()}")
    partial.replace(target)


def _pg_dump() -> str:
    """Find the newest: one that is older than the server refuses."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: -int(place.parent.name))
    found = shutil.which("pg_dump", path=os.pathsep.join([*map(str, debian), os.environ.get("PATH", "")]))
    if found is None:
        raise EpochdError("pg_dump is not installed here: apt-get install postgresql-client")
    return found


def main() -> int:
    """Back up; the exit status is 1 where that was not possible, or something that rows name is lost or damaged."""
    parser = argparse.ArgumentParser(prog="python -m core.backup", description="Started by `epochd backup`.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    try:
        report = back_up(load_settings(), parser.parse_args().folder.expanduser().absolute())
    except (EpochdError, ValidationError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(report) + "\n")
    return 1 if report["missing"] or report["damaged"] else 0


if __name__ == "__main__":
    sys.exit(main())
