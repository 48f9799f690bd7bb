"""Services to be measured: an API on a database and a broker of its own, with the leases of a deployment."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from typing_extensions import override

from bench.measuring import Postgres
from core.db.engine import Database
from tests.servers import Redis
from tests.service import ROOT, WITH_US, Service, wait_until

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"train": {"type": "sklearn.iris"}, "val": {"from": "train", "fraction": 0.2}},
    "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 3}]},
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "SGD", "lr": 0.1},
    "epochs": 1,
    "batch_size": 32,
    "seed": 1,
}
AS_DEPLOYED = {
    "EPOCHD_LEASE_SECONDS": "30", "EPOCHD_HEARTBEAT_SECONDS": "7.5", "EPOCHD_REAP_SECONDS": "5",
    "EPOCHD_POLL_SECONDS": "0.05",
}  # fmt: skip
"""The settings that tests shorten or stretch, as they are without them."""
DOUBLE = """
import dataclasses, sys
from core.process import Template
from worker import __main__ as worker
make = worker.make_site
def make_site(*arguments):
    return dataclasses.replace(make(*arguments), trainer="trainer_double.train", template=Template(["trainer_double"]))
worker.make_site = make_site
sys.exit(worker.main())
"""
"""A worker whose trainer writes its files and messages without training."""


class Deployment(Service):
    """A service on a database of its own."""

    def __init__(self, folder: Path, url: str, broker: str | None, *, is_double: bool = False) -> None:
        settings = {**AS_DEPLOYED, "EPOCHD_DATABASE_URL": url}
        if broker is not None:
            settings["EPOCHD_BROKER_URL"] = broker
        if is_double:
            settings["PYTHONPATH"] = str(ROOT / "tests" / "worker" / "doubles")
        super().__init__(folder, settings, workers=0)
        self.is_double = is_double
        self.database = Database(url)

    @override
    def start(self, name: str) -> None:
        if not (self.is_double and name.startswith("worker")):
            super().start(name)
            return
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*WITH_US, sys.executable, "-c", DOUBLE], cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @override
    def stop(self) -> None:
        super().stop()
        self.database.dispose()

    def warm(self) -> dict[str, Any]:
        """Wait until preflight answers; return a job that it has passed."""

        def passed() -> dict[str, Any] | None:
            job = self.submit(TINY)
            return job if job["resolved_spec"] else None

        return dict(wait_until(passed, pause=0.5))

    def rss(self, name: str) -> float:
        """Return the resident memory of a process in MiB."""
        return round(psutil.Process(self.processes[name].pid).memory_info().rss / 2**20, 1)

    def own(self, name: str) -> float:
        """Return the resident memory without mapped files, which the kernel drops when others need room, in MiB."""
        memory = psutil.Process(self.processes[name].pid).memory_info()
        return round((memory.rss - memory.shared) / 2**20, 1)


@contextlib.contextmanager
def services(engine: str, count: int = 1, *, is_double: bool = False) -> Iterator[list[Deployment]]:
    """Start APIs, each with a database and a broker of its own; workers are started by those who need them."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="epochd-bench-")))
        is_server = engine == "postgresql"
        postgres = stack.enter_context(contextlib.closing(Postgres.new())) if is_server else None
        redis = stack.enter_context(contextlib.closing(Redis.new())) if is_server else None
        started: list[Deployment] = []
        for number in range(count):
            folder = root / str(number)
            folder.mkdir()
            url = f"sqlite:///{folder / 'epochd.db'}"
            if postgres is not None:
                postgres.execute(f"CREATE DATABASE bench_{number}")
                url = postgres.url_of(f"bench_{number}")
            broker = None if redis is None else redis.url_of(number)
            started.append(stack.enter_context(Deployment(folder, url, broker, is_double=is_double)))
        yield started
