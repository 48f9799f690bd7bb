"""A service whose processes fail where a test says, and the rows that it leaves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import update

from core.db import jobs
from core.db.clock import now
from core.db.engine import Database
from core.db.tables import Job
from core.faults import Point
from tests.faults.harness import SPEC, attempts
from tests.service import Service, wait_until

SMALL: dict[str, Any] = {**SPEC, "epochs": 4, "batch_size": 64}


@dataclass
class Points:
    """A service's crash points, in the folder that EPOCHD_FAULTS names."""

    faults: Path

    def arm(self, point: Point, fault: str) -> None:
        """Make the next process that passes `point` fail."""
        (self.faults / f"{point}.fired").unlink(missing_ok=True)
        (self.faults / f"{point}.new").write_text(fault)
        (self.faults / f"{point}.new").rename(self.faults / point)

    def wait_fired(self, point: Point) -> None:
        """Wait until a process has come by."""
        wait_until((self.faults / f"{point}.fired").exists, pause=0.01)

    def disarm(self, point: Point) -> None:
        """Let all pass."""
        (self.faults / point).unlink(missing_ok=True)

    def slow(self) -> None:
        """Let every epoch take its time, without work, until `disarm("checkpoint.told")`."""
        self.arm("checkpoint.told", "every sleep 0.4")

    def let_go(self, point: Point) -> None:
        """Let the process go on that waits."""
        (self.faults / f"{point}.go").touch()


@dataclass
class Lab(Points):
    """A service, its crash points and its database."""

    service: Service
    database: Database

    def row(self, job_id: str) -> Job:
        """Return the job's row."""
        with self.database.session_scope(write=False) as session:
            return jobs.get(session, "default", job_id)

    def let_lease_end(self, job_id: str) -> None:
        """Put the end of a running job's lease into the past: a test does not wait for it."""
        with self.database.session_scope() as session:
            running = update(Job).where(Job.id == job_id, Job.state == "running")
            session.execute(running.values(lease_until=now(-1.0)))

    def epochs(self, job_id: str) -> list[int]:
        """Return the epochs whose rows are published."""
        return [row["epoch"] for row in self.service.rows(job_id)]

    def ends(self, job_id: str) -> list[tuple[str, str | None, int | None, int | None]]:
        """Return outcome, code, signal and exit code of every attempt."""
        return [
            (one["outcome"], one["code"], one["signal"], one["exit_code"]) for one in attempts(self.service, job_id)
        ]

    def decisions(self, job_id: str, kind: str) -> list[dict[str, Any]]:
        """Return what was decided of one kind."""
        found = self.service.client.get(f"/v1/jobs/{job_id}/decisions").json()["data"]
        return [decision for decision in found if decision["kind"] == kind]

    def stored(self, key: str) -> Path:
        """Return the file of a storage key."""
        return self.service.folder / "data" / "artifacts" / key
