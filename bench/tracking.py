"""Series of metrics stored and read: ours against an MLflow tracking server on the same database engine.

    .venv/bin/python -m bench.tracking [--engine postgresql|sqlite] [--rounds 5] [--quick]

A series is 200 epochs of eight numbers. Ours is stored as a worker stores it: a transaction that moves the job's
checkpoint and writes the rows with their early-stopping decisions. MLflow's is stored by `runs/log-batch`, the cheapest
request that it has, over one connection that is kept; what its client adds to that is not counted. `epoch by epoch` is
a transaction or a request for each; `at once` is as few as each allows: MLflow takes 1,000 numbers a request. Ours is
read by one request, MLflow's by `metrics/get-history` for each number. One server process each; they take turns.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
from sqlalchemy import make_url

from bench.load import ROW, ROWS
from bench.loop import RIVALS_PYTHON
from bench.measuring import arguments, ratio, report, seconds
from bench.serving import TINY, Deployment, services
from core import ids
from core.db import leases
from core.db.leases import Checkpoint
from tests.service import WITH_US, free_port, wait_until

MOST_NUMBERS = 1000
"""Of one `runs/log-batch`."""


class Ours:
    """A job's rows, through the database and the API."""

    def __init__(self, service: Deployment) -> None:
        self.service = service
        self.job_id, self.fence = "", 0

    def begin(self) -> None:
        self.service.submit(TINY | {"name": ids.new("req")})
        with self.service.database.session_scope() as session:
            claim = leases.claim(session, "wk_bench", ["cpu"], host="here", lease_seconds=86400)
            assert claim
            self.job_id, self.fence = claim.job_id, claim.fence

    def store(self, rows: list[dict[str, Any]]) -> None:
        checkpoint = Checkpoint(key=ids.new("req"), digest="c" * 64, epoch=rows[-1]["epoch"])
        with self.service.database.session_scope() as session:
            leases.publish(session, self.job_id, self.fence, checkpoint=checkpoint, rows=rows)

    def read(self) -> int:
        answer = self.service.client.get(f"/v1/jobs/{self.job_id}/metrics").raise_for_status()
        return len(answer.json()["data"])


class MLflow:
    """A run's metrics, through the tracking server."""

    def __init__(self, url: str) -> None:
        self.client = httpx2.Client(base_url=f"{url}/api/2.0/mlflow", timeout=60, trust_env=False)
        self.run_id = ""

    def begin(self) -> None:
        run = self.client.post("/runs/create", json={"experiment_id": "0", "start_time": 1}).raise_for_status().json()
        self.run_id = run["run"]["info"]["run_id"]

    def store(self, rows: list[dict[str, Any]]) -> None:
        numbers = [
            {"key": name, "value": value, "timestamp": 1_700_000_000_000 + row["epoch"], "step": row["epoch"]}
            for row in rows
            for name, value in flat(row).items()
        ]
        for at in range(0, len(numbers), MOST_NUMBERS):
            body = {"run_id": self.run_id, "metrics": numbers[at : at + MOST_NUMBERS]}
            self.client.post("/runs/log-batch", json=body).raise_for_status()

    def read(self) -> int:
        lengths: set[int] = set()
        for name in flat(ROW):
            asked = {"run_id": self.run_id, "metric_key": name}
            answer = self.client.get("/metrics/get-history", params=asked).raise_for_status()
            lengths.add(len(answer.json()["metrics"]))
        (length,) = lengths
        return length


def flat(row: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a row by name."""
    split = {f"{part}_{name}": value for part in ("train", "val") for name, value in row[part].items()}
    return {**split, "lr": row["lr"][0], **{name: row[name] for name in ("grad_norm", "seconds", "samples_per_second")}}


@contextlib.contextmanager
def tracking_server(service: Deployment) -> Iterator[str]:
    """Start MLflow on a database of its own beside the service's; yield its address."""
    url = make_url(service.environment["EPOCHD_DATABASE_URL"])
    with tempfile.TemporaryDirectory(prefix="epochd-mlflow-") as folder:
        if url.drivername.startswith("postgresql"):
            own = url.set(drivername="postgresql")
            with psycopg.connect(own.render_as_string(hide_password=False), autocommit=True) as connection:
                connection.execute("CREATE DATABASE mlflow")
            store = own.set(database="mlflow", drivername="postgresql+psycopg2").render_as_string(hide_password=False)
        else:
            store = f"sqlite:///{folder}/mlflow.db"
        port = free_port()
        command = [str(RIVALS_PYTHON), "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
        command += ["--host", "127.0.0.1", "--workers", "1", "--artifacts-destination", f"{folder}/artifacts"]
        without = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment = os.environ | without  # only what stores and reads
        environment["PATH"] = f"{RIVALS_PYTHON.parent}:{environment['PATH']}"
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(
                [*WITH_US, *command], env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )
        try:
            wait_until(lambda: is_up(port) or server.poll() is not None, 120, 0.2)
            if server.poll() is not None:
                raise SystemExit((Path(folder) / "log").read_text()[-2000:])
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # its own processes too; nothing of it is kept
            server.wait()


def is_up(port: int) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    return False


def one_round(side: Ours | MLflow, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Store a series in both ways and read it; return the seconds of each."""
    found: dict[str, float] = {}
    side.begin()
    found["store, epoch by epoch"] = seconds(lambda: [side.store([row]) for row in rows])
    side.begin()
    found["store, at once"] = seconds(lambda: side.store(rows))
    readings = [seconds(lambda: assert_whole(side, len(rows))) for _ in range(10)]
    return found | {"read": statistics.median(readings)}


def assert_whole(side: Ours | MLflow, length: int) -> None:
    assert side.read() == length


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--engine", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if not RIVALS_PYTHON.exists():
        raise SystemExit("MLflow is not installed: sh bench/rivals/install.sh")
    count = 20 if asked.quick else ROWS
    rows = [{**ROW, "epoch": epoch, "step": 20 * epoch} for epoch in range(1, count + 1)]
    with services(asked.engine) as (service,):
        service.warm()
        with tracking_server(service) as url:
            sides: dict[str, Ours | MLflow] = {"ours": Ours(service), "mlflow": MLflow(url)}
            for side in sides.values():
                one_round(side, rows[:2])
            found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
            for number in range(asked.rounds):
                for name in list(sides)[:: 1 if number % 2 else -1]:
                    found[name].append(one_round(sides[name], rows))
    report("tracking", rows_of(asked.engine, found), epochs=count, rounds=asked.rounds, mlflow=version_of_mlflow())


def rows_of(engine: str, found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for what in found["ours"][0]:
        ours, theirs = ([one[what] for one in found[name]] for name in ("ours", "mlflow"))
        rows.append(
            {
                "engine": engine,
                "what": what,
                "ours ms": round(1000 * statistics.median(ours), 2),
                "MLflow ms": round(1000 * statistics.median(theirs), 2),
                **ratio(theirs, ours),
            }
        )
    return rows


def version_of_mlflow() -> str:
    command = [str(RIVALS_PYTHON), "-c", "from importlib.metadata import version; print(version('mlflow'))"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
