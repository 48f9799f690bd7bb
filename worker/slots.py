"""The attempts that this worker runs at the same time, and the one way to a new one."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from core.db import leases
from core.db.claims import waiting
from core.db.commits import Count, watching
from core.errors import ChildFailed, DatabaseAway
from core.faults import hit
from worker.site import Site
from worker.supervisor import Supervisor

LOOK_SECONDS = 0.5
"""Between two looks at a template that is still importing."""
GLANCE_SECONDS = 0.01
"""Between two glances at whether anybody has committed to SQLite's file."""
PAUSE_SECONDS = 1.0
"""After a claim that failed."""
log = structlog.get_logger(__name__)


class Slots:
    """Counts the attempts that run, and claims jobs for those that may."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._running = 0

    @property
    def free(self) -> int:
        """Attempts that may still begin."""
        return self._site.settings.slots - self._running

    def carry_one(self, queues: tuple[str, ...]) -> bool:
        """Claim the best waiting job of some queues and carry it to its end, where there is one.

        Raises:
            DatabaseAway: nothing was claimed.
        """
        if not self._can_begin():
            return False
        with self._taken():
            with self._site.database.session_scope() as session:
                claim = leases.claim(
                    session,
                    self._site.worker_id,
                    queues,
                    host=self._site.host,
                    lease_seconds=self._site.settings.lease_seconds,
                )
                if claim is None:
                    return False
                hit("claim.written")
            hit("claim.committed")
            self._carry(claim)
            return True

    def _can_begin(self) -> bool:
        """Wait for a template that can fork: a job claimed without one would use up its budget for nothing."""
        shutdown, template = self._site.shutdown, self._site.template
        while not shutdown.draining.is_set():
            try:
                template.wait_ready(LOOK_SECONDS)
            except ChildFailed as failed:
                if template.pid is None:
                    log.warning("template.not_there", reason=failed.detail)
                shutdown.draining.wait(LOOK_SECONDS)
            else:
                return True
        return False

    def _carry(self, claim: leases.Claim) -> None:
        with structlog.contextvars.bound_contextvars(job_id=claim.job_id, attempt=claim.attempt):
            log.info("attempt.claimed", fence=claim.fence, from_epoch=claim.epochs_done)
            try:
                Supervisor(self._site, claim).run()
            except Exception:  # the boundary of an attempt: its lease ends, another takes over
                log.exception("attempt.supervisor_failed")

    @contextmanager
    def _taken(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1


class ClaimLoop:
    """The embedded doorbell: one thread per slot looks for work every `poll_seconds` with one indexed query.

    A look only reads: idle slots take no lock, and a fifth of the time that a claim does. On SQLite the next look comes
    at once where somebody has committed.
    """

    def __init__(self, site: Site, slots: Slots) -> None:
        self._site = site
        self._slots = slots
        self._threads = [
            threading.Thread(target=self._loop, name=f"slot {number}") for number in range(site.settings.slots)
        ]

    def start(self) -> None:
        """Begin to claim."""
        for thread in self._threads:
            thread.start()

    @property
    def is_running(self) -> bool:
        """Whether a slot still works."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self, timeout: float) -> bool:
        """Wait for the attempts that run, which end by themselves once the worker drains; return whether all have."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not self.is_running

    def _loop(self) -> None:
        with watching(self._site.database.engine.url) as commits:
            while not self._site.shutdown.draining.is_set():
                self._look(commits)

    def _look(self, commits: Count) -> None:
        """Carry a job where one waits, else rest."""
        draining, before = self._site.shutdown.draining, commits()
        try:
            found = self._is_any_waiting() and self._slots.carry_one(self._site.settings.queues)
        except DatabaseAway as away:
            log.warning("claim.database_away", reason=away.detail)
            draining.wait(PAUSE_SECONDS)
        except Exception:  # the boundary of a thread: a slot that ends is never started again
            log.exception("claim.failed")
            draining.wait(PAUSE_SECONDS)
        else:
            if not found:
                self._rest(commits, before)

    def _rest(self, commits: Count, before: int | None) -> None:
        """Wait until the next look is due: in `poll_seconds`, or once others have committed since `before`."""
        draining = self._site.shutdown.draining
        due = time.monotonic() + self._site.settings.poll_seconds
        while (left := due - time.monotonic()) > 0 and not draining.is_set():
            draining.wait(left if before is None else min(left, GLANCE_SECONDS))
            if commits() != before:
                return

    def _is_any_waiting(self) -> bool:
        with self._site.database.session_scope(write=False) as session:
            return bool(waiting(session, self._site.settings.queues, 1))
