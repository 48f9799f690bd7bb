"""Waiting for a job to change: one task per process looks at the versions of all jobs that somebody waits for."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping

import structlog
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from core.db import jobs
from core.db.engine import Database
from core.errors import DatabaseAway

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
OUTAGE_POLL_SECONDS = 1.0
"""Pause between two looks while the database is away."""


class Changes:
    """Wakes those who wait for a job's next version. Belongs to one event loop.

    A waiter costs a future, no thread and no query of its own: 500 pollers are one statement every 100 ms.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: defaultdict[str, set[_Waiter]] = defaultdict(set)
        self._is_needed = asyncio.Event()
        self._is_closed = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch as long as the block lasts."""
        task = asyncio.create_task(self._watch(), name="changes")
        try:
            yield
        finally:
            self.close()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def is_closed(self) -> bool:
        """Whether the service is stopping: nobody waits any more."""
        return self._is_closed

    def waiting(self) -> int:
        """Return how many wait."""
        return sum(map(len, self._waiters.values()))

    def close(self) -> None:
        """Wake everybody: the service is stopping. Called in the event loop."""
        self._is_closed = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.wake()

    async def wait(self, job_id: str, version: int, seconds: float, request: Request) -> bool:
        """Wait until a job's version is another one.

        Args:
            job_id: the job, also one that is deleted meanwhile.
            version: what the caller has seen.
            seconds: the longest wait.
            request: its client's going ends the wait.

        Returns:
            Whether it changed; False after `seconds`, when the client has gone, or when the service stops.
        """
        if self._is_closed or seconds <= 0:
            return False
        waiter = _Waiter(version)
        gone = asyncio.create_task(_disconnected(request))
        self._waiters[job_id].add(waiter)
        self._is_needed.set()
        try:
            await asyncio.wait({waiter.changed, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            self._waiters[job_id].discard(waiter)
            if not self._waiters[job_id]:
                del self._waiters[job_id]
        return waiter.changed.done() and not self._is_closed

    async def _watch(self) -> None:
        while True:
            if not self._waiters:
                self._is_needed.clear()
                await self._is_needed.wait()
            try:
                asked = list(self._waiters)
                self._compare(asked, await run_in_threadpool(self._versions, asked))
                await asyncio.sleep(POLL_SECONDS)
            except DatabaseAway:
                await asyncio.sleep(OUTAGE_POLL_SECONDS)
            except Exception:
                log.exception("changes.failed")
                await asyncio.sleep(OUTAGE_POLL_SECONDS)

    def _versions(self, job_ids: list[str]) -> Mapping[str, int]:
        with self._database.lookup() as connection:
            return jobs.versions(connection, job_ids)

    def _compare(self, asked: list[str], versions: Mapping[str, int]) -> None:
        """Wake whose job is newer than what they have seen, or gone.

        A waiter that came during the query may have seen more than the query: an older version wakes nobody.
        """
        for job_id in asked:
            for waiter in self._waiters.get(job_id, ()):
                if job_id not in versions or versions[job_id] > waiter.version:
                    waiter.wake()


class _Waiter:
    """One request that waits."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.changed.done():
            self.changed.set_result(None)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
