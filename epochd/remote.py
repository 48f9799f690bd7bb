"""What can be said about a service from outside: by its HTTP API alone."""

import time
from collections.abc import Iterator
from typing import Any

from core import versions
from epochd.client import Client
from epochd.errors import AccessDenied, ClientError, RequestRefused
from epochd.operating import Finding, Status

SLOW_SECONDS = 0.5


def examine(client: Client) -> Iterator[Finding]:
    """Yield what the API says about itself, its database and broker, its version, workers and queues."""
    began = time.perf_counter()
    try:
        ready = client.readiness()
    except RequestRefused as refusal:
        yield _finding("service.ready", "error", f"{client.url} is up, and not ready: {refusal}", _advice(refusal))
    except ClientError as failure:
        yield _finding("service.reachable", "error", str(failure), "Start it, or correct --url.")
        return
    else:
        yield from _ready(client, ready, time.perf_counter() - began)
    try:
        yield _version(client.version())
        workers, queues = client.workers(), client.queues()
    except AccessDenied as denial:
        yield _finding("service.key", "error", str(denial), "Give --key or EPOCHD_API_KEY: a key with jobs:read.")
        return
    except ClientError as failure:
        yield _finding("service.workers", "error", f"Workers and queues are not told: {failure}", "See the API's log.")
        return
    yield from _workers(workers)
    yield from _queues(workers, queues)


def _finding(check: str, status: Status, found: str, advice: str | None = None, **numbers: object) -> Finding:
    return {"check": check, "status": status, "found": found, "advice": advice, "numbers": numbers}


def _advice(refusal: RequestRefused) -> str:
    if str(refusal.problem.get("type", "")).endswith("broker-away"):
        return "Jobs are accepted all the same, and start when the broker is back."
    return "Run `epochd doctor` on a machine of the deployment: it looks at database and broker themselves."


def _ready(client: Client, ready: dict[str, str | None], seconds: float) -> Iterator[Finding]:
    broker = ready.get("broker") or "none configured"
    found = f"{client.url} answers in {seconds * 1000:.0f} ms; database {ready.get('database')}, broker {broker}."
    is_slow = seconds > SLOW_SECONDS
    advice = "Look at the load of the API and of its database." if is_slow else None
    yield _finding("service.ready", "warning" if is_slow else "ok", found, advice, seconds=seconds)


def _version(theirs: str) -> Finding:
    ours = versions.own()
    if theirs == ours:
        return _finding("service.version", "ok", f"It runs {theirs}, as this client.", version=theirs)
    advice = "Fine as long as what you use is in both; else install the same version."
    return _finding("service.version", "warning", f"It runs {theirs}, this client is {ours}.", advice, version=theirs)


def _workers(workers: list[dict[str, Any]]) -> Iterator[Finding]:
    ready = [worker for worker in workers if not worker["is_draining"]]
    names = ", ".join(f"{worker['name']} ({worker['version']})" for worker in ready)
    if ready:
        yield _finding("service.workers", "ok", f"{len(ready)} take jobs: {names}.", ready=len(ready))
    else:
        advice = "Start one on a machine of the deployment: `python -m worker`."
        yield _finding("service.workers", "warning", "No worker takes jobs.", advice, ready=0)


def _queues(workers: list[dict[str, Any]], queues: list[dict[str, Any]]) -> Iterator[Finding]:
    served = {name for worker in workers if not worker["is_draining"] for name in worker["queues"]}
    for queue in queues:
        name, queued = str(queue["name"]), queue["queued"]
        if not queued:
            continue
        found = f"{queued} of your jobs wait in {name}"
        if name in served:
            yield _finding(f"service.queue.{name}", "ok", f"{found}; workers serve it.", queued=queued)
        else:
            advice = f"Start a worker with EPOCHD_QUEUES={name}, or cancel them."
            yield _finding(
                f"service.queue.{name}", "error", f"{found}, and no worker serves it.", advice, queued=queued
            )
