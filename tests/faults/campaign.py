"""One kind of fault against a running service, while clients post, poll and count.

with Campaign(system, "SIGKILL trainer") as campaign:
    for _ in range(count("SIGKILL trainer")):
        campaign.feed(6)
        victim = campaign.victim()     the least-hit job that has published since it was hit last
        …                              the fault
        campaign.hit(victim)
    campaign.settle(resumes=…)         every job ends; every invariant is checked
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil
from sqlalchemy import select

from core import ids
from core.db.engine import Database
from core.db.states import TERMINAL
from core.db.tables import Attempt, Job, Worker
from core.faults import Point
from tests.faults import invariants
from tests.faults.harness import SPEC
from tests.faults.invariants import Evidence, Reference
from tests.faults.lab import Points
from tests.faults.table import SEED, Kind, Score, chance, report
from tests.faults.watching import Poller, Watch, all_gone, is_alive
from tests.servers import Postgres, Redis
from tests.service import ROOT, Service, wait_until

BRISK: dict[str, Any] = {
    **SPEC,
    "name": "brisk",
    "data": {**SPEC["data"], "train": {**SPEC["data"]["train"], "samples": 500}},
    "epochs": 16,
    "batch_size": 16,
}
"""Half a second of training, a checkpoint with every epoch."""
TINY: dict[str, Any] = {**BRISK, "name": "tiny", "epochs": 2}
STEADY: dict[str, Any] = {**BRISK, "name": "steady", "epochs": 48}
"""For faults that take a moment to be noticed."""
SPECS = (BRISK, TINY, STEADY)
SECRETS = {"database": "hush-dagger-rows", "key": "epk_hushdaggerkey00000000000000000000000000"}
SETTLE_SECONDS = 120.0


@dataclass
class System:
    """A service whose processes, crash points, database and broker a test can reach."""

    service: Service
    points: Points
    database: Database
    """The service's, opened directly."""
    postgres: Postgres | None = None
    redis: Redis | None = None
    references: dict[str, Reference] = field(default_factory=dict[str, Reference])

    @property
    def workers(self) -> list[str]:
        """Names of the workers."""
        return [name for name in self.service.processes if name != "api"]

    def name_of(self, pid: int) -> str:
        """Return the name of a process."""
        return next(name for name, process in self.service.processes.items() if process.pid == pid)

    def heal(self) -> None:
        """Start what is down, so that each test finds everything running."""
        for server in (self.postgres, self.redis):
            if server is not None:
                server.resume()
                if not server.answers():
                    server.start()
        for armed in self.points.faults.iterdir():
            armed.unlink(missing_ok=True)  # a process may just take it
        for name, process in list(self.service.processes.items()):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
            else:
                self.service.start(name)
        self.service.wait_ready()

    def refer(self) -> None:
        """Note what undisturbed runs leave."""
        for number, spec in enumerate(SPECS):
            key = f"undisturbed {number}"
            job = self.service.submit(spec, **{"Idempotency-Key": key})
            self.service.finish(job["id"])
            (rows,) = invariants.read(self.database, key)
            assert rows.job.state == "succeeded", (rows.job.error, self.service.log("worker-0"))
            self.references[rows.job.spec_digest] = invariants.reference(rows)

    def collect(self) -> None:
        """Remove what nothing points to, as `epochd gc` does."""
        command = [sys.executable, "-m", "core.retention", "--grace-seconds", "0"]
        done = subprocess.run(
            command, cwd=ROOT, env=self.service.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


@dataclass(frozen=True)
class Going:
    """A job that trains, as its rows say."""

    job_id: str
    epochs_done: int
    epochs: int
    attempt: int
    from_epoch: int
    worker_pid: int
    trainer_pid: int | None


class Campaign:
    """Faults of one kind; everything a client gets is noted, everything is checked at the end."""

    def __init__(self, system: System, kind: Kind) -> None:
        self.system, self.service, self.kind = system, system.service, kind
        self.chance = chance(kind)
        self.prefix = ids.new("key")
        self.accepted: dict[str, set[str]] = {}
        self.cancelled: set[str] = set()
        self.hits: dict[str, int] = defaultdict(int)
        self.allows_500 = False
        """Whether a fault is meant to be answered with 500."""
        self.faults = 0
        self._hit_at: dict[str, int] = {}
        self._begun_at = time.monotonic()
        self._violations: list[str] = []
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.system.heal()
        self._client = self._stack.enter_context(
            httpx2.Client(
                base_url=self.service.url, timeout=60, trust_env=False, headers={**self.service.client.headers}
            )
        )
        self.poller = self._stack.enter_context(Poller(self.service))
        self.watch = self._stack.enter_context(Watch(self.service))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is not None:
            print(f"EPOCHD_FAULT_SEED={SEED}; {self.kind}; {self.faults} faults; log of worker-0:")  # noqa: T201
            print(self.service.log("worker-0"))  # noqa: T201

    @property
    def _artifacts(self) -> Path:
        return self.service.folder / "data" / "artifacts"

    # what clients do

    def submit(self, spec: dict[str, Any] = BRISK) -> str:
        """Post a job, and again with the same key until it is accepted; return its id."""
        with self._lock:
            key = f"{self.prefix} {len(self.accepted)}"
            self.accepted[key] = set()
        return self._post(key, spec)

    def _post(self, key: str, spec: dict[str, Any]) -> str:
        ends = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < ends:
            with contextlib.suppress(httpx2.TransportError):
                answer = self._client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": key})
                if answer.status_code == 201:
                    job_id = str(answer.json()["id"])
                    self.accepted[key].add(job_id)
                    self.poller.watch(job_id)
                    return job_id
                self._check(answer)
            time.sleep(0.05)
        raise AssertionError(f"POST was not answered within {SETTLE_SECONDS:g} s")

    def _check(self, answer: httpx2.Response) -> None:
        may_be = {503, 500} if self.allows_500 else {503}
        if answer.status_code not in may_be:
            self._violations.append(f"I10: POST was answered with {answer.status_code}: {answer.text}")

    def ask(self, job_id: str, action: str) -> int:
        """Ask for a cancel, a pause or a resume until it is answered; return the status code."""
        if action == "cancel":
            self.cancelled.add(job_id)
        while True:
            with contextlib.suppress(httpx2.TransportError):
                answer = self._client.post(f"/v1/jobs/{job_id}/{action}")
                if answer.status_code < 500:
                    return answer.status_code
                self._check(answer)
            time.sleep(0.05)

    def wait_ended(self) -> None:
        """Wait until every job has ended."""
        wait_until(lambda: not self.unfinished(), SETTLE_SECONDS)

    def has_ended(self, job: Going) -> bool:
        """Tell whether the attempt that was seen has ended."""
        return self.attempts(job.job_id)[job.attempt - 1].ended_at is not None

    def is_paused(self, job_id: str) -> bool:
        """Tell whether a job is held back, or about to be."""
        return self.service.job(job_id)["status"] in ("pausing", "paused")

    def wait_paused(self, job_id: str) -> None:
        """Wait until a job has let go of its trainer."""
        wait_until(lambda: self.service.job(job_id)["status"] == "paused")

    def feed(self, number: int, spec: dict[str, Any] = BRISK) -> None:
        """Post until so many jobs have not ended."""
        for _ in range(number - len(self.unfinished())):
            self.submit(spec)

    # what the rows say

    def unfinished(self) -> list[str]:
        """Return the jobs that have not ended."""
        mine = select(Job.id).where(Job.idempotency_key.startswith(self.prefix), Job.state.not_in(TERMINAL))
        with self.system.database.session_scope(write=False) as session:
            return list(session.scalars(mine))

    def going(self, worker_pid: int | None = None) -> list[Going]:
        """Return the jobs that train; those of one worker, where one is named."""
        statement = (
            select(Job.id, Job.epochs_done, Job.spec, Job.attempt, Attempt.from_epoch, Worker.pid, Attempt.pid)
            .join(Attempt, (Attempt.job_id == Job.id) & (Attempt.number == Job.attempt))
            .join(Worker, Worker.id == Job.worker_id)
            .where(Job.idempotency_key.startswith(self.prefix), Job.state == "running", Job.desired == "run")
        )
        with self.system.database.session_scope(write=False) as session:
            found = session.execute(
                statement if worker_pid is None else statement.where(Worker.pid == worker_pid)
            ).all()
        return [Going(row[0], row[1], row[2]["epochs"], *row[3:]) for row in found]

    def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of a job."""
        statement = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)
        with self.system.database.session_scope(write=False) as session:
            found = list(session.scalars(statement))
            session.expunge_all()
            return found

    def checkpoints(self, job_id: str) -> tuple[Path, int]:
        """Return the file of a job's newest checkpoint, and the epoch of the one before."""
        with self.system.database.session_scope(write=False) as session:
            job = session.get_one(Job, job_id)
            assert job.checkpoint_key is not None
            assert job.previous_checkpoint is not None
            newest, previous = job.checkpoint_key, int(job.previous_checkpoint["epoch"])
        return self._artifacts / newest, previous

    # faults

    def slow_down(self, seconds: float = 1.0) -> None:
        """Let every trainer rest after each epoch until `settle`: waiting for a worker to start costs no processor."""
        self.arm("epoch.finished", f"every sleep {seconds:g}")

    def victim(self, *, worker: str | None = None, jobs: int = 0, spec: dict[str, Any] = BRISK) -> Going:
        """Wait for a job that has published since it was hit last, and is far from its end; the least-hit one.

        Args:
            worker: only its jobs.
            jobs: post until so many have not ended, again and again.
            spec: what is posted.
        """

        def find() -> Going | None:
            if jobs:
                self.feed(jobs, spec)
            pid = None if worker is None else self.service.processes[worker].pid
            may_be = [job for job in self.going(pid) if self._is_worth_it(job)]
            return min(may_be, key=lambda job: (self.hits[job.job_id], self.chance.random()), default=None)

        return wait_until(find)

    def _is_worth_it(self, job: Going) -> bool:
        has_new = job.epochs_done > self._hit_at.get(job.job_id, 0) and job.epochs_done > job.from_epoch
        return has_new and 2 * job.epochs_done <= job.epochs and job.trainer_pid is not None

    def hit(self, *jobs: Going) -> None:
        """Count one fault, and the jobs that it hit."""
        self.faults += 1
        for job in jobs:
            self.hits[job.job_id] += 1
            self._hit_at[job.job_id] = job.epochs_done

    def wait_moment(self, most_seconds: float = 0.1) -> None:
        """Wait until a random moment of the epoch."""
        time.sleep(self.chance.uniform(0.0, most_seconds))

    def kill_worker(self, name: str) -> None:
        """SIGKILL a worker; its trainers must not outlive it."""
        below = psutil.Process(self.service.processes[name].pid).children(recursive=True)
        self.service.kill(name)
        wait_until(all_gone(below), 3.0)

    def wait_carried(self, jobs: list[Going]) -> None:
        """Wait until each of the jobs was published by a later attempt, or has ended."""

        def are_carried() -> bool:
            unfinished = set(self.unfinished())
            now = {job.job_id: job for job in self.going()}
            return all(
                job.job_id not in unfinished
                or ((new := now.get(job.job_id)) is not None
                    and new.attempt > job.attempt and new.epochs_done > job.epochs_done)
                for job in jobs
            )  # fmt: skip

        wait_until(are_carried)

    @contextlib.contextmanager
    def excused(self, worker: str) -> Iterator[None]:
        """Let a worker's trainers live on beside their successors: it cannot be reached."""
        pid = self.service.processes[worker].pid
        self.watch.excused.add(pid)
        try:
            yield
        finally:
            self.watch.excused.discard(pid)

    def arm(self, point: Point, fault: str) -> None:
        """Make the next process that passes `point` fail."""
        self.system.points.arm(point, fault)

    # the end

    def settle(self, *, resumes: int = 0) -> None:
        """Wait until every job has ended, and check every invariant.

        Args:
            resumes: attempts that at least must have gone on from a checkpoint; else the faults came too early.
        """
        self.system.heal()
        with contextlib.suppress(AssertionError):  # I2 says which
            self.wait_ended()
        for key in self.chance.sample(sorted(self.accepted), min(3, len(self.accepted))):
            self._repeat(key)
        self._stack.close()
        self.system.collect()
        found = [*self._violations, *self.poller.violations, *self.watch.violations]
        found += invariants.violations(self._evidence())
        real = self.resumes()
        report(self.kind, Score(self.faults, real, len(self.accepted), len(found), time.monotonic() - self._begun_at))
        assert found == [], f"seed {SEED}: " + "\n".join(found[:20])
        assert real >= resumes, f"seed {SEED}: {self.faults} faults made {real} resumes, {resumes} are too few already"

    def resumes(self) -> int:
        """Count the attempts that went on from a checkpoint."""
        jobs = invariants.read(self.system.database, self.prefix)
        return sum(attempt.from_epoch > 0 for rows in jobs for attempt in rows.attempts)

    def _repeat(self, key: str) -> None:
        """Post once more with a key that was accepted."""
        (job_id,) = self.accepted[key]
        self._post(key, self.service.job(job_id)["spec"])

    def _evidence(self) -> Evidence:
        return Evidence(
            database=self.system.database,
            artifacts=self._artifacts,
            written=self.service.folder,
            accepted=self.accepted,
            prefix=self.prefix,
            cancelled=self.cancelled,
            references=self.system.references,
            secrets=tuple(SECRETS.values()),
        )


def end(pid: int | None) -> None:
    """SIGKILL a trainer, unless it has just ended."""
    assert pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


__all__ = ["BRISK", "SECRETS", "STEADY", "TINY", "Campaign", "Going", "System", "end", "is_alive"]
