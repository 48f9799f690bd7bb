"""A copy of a running deployment is whole: what its rows name is there, and its jobs go on to the same weights."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from core import digests
from core.backup import back_up
from core.db import leases
from core.db.engine import Database
from core.db.tables import Job
from core.errors import DigestUnknown, EpochdError
from core.settings import Settings
from core.storage import Storage
from tests.core.db import given
from tests.servers import Postgres, _program
from tests.service import eventually
from tests.worker.conftest import Desk, double_template, make_desk
from tests.worker.doubles.trainer_double import weights

__all__ = ["desks", "double_template"]  # fixtures
desks = make_desk

Restore = Callable[[Path], str]


@pytest.fixture
def restore(database_url: str, postgres: Postgres, worker_number: int) -> Iterator[Restore]:
    """Return the URL of a database that was made from a backup, as docs/howto/operate.md says."""
    name = f"restored_{worker_number}"

    def made(folder: Path) -> str:
        if database_url.startswith("sqlite"):
            return f"sqlite:///{folder / 'epochd.db'}"
        postgres.execute(f"CREATE DATABASE {name}")
        url = postgres.url_of(name)
        plain = url.replace("postgresql+psycopg", "postgresql")
        command = [_program("pg_restore"), "--no-owner", "--exit-on-error", f"--dbname={plain}"]
        subprocess.run([*command, str(folder / "database.dump")], check=True)
        return url

    yield made
    if database_url.startswith("postgresql"):
        postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def hurry(desk: Desk, job_id: str) -> None:
    """Let the rest of the epochs take no time; the weights do not depend on it."""
    with desk.site.database.session_scope() as session:
        quick = {**desk.job(job_id).spec, "epoch_seconds": 0.0}
        session.execute(update(Job).where(Job.id == job_id).values({"spec": quick, "resolved_spec": quick}))


def test_jobs_that_run_meanwhile_go_on_in_the_copy_to_the_same_weights(
    desks: Callable[..., Desk], database_url: str, tmp_path: Path, restore: Restore
) -> None:
    """They publish all the time, so that checkpoints go while they are copied."""
    desk = desks(database_url=database_url)
    ended = desk.submit(epochs=3)
    desk.carry()
    jobs = [desk.submit(epochs=600, epoch_seconds=0.03, seed=number) for number in (1, 2)]
    carrying = [desk.carry_in_background() for _ in jobs]
    assert eventually(lambda: all(desk.job(job_id).epochs_done >= 5 for job_id in jobs))
    folder = tmp_path / "backup"
    report = back_up(desk.site.settings, folder)
    assert all(desk.job(job_id).state == "running" for job_id in jobs)
    desk.site.shutdown.ask()
    for thread in carrying:
        thread.join()
    assert (report["missing"], report["damaged"]) == ([], [])

    copy = desks(database_url=restore(folder), artifacts_url=str(folder / "artifacts"))
    assert copy.model(ended) == desk.model(ended) == weights(3)
    for job_id in jobs:
        before = copy.job(job_id)
        assert (before.state, before.checkpoint_epoch) == ("running", before.epochs_done)
        assert 5 <= before.epochs_done <= desk.job(job_id).epochs_done
        hurry(copy, job_id)
        given.let_lease_end(copy.site.database, job_id)
    assert sorted(given.reap(copy.site.database)) == sorted(jobs)
    for _ in jobs:
        copy.carry()
    for number, job_id in enumerate(jobs, start=1):
        assert copy.model(job_id) == weights(600, number)
        assert copy.epochs(job_id) == list(range(1, 601))


@pytest.fixture
def deployment(database: Database, database_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, database_url=database_url)


def published(database: Database, settings: Settings, tmp_path: Path, like: str | None = None) -> str:
    claim = given.running(database)
    (tmp_path / "file").write_bytes(b"state")
    key = f"jobs/{claim.job_id}/1/kept/checkpoint-1-10.pt"
    Storage(settings.storage_url).put_file(tmp_path / "file", key)
    with database.session_scope() as session:
        checkpoint = leases.Checkpoint(key=key, digest=digests.of_file(tmp_path / "file", like), epoch=1)
        leases.publish(session, claim.job_id, claim.fence, checkpoint=checkpoint, rows=[{"epoch": 1}])
    return key


def test_second_backup_into_the_same_folder_copies_only_what_is_new(
    database: Database, deployment: Settings, tmp_path: Path
) -> None:
    published(database, deployment, tmp_path)
    first = back_up(deployment, tmp_path / "backup")
    published(database, deployment, tmp_path)
    second = back_up(deployment, tmp_path / "backup")
    assert (first["files"], second["files"]) == (1, 1)


@pytest.mark.parametrize("like", [None, digests.of_checkpoint(b"")], ids=["SHA-256", "BLAKE3"])
def test_what_the_deployment_has_lost_is_named(
    database: Database, deployment: Settings, tmp_path: Path, like: str | None
) -> None:
    lost, damaged = (published(database, deployment, tmp_path, like) for _ in range(2))
    published(database, deployment, tmp_path, like)
    (tmp_path / "artifacts" / lost).unlink()
    (tmp_path / "artifacts" / damaged).write_bytes(b"other")
    report: dict[str, Any] = back_up(deployment, tmp_path / "backup")
    assert (report["missing"], report["damaged"]) == ([lost], [damaged])


def test_digest_that_only_a_newer_version_knows_is_an_error_and_no_damage(
    database: Database, deployment: Settings, tmp_path: Path
) -> None:
    published(database, deployment, tmp_path)
    with database.session_scope() as session:
        session.execute(update(Job).values(checkpoint_digest="next:0"))
    with pytest.raises(DigestUnknown, match=r"too old for the digest 'next:0'"):
        back_up(deployment, tmp_path / "backup")


def test_database_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EpochdError, match="There is no database"):
        back_up(Settings(data_dir=tmp_path), tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []
