"""One API process and one worker under load: a long queue, many pollers, many POSTs, many jobs.

    .venv/bin/python -m bench.load queue   [--engine sqlite]   100 against 10,000 waiting jobs, 500 pollers
    .venv/bin/python -m bench.load polls   [--engine sqlite]   200 rows and 304s against a route without a database
    .venv/bin/python -m bench.load posts   [--engine sqlite]   jobs accepted per second
    .venv/bin/python -m bench.load memory  [--engine sqlite]   resident memory of both over 5,000 jobs; is it flat?

A job is one epoch of a linear model on iris; `queue`, and `memory` without --real, have a trainer that speaks and
writes files as the real one does, but trains nothing. What is compared takes turns, in rounds; a number is the median
of the rounds' own. The client shares the cores with what it measures. PostgreSQL comes with Redis, as in the compose
file; SQLite without, as in `epochd up`.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
from sqlalchemy import func, insert, select

from bench.measuring import arguments, quantile, ratio, report, times
from bench.serving import TINY, Deployment, services
from core import ids
from core.db import leases
from core.db.leases import Checkpoint
from core.db.tables import Attempt, Job
from tests.service import WITH_US, free_port, wait_until

ROW: dict[str, Any] = {
    "train": {"loss": 0.4321, "accuracy": 0.8765}, "val": {"loss": 0.5321, "accuracy": 0.8565},
    "lr": [0.003], "grad_norm": 1.2345, "seconds": 0.1234, "samples_per_second": 10123.4,
    "early_stopping": {"monitor": "val_loss", "value": 0.5321, "best": 0.5221, "best_epoch": 1, "wait": 1,
                       "patience": 5, "improved": False, "action": "continue", "reason": None},
}  # fmt: skip
ROWS = 200
FLAT_MIB = 0.4
"""Per 1,000 jobs, over the later half of 5,000 a mebibyte: an answer or a connection kept for each job is more."""
RIVAL = """
import sys, uvicorn
from fastapi import FastAPI, Response
app, body = FastAPI(), open(sys.argv[1], "rb").read()
@app.get("/")
async def rows() -> Response:
    return Response(body, media_type="application/json")
uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="warning")
"""
"""The least that FastAPI can do: the same bytes from memory, with the same server."""


class Connection:
    """One kept connection, as bare as it can be: the client must not be what is measured."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> tuple[int, str, bytes]:
        """Send a request; return status, ETag and body of the answer."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self._port}", *headers]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        content = await self._reader.readexactly(int(fields.get("content-length", 0)))
        return int(head[9:12]), fields.get("etag", ""), content

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


Act = Callable[[Connection], Awaitable[int]]


@dataclass
class Times:
    """Seconds of each request by what was asked."""

    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    async def note(self, name: str, act: Act, connection: Connection) -> None:
        begun = time.perf_counter()
        status = await act(connection)
        if status >= 400:
            raise RuntimeError(f"{name}: status {status}")
        self.values.setdefault(name, []).append(time.perf_counter() - begun)


def looking(path: str, headers: Sequence[str] = (), *, keeps_etag: bool = False) -> Act:
    """Return a GET; with `keeps_etag` it names the ETag that it saw last."""
    seen = ""

    async def look(connection: Connection) -> int:
        nonlocal seen
        own = [f"If-None-Match: {seen}"] if seen and keeps_etag else []
        status, seen, _ = await connection.ask(path, *headers, *own)
        return status

    return look


def posting(change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> Act:
    """Return a POST of the tiny spec, changed."""

    async def post(connection: Connection) -> int:
        body = json.dumps(change(TINY)).encode()
        return (await connection.ask("/v1/jobs", method="POST", body=body))[0]

    return post


async def every(found: Times, name: str, port: int, act: Act, *, pause: float, until: float) -> None:
    """Repeat an act with pauses, begun at a random moment of the first pause."""
    connection = Connection(port)
    await asyncio.sleep(random.random() * pause)
    while time.monotonic() < until:
        await found.note(name, act, connection)
        await asyncio.sleep(pause)
    connection.close()


async def rate(port: int, act: Act, *, connections: int, seconds: float) -> float:
    """Return answers per second to so many connections that never pause."""
    found, begun = Times(), time.monotonic()
    await asyncio.gather(*(every(found, "", port, act, pause=0.0, until=begun + seconds) for _ in range(connections)))
    return len(found.values[""]) / (time.monotonic() - begun)


def fill(service: Deployment, job_id: str, waiting: int) -> list[str]:
    """Make so many copies of a job that as many wait; return ids of waiting jobs."""
    with service.database.session_scope() as session:
        queued = session.scalar(select(func.count()).where(Job.state == "queued")) or 0
        job = session.get_one(Job, job_id)
        same = ("project", "labels", "name", "spec", "resolved_spec", "spec_digest", "body_sha256", "queue", "priority")
        values = {name: getattr(job, name) for name in same}
        rows = [{**values, "id": ids.new("job")} for _ in range(max(0, waiting - queued))]
        for begin in range(0, len(rows), 1000):
            session.execute(insert(Job), rows[begin : begin + 1000])
        return list(session.scalars(select(Job.id).where(Job.state == "queued").order_by(Job.id.desc()).limit(1000)))


def claim_gaps(service: Deployment, since: Any) -> list[float]:
    """Return the seconds between the end of an attempt and the claim of the next by the same slot."""
    with service.database.session_scope(write=False) as session:
        statement = select(Attempt.started_at, Attempt.ended_at).where(Attempt.started_at >= since)
        found = session.execute(statement.order_by(Attempt.started_at)).all()
    pairs = itertools.pairwise(found)
    return [(after.started_at - before.ended_at).total_seconds() for before, after in pairs if before.ended_at]


def now_of(service: Deployment) -> Any:
    with service.database.session_scope(write=False) as session:
        return session.scalar(select(func.max(Attempt.started_at)))


def one_round(service: Deployment, job_id: str, length: int, asked: argparse.Namespace) -> dict[str, list[float]]:
    """Train the queue for a while, with pollers and POSTs beside it."""
    job_ids = fill(service, job_id, length)
    service.start("worker-0")
    begun = now_of(service)
    wait_until(lambda: now_of(service) != begun)
    since, found = now_of(service), Times()

    async def load(name: str, headers: Sequence[str]) -> None:
        until = time.monotonic() + asked.seconds
        paths = [f"/v1/jobs/{job_ids[number % len(job_ids)]}" for number in range(asked.pollers)]
        acts = [looking(path, headers, keeps_etag=True) for path in paths]
        await asyncio.gather(
            every(found, f"POST beside {name}", service.port, posting(), pause=0.1, until=until),
            *(every(found, name, service.port, act, pause=asked.pause, until=until) for act in acts),
        )

    asyncio.run(load("polls", ()))
    asyncio.run(load("waits", (f"Prefer: wait={asked.seconds / 4:g}",)))
    del found.values["waits"]
    found.values["claim after the attempt before"] = claim_gaps(service, since)
    service.processes["worker-0"].terminate()
    service.processes["worker-0"].wait(60)
    return found.values


def measure_queue(asked: argparse.Namespace) -> None:
    lengths = (20, 400) if asked.quick else (100, 10_000)
    measured: dict[int, list[dict[str, list[float]]]] = {length: [] for length in lengths}
    with services(asked.engine, len(lengths), is_double=True) as started:
        job_ids = [service.warm()["id"] for service in started]
        for number in range(asked.rounds):
            turn = list(zip(started, job_ids, lengths, strict=True))
            for service, job_id, length in turn if number % 2 else turn[::-1]:
                measured[length].append(one_round(service, job_id, length, asked))
    rows: list[dict[str, Any]] = []
    for name in measured[lengths[0]][0]:
        row: dict[str, Any] = {"engine": asked.engine, "what": name}
        for length in lengths:
            for key, value in times([values[name] for values in measured[length]]).items():
                row[f"{key}, {length} waiting"] = value
        p99s = [[quantile(values[name], 0.99) for values in measured[length]] for length in reversed(lengths)]
        rows.append(row | {f"p99 {key}": value for key, value in ratio(*p99s).items()})
    report("load", rows, pollers=asked.pollers, pause_seconds=asked.pause, rounds=asked.rounds)


@contextlib.contextmanager
def rival(body: bytes) -> Iterator[int]:
    """Serve the same bytes from memory; yield the port."""
    port = free_port()
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        with subprocess.Popen([*WITH_US, sys.executable, "-c", RIVAL, file.name, str(port)]) as process:
            try:
                wait_until(lambda: any(c.laddr.port == port for c in psutil.Process(process.pid).net_connections()))
                yield port
            finally:
                process.terminate()


def publish_rows(service: Deployment) -> str:
    """Give a job its rows; return its id."""
    with service.database.session_scope() as session:
        claim = leases.claim(session, "wk_bench", ["cpu"], host="here", lease_seconds=86400)
        assert claim
        rows = [{"epoch": epoch, "step": 20 * epoch, **ROW} for epoch in range(1, ROWS + 1)]
        checkpoint = Checkpoint(key="k", digest="c" * 64, epoch=ROWS)
        leases.publish(session, claim.job_id, claim.fence, checkpoint=checkpoint, rows=rows)
        return claim.job_id


def measure_polls(asked: argparse.Namespace) -> None:
    with services(asked.engine) as (service,):
        service.warm()
        job_id = publish_rows(service)
        path = f"/v1/jobs/{job_id}/metrics"
        answer = service.client.get(path)
        assert len(answer.json()["data"]) == ROWS
        with rival(answer.content) as port:
            etags = {name: service.client.get(name).headers["ETag"] for name in (path, f"/v1/jobs/{job_id}")}
            acts: dict[str, tuple[int, Act]] = {
                "FastAPI, the same bytes from memory": (port, looking("/")),
                "200 rows": (service.port, looking(path)),
                "200 rows, 304": (service.port, looking(path, [f"If-None-Match: {etags[path]}"])),
                "what is behind the last row": (service.port, looking(f"{path}?after={ROWS}")),
                "job": (service.port, looking(f"/v1/jobs/{job_id}")),
                "job, 304": (
                    service.port,
                    looking(f"/v1/jobs/{job_id}", [f"If-None-Match: {etags[f'/v1/jobs/{job_id}']}"]),
                ),
            }
            rates: dict[str, list[float]] = {name: [] for name in acts}
            pollers: dict[str, list[list[float]]] = {name: [] for name in list(acts)[:3]}
            for _ in range(asked.rounds):
                for name, (at, act) in acts.items():
                    rates[name].append(
                        asyncio.run(rate(at, act, connections=asked.connections, seconds=asked.seconds / 4))
                    )
                for name, values in pollers.items():
                    values.append(asyncio.run(polled(*acts[name], asked)))
    by_memory, by_rows = rates["FastAPI, the same bytes from memory"], rates["200 rows"]
    rows = [
        {
            "engine": asked.engine,
            "what": name,
            "per_second": round(statistics.median(values)),
            "by the rival": ratio(values, by_memory)["ratio"],
            "by 200 rows": ratio(values, by_rows)["ratio"],
            **(
                {f"{key}, 100 pollers": value for key, value in times(pollers[name]).items()} if name in pollers else {}
            ),
        }
        for name, values in rates.items()
    ]
    report("load", rows, connections=asked.connections, bytes=len(answer.content), rounds=asked.rounds)


async def polled(port: int, act: Act, asked: argparse.Namespace) -> list[float]:
    """Return the times of 100 pollers who look once a second."""
    found, until = Times(), time.monotonic() + asked.seconds
    await asyncio.gather(*(every(found, "", port, act, pause=1.0, until=until) for _ in range(100)))
    return found.values[""]


def measure_posts(asked: argparse.Namespace) -> None:
    acts = {
        "the same spec, other names": posting(lambda spec: spec | {"name": ids.new("req")}),
        "each another learning rate": posting(
            lambda spec: spec | {"optimizer": {"type": "SGD", "lr": random.random()}}
        ),
    }
    measured: dict[str, list[float]] = {name: [] for name in acts}
    with services(asked.engine) as (service,):
        service.warm()
        for _ in range(asked.rounds):
            for name, act in acts.items():
                measured[name].append(
                    asyncio.run(rate(service.port, act, connections=asked.connections, seconds=asked.seconds / 2))
                )
    rows = [
        {"engine": asked.engine, "what": name, "jobs_per_second": round(statistics.median(values), 1),
         "least": round(min(values), 1), "most": round(max(values), 1)}
        for name, values in measured.items()
    ]  # fmt: skip
    report("load", rows, connections=asked.connections, rounds=asked.rounds)


def measure_memory(asked: argparse.Namespace) -> None:
    jobs, step = (60, 10) if asked.quick else (asked.jobs, max(1, asked.jobs // 20))
    processes = {"api": "api", "worker": "worker-0"}
    rows: list[dict[str, Any]] = []
    with services(asked.engine, is_double=not asked.real) as (service,):
        service.warm()
        service.start("worker-0")
        for _ in range(jobs // step):
            asyncio.run(carried(service, step))
            wait_until(lambda: not waiting(service), 600, 0.5)
            rows.append(
                {"jobs": len(rows) * step + step}
                | {f"{name}_mib": service.rss(process) for name, process in processes.items()}
                | {f"{name}_own_mib": service.own(process) for name, process in processes.items()}
                | {"worker_files": psutil.Process(service.processes["worker-0"].pid).num_fds()}
                | {"api_files": psutil.Process(service.processes["api"].pid).num_fds()}
            )
            print(rows[-1], file=sys.stderr, flush=True)
    later = {name: growth(rows[len(rows) // 2 :], f"{name}_own_mib") for name in processes}
    report("load", rows, engine=asked.engine, trainer="real" if asked.real else "double", later_half=later)


def growth(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return by how much memory grows per 1,000 jobs: the least squares' slope, and the standard error of it."""
    jobs, sizes = [row["jobs"] / 1000 for row in rows], [row[name] for row in rows]
    slope, begin = statistics.linear_regression(jobs, sizes)
    left = sum((size - begin - slope * job) ** 2 for job, size in zip(jobs, sizes, strict=True))
    spread = sum((job - statistics.mean(jobs)) ** 2 for job in jobs)
    error = (left / max(1, len(rows) - 2) / spread) ** 0.5
    is_flat = slope < max(FLAT_MIB, 2 * error)
    return {"mib_per_1000_jobs": round(slope, 3), "standard_error": round(error, 3), "is_flat": is_flat}


