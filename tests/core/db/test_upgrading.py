"""Migrations while workers live: compatible ones are taken, others are refused by the workers' names."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from core.db import migrate, workers
from core.db.engine import Database
from core.errors import SchemaInUse, SchemaNewer
from tests.core.db import given
from tests.service import ROOT

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "{head}x"
down_revision = "{head}"
{mark}


def upgrade():
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("colour", sa.String(length=20), nullable=True))
"""
MARKS = {"compatible": "is_compatible = True", "not compatible": "is_compatible = False", "unmarked": ""}
Plant = Callable[[str], str]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Make this program the next version: it has one more migration."""

    def plant(mark: str) -> str:
        folder, head = tmp_path / "migrations", migrate.head()
        shutil.copytree(migrate.scripts(), folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "versions" / "next.py").write_text(NEXT.format(head=head, mark=MARKS[mark]))
        monkeypatch.setattr(migrate, "scripts", lambda: folder)
        return head

    return plant


@pytest.fixture
def old_worker(database: Database) -> str:
    """A worker of the version before, that lives."""
    me = workers.Announcement(
        id="wk_old", name="old", host="there", pid=1, version="0.0.1", queues=["cpu"], devices=[], slots=1
    )
    with database.session_scope() as session:
        workers.announce(session, me)
    return me.id


def columns(database: Database) -> set[str]:
    return {column["name"] for column in inspect(database.engine).get_columns("jobs")}


def test_compatible_one_is_taken_and_the_living_worker_goes_on(
    database: Database, database_url: str, plant: Plant, old_worker: str
) -> None:
    claim = given.running(database)
    plant("compatible")
    migrate.upgrade(database_url)
    assert "colour" in columns(database)
    given.publish(database, claim, 1)
    given.finish(database, claim)
    assert given.read(database, claim.job_id).state == "succeeded"


@pytest.mark.parametrize("mark", ["not compatible", "unmarked"])
def test_other_one_is_refused_by_the_living_workers_name_and_taken_when_it_has_left(
    database: Database, database_url: str, plant: Plant, old_worker: str, mark: str
) -> None:
    head = plant(mark)
    with pytest.raises(SchemaInUse, match=rf"{head}x.*1 of their workers.*old \(host there, version 0\.0\.1\)"):
        migrate.upgrade(database_url)
    assert migrate.current(database_url) == head
    assert "colour" not in columns(database)
    with database.session_scope() as session:
        workers.leave(session, old_worker)
    migrate.upgrade(database_url)
    assert "colour" in columns(database)


def test_first_migration_of_an_empty_database_asks_nobody(empty_url: str, plant: Plant) -> None:
    plant("unmarked")
    migrate.upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.head()


def test_every_migration_after_the_first_says_whether_older_programs_can_go_on() -> None:
    steps = list(ScriptDirectory(str(migrate.scripts())).walk_revisions())
    silent = [step.revision for step in steps[:-1] if not isinstance(getattr(step.module, "is_compatible", None), bool)]
    assert silent == []


@pytest.mark.parametrize("module", ["api", "worker", "core.db.migrate"])
def test_older_program_does_not_start_and_says_why(
    sqlite_url: str, tmp_path: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    plant("compatible")
    migrate.upgrade(sqlite_url)
    environment = {"EPOCHD_DATABASE_URL": sqlite_url, "EPOCHD_DATA_DIR": str(tmp_path), "EPOCHD_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "a newer version has migrated it" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_older_program_refuses_the_newer_database(
    database: Database, database_url: str, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = migrate.scripts
    plant("compatible")
    migrate.upgrade(database_url)
    monkeypatch.setattr(migrate, "scripts", ours)
    with pytest.raises(SchemaNewer, match="does not know"):
        migrate.upgrade(database_url)
