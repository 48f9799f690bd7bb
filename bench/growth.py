"""What grows with the database: the service's statements on an empty one and on one that is full, in turns.

    .venv/bin/python -m bench.growth [--engine sqlite|postgresql] [--jobs 100000] [--epochs 5000000] [--quick]

Both databases belong to this run and hold one page of ended jobs, so that lists have the same length, and one job of
200 rows that is polled. The full one has besides: `--jobs` jobs (one in ten waits, fifty run, the others have ended)
and `--epochs` rows of metrics with as many events. A ratio is the full one's median by the empty one's, in each round.
"""

import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.orm import Session

from bench.measuring import Postgres, arguments, ratio, report, seconds, times
from core import ids
from core.db import jobs, keys, leases, migrate, series, workers
from core.db.engine import Database
from core.db.leases import AttemptEnd, Checkpoint
from core.db.tables import Epoch, Event, Job

PROJECT = "default"
SPEC: dict[str, Any] = {
    "data": {"source": {"type": "sklearn", "name": "digits"}, "preprocessing": [{"type": "StandardScaler"}]},
    "model": {"layers": [{"type": "Linear", "out_features": 64}, {"type": "ReLU"}, {"type": "Linear"}]},
    "loss": {"type": "CrossEntropyLoss"}, "optimizer": {"type": "Adam", "lr": 0.003}, "epochs": 50, "batch_size": 64,
}  # fmt: skip
ROW: dict[str, Any] = {
    "step": 1, "train": {"loss": 0.4321, "accuracy": 0.8765}, "val": {"loss": 0.5321, "accuracy": 0.8565},
    "lr": [0.003], "grad_norm": 1.2345, "seconds": 0.1234, "samples_per_second": 10123.4,
    "early_stopping": {"monitor": "val_loss", "value": 0.5321, "best": 0.5221, "best_epoch": 1, "wait": 1,
                       "patience": 5, "improved": False, "action": "continue", "reason": None},
}  # fmt: skip
POLLED_ROWS = 200
PAGE = 20
STATE = "CASE WHEN i <= 50 THEN 'running' WHEN i % 10 = 0 THEN 'queued' ELSE 'succeeded' END"


@dataclass
class Side:
    """A database, and how long each statement took in it."""

    database: Database
    polled: str
    times: dict[str, list[list[float]]] = field(default_factory=dict[str, list[list[float]]])

    def run(self, name: str, action: Callable[[Session], Any], *, write: bool = False) -> Any:
        """Time one transaction."""
        found: list[Any] = []

        def transaction() -> None:
            with self.database.session_scope(write=write) as session:
                found.append(action(session))

        self.times[name][-1].append(seconds(transaction))
        return found[0]

    def begin_round(self) -> None:
        """Put the times that follow apart from the earlier ones."""
        for name in (*READS, *COUNTS, *CYCLE):
            self.times.setdefault(name, []).append([])


READS: dict[str, Callable[[Session, str], Any]] = {
    "list, newest 20": lambda session, _: jobs.page(session, PROJECT),
    "list by status, 20 succeeded": lambda session, _: jobs.page(session, PROJECT, status="succeeded"),
    "list by status, running": lambda session, _: jobs.page(session, PROJECT, status="running", limit=1),
    "list by name": lambda session, _: jobs.page(session, PROJECT, name="page"),
    "poll a job": lambda session, job_id: jobs.get(session, PROJECT, job_id),
    "poll 200 rows": series.rows,
    "poll behind the last row": lambda session, job_id: series.rows(session, job_id, after=POLLED_ROWS),
    "events behind the last one": lambda session, job_id: series.events(session, job_id, after=2**40),
    "version of a job": lambda session, job_id: jobs.versions(session, [job_id]),
    "is there a key": lambda session, _: keys.any_exist(session),
    "what waits": lambda session, _: leases.waiting(session, ["cpu"], 1),
    "what waits in two queues": lambda session, _: leases.waiting(session, ["cpu", "gpu"], 1),
}
COUNTS: dict[str, Callable[[Session, str], Any]] = {
    "count jobs by queue (GET /v1/queue)": lambda session, _: workers.queue(session, PROJECT),
    "count jobs by state (GET /metrics)": lambda session, _: workers.states(session, PROJECT),
}
CYCLE = ("create", "claim", "claim from two queues", "publish", "heartbeat", "finish", "delete", "reap")