async def carried(service: Deployment, count: int) -> None:
    """Post so many jobs and poll each until it has ended, a few at a time."""
    places = asyncio.Semaphore(8)

    async def carry() -> None:
        connection = Connection(service.port)
        async with places:
            body = json.dumps(TINY).encode()
            _, _, answer = await connection.ask("/v1/jobs", method="POST", body=body)
            path = f"/v1/jobs/{json.loads(answer)['id']}"
            while not json.loads((await connection.ask(path, "Prefer: wait=5"))[2])["is_terminal"]:
                pass
            await connection.ask(f"{path}/metrics")
        connection.close()

    await asyncio.gather(*(carry() for _ in range(count)))


def waiting(service: Deployment) -> int:
    with service.database.session_scope(write=False) as session:
        return session.scalar(select(func.count()).where(Job.state.in_(("queued", "running")))) or 0


def main() -> None:
    parser = arguments(__doc__)
    measures = {"queue": measure_queue, "polls": measure_polls, "posts": measure_posts, "memory": measure_memory}
    parser.add_argument("what", choices=measures)
    parser.add_argument("--engine", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of load in each round")
    parser.add_argument("--pollers", type=int, default=500)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between a poller's answers and its next look")
    parser.add_argument("--connections", type=int, default=16, help="of rates")
    parser.add_argument("--jobs", type=int, default=5000, help="of memory")
    parser.add_argument("--real", action="store_true", help="memory with the real trainer")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.seconds, asked.pollers = 2, 2.0, 20
    measures[asked.what](asked)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
