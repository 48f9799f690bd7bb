"""A worker's site on a private SQLite file, with a trainer that needs no torch."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core import ids
from core.db import jobs, leases, migrate, series
from core.db.engine import Database
from core.db.tables import Job
from core.process import Template
from core.settings import Settings
from core.storage import Storage
from worker.devices import Devices
from worker.ringing import Ringing
from worker.site import Site
from worker.supervisor import Supervisor

DOUBLES = Path(__file__).parent / "doubles"
SHORT = {"lease_seconds": 3.0, "heartbeat_seconds": 0.2, "reap_seconds": 0.1, "stop_grace_seconds": 1.0}
PROJECT = "default"


@dataclass
class Desk:
    """A site, and what a test does with it."""

    site: Site

    def submit(self, **spec: Any) -> str:
        """Queue a job for the trainer double."""
        with self.site.database.session_scope() as session:
            new = jobs.NewJob(
                project=PROJECT, spec=spec, spec_digest="0" * 64, body_sha256=hashlib.sha256().hexdigest()
            )
            return jobs.create(session, new)[0].id

    def claim(self) -> leases.Claim | None:
        """Claim the best waiting job."""
        settings = self.site.settings
        with self.site.database.session_scope() as session:
            return leases.claim(
                session, self.site.worker_id, ("cpu",), host="here", lease_seconds=settings.lease_seconds
            )

    def carry(self) -> None:
        """Claim one job and carry it to the end of its attempt."""
        claim = self.claim()
        assert claim is not None
        Supervisor(self.site, claim).run()

    def carry_in_background(self) -> threading.Thread:
        """The same in a thread."""
        thread = threading.Thread(target=self.carry)
        thread.start()
        return thread

    def job(self, job_id: str) -> Job:
        """Return the row."""
        with self.site.database.session_scope(write=False) as session:
            return jobs.get(session, PROJECT, job_id)

    def epochs(self, job_id: str) -> list[int]:
        """Return the epochs that have a row."""
        with self.site.database.session_scope(write=False) as session:
            return [int(row.body.partition('"epoch":')[2].partition(",")[0]) for row in series.rows(session, job_id)[0]]

    def model(self, job_id: str) -> bytes:
        """Return the job's weights."""
        with self.site.database.session_scope(write=False) as session:
            artifact = series.artifact(session, job_id, "model.safetensors")
        with self.site.storage.open(artifact.key) as file:
            return file.read()

    def ask(self, action: Callable[..., Job], job_id: str) -> None:
        """Cancel, pause or resume as the API does."""
        with self.site.database.session_scope() as session:
            action(session, PROJECT, job_id)


@pytest.fixture(scope="session")
def double_template() -> Iterator[Template]:
    with Template(["trainer_double"], env={"PYTHONPATH": str(DOUBLES)}) as template:
        yield template


@pytest.fixture
def make_desk(tmp_path: Path, double_template: Template) -> Iterator[Callable[..., Desk]]:
    databases: list[Database] = []

    def make(**settings: Any) -> Desk:
        merged = Settings(data_dir=tmp_path, **{**SHORT, **settings})
        migrate.upgrade(merged.sqlalchemy_url)
        databases.append(Database(merged.sqlalchemy_url))
        return Desk(
            Site(
                worker_id=ids.new("wk"),
                host="here",
                settings=merged,
                database=databases[-1],
                storage=Storage(merged.storage_url),
                template=double_template,
                devices=Devices(()),
                ringing=Ringing(merged),
                trainer="trainer_double.train",
            )
        )

    yield make
    for database in databases:
        database.dispose()


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()
