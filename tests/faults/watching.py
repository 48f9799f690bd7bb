"""Looks at a service while it is disturbed, and notes what may not be seen even for a moment: I7, I9, I10.

Poller     asks for jobs all the time, as clients do
Watch      looks at the processes of this machine
"""

import contextlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx2
import psutil
from typing_extensions import override

from tests.service import TERMINAL, Service

GRACE_SECONDS = 3.0
"""A trainer may outlive its supervisor, or its right to write, for so long."""


class Background:
    """A thread that does the same again and again as long as the block lasts."""

    pause_seconds: ClassVar[float]

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.violations: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _loop(self) -> None:
        try:
            while not self._is_over.wait(self.pause_seconds):
                self.look()
            self.look_last()
        except Exception as error:  # noqa: BLE001 - a watcher that died has seen nothing
            self.violations.append(f"{type(self).__name__} ended: {error!r}")

    def look(self) -> None:
        """Look once."""
        raise NotImplementedError

    def look_last(self) -> None:
        """Look when all has settled."""
        self.look()


@dataclass
class Seen:
    """What a client knows of a job."""

    status: str
    latest: int
    rows: dict[int, dict[str, Any]]
    partial_looks: int = 0
    """Looks at a job that had some rows, but not all."""


class Poller(Background):
    """Polls jobs in turn, and notes whatever is taken back (I7) and every 5xx but 503 (I10)."""

    pause_seconds = 0.15

    def __init__(self, service: Service, *job_ids: str) -> None:
        super().__init__()
        self._client = httpx2.Client(
            base_url=service.url, timeout=10, trust_env=False, headers={**service.client.headers}
        )
        self.seen = {job_id: Seen("", 0, {}) for job_id in job_ids}
        self._turn = 0

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._client.close()

    def watch(self, job_id: str) -> None:
        """Poll one more job."""
        self.seen.setdefault(job_id, Seen("", 0, {}))

    @override
    def look(self) -> None:
        """Ask for the next job that has not ended."""
        going = [job_id for job_id, seen in list(self.seen.items()) if seen.status not in TERMINAL]
        if going:
            self._turn += 1
            self._ask(going[self._turn % len(going)])

    @override
    def look_last(self) -> None:
        """Ask for all jobs, also those that had ended long ago."""
        for job_id in self.seen:
            self._ask(job_id)

    @property
    def partial_looks(self) -> int:
        """Looks at jobs that had some rows, but not all."""
        return sum(seen.partial_looks for seen in self.seen.values())

    def _ask(self, job_id: str) -> None:
        with contextlib.suppress(httpx2.TransportError):
            job = self._client.get(f"/v1/jobs/{job_id}")
            rows = self._client.get(f"/v1/jobs/{job_id}/metrics", params={"limit": 10000})
            if job.status_code == rows.status_code == 200:
                self._compare(job_id, job.json(), rows.json()["data"])
            elif {job.status_code, rows.status_code} - {200, 503}:
                self.violations.append(f"I10: polling {job_id}: {job.status_code}, {rows.status_code}")

    def _compare(self, job_id: str, job: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        seen, done = self.seen[job_id], len(rows)
        if seen.status in TERMINAL and job["status"] != seen.status:
            self.violations.append(f"I7: {job_id}: {seen.status} became {job['status']}")
        latest = 0 if job["latest_metrics"] is None else job["latest_metrics"]["epoch"]
        if latest < seen.latest or done < len(seen.rows):
            self.violations.append(f"I7: {job_id}: {len(seen.rows)} rows became {done}, or {seen.latest} {latest}")
        seen.status, seen.latest = job["status"], latest
        seen.partial_looks += 0 < done < int(job["spec"]["epochs"])
        for row in rows:
            if seen.rows.setdefault(row["epoch"], row) != row:
                self.violations.append(f"I7: {job_id}: row {row['epoch']} changed")


class Trainer:
    """A trainer's process, known by the folder that it works in."""

    def __init__(self, pid: int, job_id: str) -> None:
        self.job_id = job_id
        self.process = psutil.Process(pid)
        above = self.process.parents()  # the template, its worker, …
        self.supervisor = above[1] if len(above) > 1 else None
        self.orphan_since: float | None = None

    @property
    def is_orphan(self) -> bool:
        """Whether the supervisor is gone."""
        return self.supervisor is None or not is_alive(self.supervisor)

    def is_of(self, workers: set[int]) -> bool:
        """Whether one of these workers supervises it."""
        return self.supervisor is not None and self.supervisor.pid in workers


class Watch(Background):
    """Notes trainers that outlive their supervisor, and two of one job (I9).

    A frozen worker, or one whose link is cut, cannot end its trainer before it wakes: `excused` names such workers.
    """

    pause_seconds = 0.3

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._jobs = service.folder / "data" / "artifacts" / "jobs"
        self._known: dict[int, Trainer] = {}
        self._twins_since: dict[str, float] = {}
        self.excused: set[int] = set()

    @override
    def look(self) -> None:
        """Look once."""
        now = time.monotonic()
        for pid, job_id in trainers_below(self._jobs).items():
            known = self._known.get(pid)
            if known is None or not known.process.is_running():
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._known[pid] = Trainer(pid, job_id)
        self._known = {pid: trainer for pid, trainer in self._known.items() if is_alive(trainer.process)}
        for trainer in self._known.values():
            self._look_for_supervisor(trainer, now)
        self._look_for_twins(now)

    @override
    def look_last(self) -> None:
        """Look when every job has ended: no trainer may be left soon after."""
        ends = time.monotonic() + GRACE_SECONDS
        while (left := trainers_below(self._jobs)) and time.monotonic() < ends:
            time.sleep(self.pause_seconds)
        self.violations += [f"I9: the trainer {pid} of {job_id} is still alive" for pid, job_id in left.items()]

    def _look_for_supervisor(self, trainer: Trainer, now: float) -> None:
        if not trainer.is_orphan:
            return
        trainer.orphan_since = trainer.orphan_since or now
        if now - trainer.orphan_since > GRACE_SECONDS:
            self._note(f"I9: the trainer {trainer.process.pid} of {trainer.job_id} outlived its supervisor")

    def _look_for_twins(self, now: float) -> None:
        counted: dict[str, int] = defaultdict(int)
        for trainer in self._known.values():
            counted[trainer.job_id] += not trainer.is_of(self.excused)
        twins = [job_id for job_id, count in counted.items() if count > 1]
        self._twins_since = {job_id: self._twins_since.get(job_id, now) for job_id in twins}
        for job_id, since in self._twins_since.items():
            if now - since > GRACE_SECONDS:
                self._note(f"I9: two trainers of {job_id} on this machine")

    def _note(self, violation: str) -> None:
        if violation not in self.violations:
            self.violations.append(violation)


def trainers_below(jobs: Path) -> dict[int, str]:
    """Return pid and job of every process that works in the folder of an attempt."""
    found: dict[int, str] = {}
    pattern = re.compile(re.escape(f"{jobs}/") + r"(job_\w+)/\d+")
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended
                match = pattern.match(str((process / "cwd").readlink()))
                if match:
                    found[int(process.name)] = match[1]
    return found


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs, or could."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def all_gone(processes: list[psutil.Process]) -> Callable[[], bool]:
    """Return the condition that none of the processes is alive."""
    return lambda: not any(is_alive(process) for process in processes)
