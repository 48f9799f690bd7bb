"""Numbers for Prometheus: requests of this process, and jobs as the database has them."""

import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.db import workers
from core.db.engine import Database

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Telemetry:
    """Counters of one application; none of them is global."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "epochd_http_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "epochd_http_request_seconds",
            "From the request's head to the end of the answer; waiting on purpose included.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def exposition(self, project: str | None) -> bytes:
        """Return everything in Prometheus' text format.

        Args:
            project: whose jobs are counted; none: everybody's.

        Raises:
            DatabaseAway: the jobs cannot be counted.
        """
        with self._database.session_scope(write=False) as session:
            counts = workers.states(session, project)
        jobs = CollectorRegistry()
        jobs.register(_Jobs(counts))
        return generate_latest(self.registry) + generate_latest(jobs)


class _Jobs:
    """Jobs by state."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Any]:
        """Yield one gauge."""
        family = GaugeMetricFamily("epochd_jobs", "Jobs by state.", labels=["state"])
        for state, count in self._counts.items():
            family.add_metric([state], count)
        yield family


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
            self._telemetry.requests.labels(method, route, str(status)).inc()
            self._telemetry.seconds.labels(method, route).observe(time.perf_counter() - began)


def _template(scope: Scope) -> str:
    """Return the route's path with names in the place of values; included routers keep only their part of it."""
    if "route" not in scope:
        return "none"
    names = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items()}
    return "/".join(names.get(part, part) for part in scope["path"].split("/"))


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
