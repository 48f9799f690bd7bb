"""Numbers for Prometheus: requests of this process, and jobs, workers and queues as the database has them."""

import shutil
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.happenings import Happenings
from api.outage import Outage
from core import versions
from core.db import figures, workers
from core.db.engine import Database
from core.db.figures import SETTLED_SECONDS
from core.db.tables import Worker
from core.errors import ChildFailed
from core.settings import Settings
from core.storage import Storage

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PREFLIGHT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Family = GaugeMetricFamily | CounterMetricFamily


class Telemetry:
    """Counters of one application; none of them is global.

    Args:
        database: has the jobs.
        settings: of the deployment.
        settled_seconds: events are counted once they are so old.
    """

    def __init__(self, database: Database, settings: Settings, *, settled_seconds: float = SETTLED_SECONDS) -> None:
        self._database = database
        self._settings = settings
        self._settled_seconds = settled_seconds
        self._happenings = Happenings()
        self._outage = Outage(database.engine)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "epochd_http_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "epochd_http_request_seconds",
            "From the request's head to the end of the answer; waiting on purpose included.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        """By method, route and status: finding a series by its labels takes longer than counting."""
        self._preflight_seconds = Histogram(
            "epochd_preflight_seconds",
            "From asking for a preflight to its report.",
            buckets=PREFLIGHT_BUCKETS,
            registry=self.registry,
        )
        self._preflight_failures = Counter(
            "epochd_preflight_failures", "Preflights without a report; jobs are accepted all the same.",
            registry=self.registry,
        )  # fmt: skip
        self._rings = Counter(
            "epochd_rings", "Rings of the doorbell, by whether the broker was heard to take them.", ["result"],
            registry=self.registry,
        )  # fmt: skip
        for result in ("taken", "unanswered"):
            self._rings.labels(result)
        build = Gauge("epochd_build_info", "Always 1; the version is the label.", ["version"], registry=self.registry)
        build.labels(versions.own()).set(1)

    @contextmanager
    def preflight(self) -> Generator[None]:
        """Measure a preflight."""
        began = time.perf_counter()
        try:
            yield
        except ChildFailed:
            self._preflight_failures.inc()
            raise
        finally:
            self._preflight_seconds.observe(time.perf_counter() - began)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        found = self._answered.get((method, route, status))
        if found is None:
            found = self._requests.labels(method, route, str(status)), self._seconds.labels(method, route)
            self._answered[method, route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def rung(self, *, was_taken: bool) -> None:
        """Count a ring of the doorbell."""
        self._rings.labels("taken" if was_taken else "unanswered").inc()

    def exposition(self, project: str | None) -> bytes:
        """Return everything in Prometheus' text format.

        Args:
            project: whose jobs are counted; none: everybody's.

        Raises:
            DatabaseAway: the jobs cannot be counted.
        """
        with self._database.session_scope(write=False) as session:
            self._happenings.look(session, settled_seconds=self._settled_seconds)
            families = [*_jobs(session, project), *_workers(workers.listing(session))]
        families += [*self._happenings.collect(project), self._away(), _free_bytes(self._settings)]
        rows = CollectorRegistry()
        rows.register(_Collected(families))
        return generate_latest(self.registry) + generate_latest(rows)

    def _away(self) -> CounterMetricFamily:
        help_text = "Time in which this process could not reach the database."
        return CounterMetricFamily("epochd_database_away_seconds", help_text, value=self._outage.seconds)


class _Collected:
    """Families that were read a moment ago."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        """Yield them."""
        yield from self._families


def _jobs(session: Session, project: str | None) -> Iterator[Family]:
    by_state = GaugeMetricFamily("epochd_jobs", "Jobs by state.", labels=["state"])
    for state, count in workers.states(session, project).items():
        by_state.add_metric([state], count)
    yield by_state
    by_queue = GaugeMetricFamily(
        "epochd_queue_jobs", "Jobs that have not ended, by queue and state.", labels=["queue", "state"]
    )
    for queue, state, count in figures.active(session, project):
        by_queue.add_metric([queue, state], count)
    yield by_queue
    waiting = GaugeMetricFamily(
        "epochd_oldest_waiting_seconds", "For how long the oldest job of a queue could have begun.", labels=["queue"]
    )
    for queue, seconds in figures.waiting_seconds(session, project).items():
        waiting.add_metric([queue], seconds)
    yield waiting
    over = figures.leases_over(session, project)
    yield GaugeMetricFamily("epochd_leases_over", "Running jobs whose lease is over and not reaped yet.", value=over)


def _workers(found: Iterable[Worker]) -> Iterator[Family]:
    there = GaugeMetricFamily("epochd_workers", "Workers that gave a sign of life lately.", labels=["state", "version"])
    slots = GaugeMetricFamily("epochd_slots", "Attempts that workers of a queue can run at once.", labels=["queue"])
    numbers: dict[tuple[str, str], int] = {}
    by_queue: dict[str, int] = {}
    for worker in found:
        state = "draining" if worker.is_draining else "ready"
        numbers[state, worker.version] = numbers.get((state, worker.version), 0) + 1
        for queue in worker.queues if not worker.is_draining else ():
            by_queue[queue] = by_queue.get(queue, 0) + worker.slots
    for labels, number in sorted(numbers.items()):
        there.add_metric(labels, number)
    for queue, number in sorted(by_queue.items()):
        slots.add_metric([queue], number)
    yield from (there, slots)


def _free_bytes(settings: Settings) -> Family:
    """Return how much space is left where this process writes; an object store has no such number."""
    family = GaugeMetricFamily("epochd_free_bytes", "Free space of this machine's folders.", labels=["folder"])
    places = {"data": settings.home, "cache": settings.caches}
    artifacts = Storage(settings.storage_url).local_path("jobs")
    if artifacts is not None:
        places["artifacts"] = artifacts
    for name, place in places.items():
        family.add_metric([name], shutil.disk_usage(_existing(place)).free)
    return family


def _existing(place: Path) -> Path:
    return place if place.exists() else _existing(place.parent)


class Measured:
    """Middleware that counts requests by route (never by path, which would be a label per job)."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        finally:
            route = _template(scope)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._telemetry.answered(method, route, status, time.perf_counter() - began)


def _template(scope: Scope) -> str:
    """Return the route's path with names in the place of values; included routers keep only their part of it."""
    if "route" not in scope:
        return "none"
    names = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items()}
    return "/".join(names.get(part, part) for part in scope["path"].split("/"))


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
