"""A real service for tests: `python -m api` and `python -m worker` as processes on a random port of 127.0.0.1."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil

from core.spare import NAME

ROOT = Path(__file__).parent.parent
TERMINAL = ("succeeded", "failed", "cancelled")
READY_SECONDS = 90.0
QUICK = {
    "EPOCHD_LEASE_SECONDS": "3",
    "EPOCHD_HEARTBEAT_SECONDS": "0.5",
    "EPOCHD_REAP_SECONDS": "0.5",
    "EPOCHD_POLL_SECONDS": "0.2",
    "OMP_NUM_THREADS": "1",
}
"""Leases short enough for a test to wait for their end, looks for work so rare that idle workers cost little."""
WITH_US = ("setpriv", "--pdeathsig", "TERM")
"""In front of a command: it ends with the test run, also when that is killed (the pid stays the command's own)."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Any, seconds: float = READY_SECONDS, pause: float = 0.1) -> Any:
    """Return the first true answer of `condition`; fail when none came within `seconds`."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        answer = condition()
        if answer:
            return answer
        time.sleep(pause)
    raise AssertionError(f"{getattr(condition, '__name__', condition)} did not hold within {seconds} s")


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> bool:
    """Wait until something holds; return whether it did within `seconds`."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def spares(template_pid: int | None) -> list[psutil.Process]:
    """Return the children of a template that wait for a request."""
    return [child for child in psutil.Process(template_pid).children() if _name(child) == NAME.decode()]


def trainers_of(worker_pid: int) -> list[psutil.Process]:
    """Return the trainers of a worker: what its template forked, without the one that waits for a request."""
    templates = psutil.Process(worker_pid).children()
    children = [child for template in templates for child in template.children()]
    return [child for child in children if _name(child) not in (None, NAME.decode())]


def _name(process: psutil.Process) -> str | None:
    """Return what `ps` calls a process, None where it has ended and is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name()
    return None


class Service:
    """An API and its workers on one data folder; everything that was started is stopped by its pid."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        *,
        workers: int = 1,
        within: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.within = within
        """In front of every command: what else it runs in."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.workers = workers
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
        own = {"EPOCHD_DATA_DIR": str(folder / "data"), "EPOCHD_PORT": str(self.port), "PYTHONUNBUFFERED": "1"}
        self.environment = inherited | QUICK | own | dict(settings or {})
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.client = httpx2.Client(base_url=self.url, timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        try:
            self.start("api")
            self.wait_ready()
            for number in range(self.workers):
                self.start(f"worker-{number}")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str) -> None:
        """Start `api` or a `worker-<n>`; its output goes to `<folder>/<name>.log`."""
        module = name.partition("-")[0]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*WITH_US, *self.within, sys.executable, "-m", module], cwd=ROOT, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until the API answers."""

        def is_ready() -> bool:
            if self.processes["api"].poll() is not None:
                raise AssertionError(f"the API ended: {self.log('api')}")
            with contextlib.suppress(httpx2.TransportError):
                return self.client.get("/readyz").status_code == 200
            return False

        wait_until(is_ready)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one process."""
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """SIGKILL one process and wait until it is gone."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        """Ask all to end, end them by their pids where they do not."""
        self.client.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str) -> str:
        """Return the end of a process's output."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def submit(self, spec: Mapping[str, Any], **headers: str) -> dict[str, Any]:
        """Post a job spec; return the job."""
        answer = self.client.post("/v1/jobs", json=dict(spec), headers=headers)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as it stands."""
        answer = self.client.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def finish(self, job_id: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until a job is terminal; return it."""
        return dict(wait_until(lambda: job if (job := self.job(job_id))["is_terminal"] else None, seconds))

    def rows(self, job_id: str, after: int = -1) -> list[dict[str, Any]]:
        """Return the metrics rows after an epoch."""
        answer = self.client.get(f"/v1/jobs/{job_id}/metrics", params={"after": after, "limit": 10000})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    def artifact(self, job_id: str, name: str) -> bytes:
        """Return a file that the job left."""
        answer = self.client.get(f"/v1/jobs/{job_id}/artifacts/{name}")
        assert answer.status_code == 200, answer.text
        return bytes(answer.content)


def example(name: str) -> dict[str, Any]:
    """Return one of the example jobs."""
    return dict(json.loads((ROOT / "examples" / f"{name}.json").read_text()))