def new_job(name: str | None = None) -> jobs.NewJob:
    return jobs.NewJob(
        project=PROJECT, name=name, spec=SPEC, resolved_spec=SPEC, spec_digest="d" * 64, body_sha256="b" * 64
    )


def carry(side: Side, *queues: str) -> None:
    """Take one job through its life; the table is as long afterwards as before."""
    side.run("create", lambda session: jobs.create(session, new_job()), write=True)
    name = "claim" if len(queues) == 1 else "claim from two queues"
    job = side.run(name, lambda session: leases.claim(session, "wk_bench", queues, host="here"), write=True)
    checkpoint = Checkpoint(key=ids.new("req"), digest="c" * 64, epoch=1)
    row = {"epoch": 1, **ROW}
    side.run(
        "publish",
        lambda session: leases.publish(session, job.job_id, job.fence, checkpoint=checkpoint, rows=[row]),
        write=True,
    )
    side.run("heartbeat", lambda session: leases.heartbeat(session, job.job_id, job.fence), write=True)
    side.run(
        "finish",
        lambda session: leases.finish(
            session, job.job_id, job.fence, state="succeeded", stop_reason="completed", end=AttemptEnd()
        ),
        write=True,
    )
    side.run("delete", lambda session: jobs.delete(session, PROJECT, job.job_id), write=True)
    side.run("reap", leases.reap, write=True)


def prepare(database: Database) -> Side:
    """Make a page of ended jobs, and the job that is polled."""
    with database.session_scope() as session:
        for _ in range(PAGE + 1):
            job_id = jobs.create(session, new_job("page"))[0].id
            claim = leases.claim(session, "wk_bench", ["cpu"], host="here")
            assert claim
            leases.finish(session, job_id, claim.fence, state="succeeded", stop_reason="completed", end=AttemptEnd())
        jobs.create(session, new_job("polled"))
        claim = leases.claim(session, "wk_bench", ["cpu"], host="here", lease_seconds=86400)
        assert claim
        rows = [{"epoch": epoch, **ROW} for epoch in range(1, POLLED_ROWS + 1)]
        checkpoint = Checkpoint(key="k", digest="c" * 64, epoch=POLLED_ROWS)
        leases.publish(session, claim.job_id, claim.fence, checkpoint=checkpoint, rows=rows)
    return Side(database, claim.job_id)


def copies(table: type, source: str, changed: dict[str, str]) -> str:
    """Return an INSERT … SELECT of `source` rows, with SQL expressions in the place of some columns."""
    columns = [column.name for column in table.__table__.columns if column.name != "id" or table is Job]
    values = [changed.get(column, f"base.{column}") for column in columns]
    return f"INSERT INTO {table.__tablename__} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {source}"


