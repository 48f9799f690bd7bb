"""Heartbeats from a thread of their own, while the supervisor's thread is busy with files."""

import threading
from collections.abc import Callable

import structlog

from core.db import leases
from core.db.leases import Claim
from core.errors import DatabaseAway, OwnershipLost
from worker.site import Site

log = structlog.get_logger(__name__)


class Pulse:
    """Renews one lease while something else is done."""

    def __init__(self, site: Site, claim: Claim) -> None:
        self._site = site
        self._claim = claim
        self._is_over = threading.Event()

    def during(self, action: Callable[[], None]) -> None:
        """Do something, however long it takes."""
        thread = threading.Thread(target=self._beat, name=f"pulse {self._claim.job_id}", daemon=True)
        thread.start()
        try:
            action()
        finally:
            self._is_over.set()
            thread.join()

    def _beat(self) -> None:
        settings = self._site.settings
        while not self._is_over.wait(settings.heartbeat_seconds):
            try:
                with self._site.database.session_scope() as session:
                    leases.heartbeat(session, self._claim.job_id, self._claim.fence, settings.lease_seconds)
            except DatabaseAway as away:
                log.warning("pulse.database_away", reason=away.detail)
            except OwnershipLost:  # the supervisor's next write is refused, and it stops the trainer
                return
