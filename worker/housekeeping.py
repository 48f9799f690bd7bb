"""What a worker does beside its attempts, in a thread: sign of life, lost jobs, lost rings.

every reap_seconds:
    tell that this worker lives
    take jobs whose lease is over away from their workers    after one whole lease of unbroken contact only
    ring again for jobs that wait while a slot is free       a lost message costs seconds
"""

import threading
import time
from collections.abc import Callable

import structlog

from core.db import leases, workers
from core.db.claims import waiting
from core.db.workers import Announcement
from core.errors import DatabaseAway
from core.faults import hit
from worker.site import Site
from worker.slots import Slots

log = structlog.get_logger(__name__)


class Contact:
    """For how long the database has answered without a break.

    After an outage every lease is over, and its owner needs up to one lease to renew it: who reaps sooner takes jobs
    away from workers that are well. A pause of this process (a frozen machine) is such a break too.

    Args:
        longest_gap_seconds: between two answers.
        clock: seconds that only rise.
    """

    def __init__(self, longest_gap_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_gap_seconds = longest_gap_seconds
        self._clock = clock
        self._since: float | None = None
        self._last = 0.0

    def answered(self) -> None:
        """Note an answer."""
        now = self._clock()
        if self._since is None or now - self._last > self._longest_gap_seconds:
            self._since = now
        self._last = now

    def lost(self) -> None:
        """Note that there was none."""
        self._since = None

    @property
    def seconds(self) -> float:
        """Length of the unbroken contact; 0 while there is none."""
        return 0.0 if self._since is None else self._clock() - self._since


class Housekeeping:
    """The thread."""

    def __init__(self, site: Site, slots: Slots, announcement: Announcement) -> None:
        self._site = site
        self._slots = slots
        self._announcement = announcement
        self._is_over = threading.Event()
        self._contact = Contact(site.settings.lease_seconds)
        self._thread = threading.Thread(target=self._loop, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and take the worker off the list."""
        self._is_over.set()
        self._thread.join(timeout=self._site.settings.reap_seconds)
        try:
            with self._site.database.session_scope() as session:
                workers.leave(session, self._site.worker_id)
        except DatabaseAway:
            log.warning("worker.not_signed_off")

    def _loop(self) -> None:
        while True:
            try:
                self.tick()
            except DatabaseAway as away:
                self._contact.lost()
                log.warning("housekeeping.database_away", reason=away.detail)
            except Exception:  # the boundary of a thread: the next round may do better
                self._contact.lost()
                log.exception("housekeeping.failed")
            if self._is_over.wait(self._site.settings.reap_seconds):
                return

    def tick(self) -> None:
        """Do one round.

        Raises:
            DatabaseAway: the round was not finished.
        """
        self._show()
        self._contact.answered()
        if self._contact.seconds >= self._site.settings.lease_seconds:
            self._reap()
        self._ring_again()

    def _show(self) -> None:
        with self._site.database.session_scope() as session:
            if not workers.seen(session, self._site.worker_id):
                workers.announce(session, self._announcement)
            if self._site.shutdown.draining.is_set():
                workers.drain(session, self._site.worker_id)

    def _reap(self) -> None:
        with self._site.database.session_scope() as session:
            lost = leases.reap(session)
            if lost:
                hit("reap.written")
        if lost:
            hit("reap.committed")
            log.warning("housekeeping.reaped", job_ids=lost)

    def _ring_again(self) -> None:
        site = self._site
        if site.settings.is_embedded or site.shutdown.draining.is_set() or self._slots.free <= 0:
            return
        with site.database.session_scope(write=False) as session:
            jobs = waiting(session, site.settings.queues, self._slots.free)
        for job in jobs:
            site.ringing.ring(job.queue, job.job_id)