def filling(job_count: int, epoch_count: int, number: str, series_of: Callable[[int, str], str]) -> list[str]:
    """Return the statements that fill a database, jobs in the order of their creation.

    Args:
        number: SQL that formats an integer as 32 hexadecimal digits, with `%s` in its place.
        series_of: SQL of a table of the integers from 1 to n, in a column of that name.
    """
    job_id = f"'job_' || {number % 'i'}"
    running = "i <= 50"
    per_job = max(1, epoch_count // job_count)
    rows = f"{series_of(job_count, 'i')}, {series_of(per_job, 'e')}"
    one = "(SELECT * FROM {} WHERE job_id = (SELECT id FROM jobs WHERE name = 'polled') LIMIT 1) AS base"
    has_ended = f"WHERE {STATE} = 'succeeded'"
    return [
        copies(Job, f"jobs AS base, {series_of(job_count, 'i')} WHERE base.name = 'polled' ORDER BY i", {
            "id": job_id, "name": "'job ' || (i % 1000)", "state": STATE, "idempotency_key": "'key ' || i",
            "lease_until": f"CASE WHEN {running} THEN base.lease_until END",
            "worker_id": f"CASE WHEN {running} THEN base.worker_id END",
            "epochs_done": "CASE WHEN i % 10 = 0 THEN 0 ELSE base.epochs_done END",
            "checkpoint_key": "CASE WHEN i % 10 = 0 THEN NULL ELSE base.checkpoint_key END",
        }),
        copies(Epoch, f"{one.format('epochs')}, {rows} {has_ended}", {"job_id": job_id, "epoch": "e"}),
        copies(Event, f"{one.format('events')}, {rows} {has_ended}", {"job_id": job_id}),
    ]  # fmt: skip


def fill_sqlite(path: Path, job_count: int, epoch_count: int) -> None:
    def series_of(count: int, name: str) -> str:
        step = f"SELECT 1 UNION ALL SELECT {name} + 1 FROM n WHERE {name} < {count}"
        return f"(WITH RECURSIVE n({name}) AS ({step}) SELECT {name} FROM n)"

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for statement in filling(job_count, epoch_count, "printf('%%032x', %s)", series_of):
            connection.execute(statement)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def fill_postgresql(server: Postgres, name: str, job_count: int, epoch_count: int) -> None:
    url = f"postgresql://postgres@127.0.0.1:{server.port}/{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # foreign keys hold by construction
        for statement in filling(
            job_count, epoch_count, "lpad(to_hex(%s), 32, '0')", lambda n, i: f"generate_series(1, {n}) AS of_{i}({i})"
        ):
            connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE")


@contextlib.contextmanager
def sides(engine: str, job_count: int, epoch_count: int) -> Iterator[tuple[Side, Side]]:
    """Make an empty and a full database."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="epochd-growth-")))
        server = stack.enter_context(contextlib.closing(Postgres.new())) if engine == "postgresql" else None
        made: list[Side] = []
        for name in ("bare", "filled"):
            if server is not None:
                server.execute(f"CREATE DATABASE {name}")
            url = f"sqlite:///{folder / name}.db" if server is None else server.url_of(name)
            migrate.upgrade(url)
            database = Database(url)
            stack.callback(database.dispose)
            made.append(prepare(database))
        if server is None:
            fill_sqlite(folder / "filled.db", job_count, epoch_count)
        else:
            fill_postgresql(server, "filled", job_count, epoch_count)
        yield made[0], made[1]


def measure(empty: Side, full: Side, rounds: int, runs: int) -> None:
    """Let both take turns, statement by statement."""
    for _ in range(rounds):
        for side in (empty, full):
            side.begin_round()
        for run in range(runs):
            for side in (empty, full) if run % 2 else (full, empty):
                for name, action in READS.items():
                    side.run(name, lambda session, action=action, side=side: action(session, side.polled))
                carry(side, *("cpu", "gpu")[: 1 + run % 2])
                if run % 10 == 0:
                    for name, action in COUNTS.items():
                        side.run(name, lambda session, action=action, side=side: action(session, side.polled))


def rows_of(engine: str, empty: Side, full: Side) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in (*READS, *CYCLE, *COUNTS):
        medians = [[statistics.median(values) for values in side.times[name]] for side in (full, empty)]
        rows.append(
            {
                "engine": engine,
                "statement": name,
                "empty_p50_ms": times(empty.times[name])["p50_ms"],
                "full_p50_ms": times(full.times[name])["p50_ms"],
                **ratio(*medians),
                "runs": times(full.times[name])["runs"],
            }
        )
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=60, help="of each statement in each round")
    asked = parser.parse_args()
    if asked.quick:
        asked.jobs, asked.epochs, asked.runs = 2_000, 20_000, 12
    rows: list[dict[str, Any]] = []
    filled: dict[str, float] = {}
    for engine in asked.engine or ("sqlite", "postgresql"):
        begun = time.monotonic()
        with sides(engine, asked.jobs, asked.epochs) as (empty, full):
            filled[engine] = round(time.monotonic() - begun, 1)
            measure(empty, full, asked.rounds, asked.runs)
            rows += rows_of(engine, empty, full)
    report("growth", rows, jobs=asked.jobs, epochs=asked.epochs, fill_seconds=filled)


if __name__ == "__main__":
    main()
