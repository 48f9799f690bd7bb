"""`python -m worker`: claims jobs of its queues and carries them, until it is told to stop.

The first SIGTERM or SIGINT drains: nothing more is claimed, every trainer stops at a checkpoint within
`EPOCHD_STOP_GRACE_SECONDS`, and its job is queued again free of charge. The second one ends at once.
"""

import logging
import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import Protocol

import structlog

from core import ids, versions
from core.db import migrate
from core.db.engine import Database
from core.db.workers import Announcement
from core.errors import ChildFailed, DatabaseAway, SchemaInUse, SchemaNewer
from core.process import Template
from core.settings import Settings, load_settings
from core.storage import Storage
from worker.devices import Devices, visible_devices
from worker.housekeeping import Housekeeping
from worker.ringing import Ringing
from worker.site import PRELOAD, SPARE, Shutdown, Site
from worker.slots import ClaimLoop, Slots

WAIT_SECONDS = 0.2
DATABASE_PAUSE_SECONDS = 1.0
log = structlog.get_logger(__name__)


class Loop(Protocol):
    """Where jobs come from: a database that is polled, or Celery."""

    def start(self) -> None:
        """Begin to claim."""

    @property
    def is_running(self) -> bool:
        """Whether it still works."""

    def join(self, timeout: float) -> bool:
        """Claim nothing more; return whether all attempts have ended within `timeout` seconds."""


class Signals:
    """Counts SIGTERM and SIGINT; handlers only count, for they may run within any line of the main thread."""

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown
        self._came = 0
        self._taken = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._count)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self._came += 1

    def take(self) -> None:
        """Pass on what came."""
        while self._taken < self._came:
            self._taken += 1
            log.info("worker.told_to_stop", signals=self._taken)
            self._shutdown.ask()


def main() -> int:
    """Run a worker; return its exit status."""
    configure_logs()
    settings = load_settings()
    shutdown = Shutdown()
    signals = Signals(shutdown)
    try:
        if not _migrate(settings, shutdown, signals):
            return 0
    except (SchemaInUse, SchemaNewer) as refused:
        sys.stderr.write(f"{refused.detail}\n")
        return 1
    site = make_site(settings, shutdown)
    try:
        return _work(site, signals)
    finally:
        site.template.close()
        site.database.dispose()


def configure_logs() -> None:
    """Write logs to stderr, one line an event."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def make_site(settings: Settings, shutdown: Shutdown) -> Site:
    """Build what the worker's attempts share."""
    settings.caches.mkdir(parents=True, exist_ok=True)
    return Site(
        worker_id=ids.new("wk"),
        host=socket.gethostname(),
        settings=settings,
        database=Database(settings.sqlalchemy_url),
        storage=Storage(settings.storage_url),
        template=Template(PRELOAD, env={"TORCHINDUCTOR_CACHE_DIR": str(settings.caches / "inductor")}, spare=SPARE),
        devices=Devices(visible_devices()),
        ringing=Ringing(settings),
        shutdown=shutdown,
    )


def _migrate(settings: Settings, shutdown: Shutdown, signals: Signals) -> bool:
    """Bring the database up to date, waiting for it where it is away; return False when told to stop meanwhile."""
    while not shutdown.draining.is_set():
        try:
            migrate.upgrade(settings.sqlalchemy_url)
        except DatabaseAway as away:
            log.warning("worker.waits_for_database", reason=away.detail)
            time.sleep(DATABASE_PAUSE_SECONDS)
            signals.take()
        else:
            return True
    return False


def _work(site: Site, signals: Signals) -> int:
    slots = Slots(site)
    try:
        site.template.start()
    except ChildFailed as error:
        log.warning("worker.template_not_started", reason=error.detail)
    housekeeping = Housekeeping(site, slots, _announcement(site))
    housekeeping.start()
    loop = _make_loop(site, slots)
    loop.start()
    log.info("worker.ready", worker_id=site.worker_id, queues=site.settings.queues, slots=site.settings.slots)
    while loop.is_running and not site.shutdown.draining.is_set():
        time.sleep(WAIT_SECONDS)
        signals.take()
    was_told = site.shutdown.draining.is_set()
    site.shutdown.draining.set()
    while not loop.join(WAIT_SECONDS):
        signals.take()
    housekeeping.stop()
    log.info("worker.stopped", was_told=was_told)
    return 0 if was_told else 1


def _make_loop(site: Site, slots: Slots) -> Loop:
    if site.settings.is_embedded:
        return ClaimLoop(site, slots)
    from worker.app import CeleryLoop

    return CeleryLoop(site, slots)


def _announcement(site: Site) -> Announcement:
    settings = site.settings
    return Announcement(
        id=site.worker_id,
        name=settings.worker_name or f"{site.host}-{os.getpid()}",
        host=site.host,
        pid=os.getpid(),
        version=versions.own(),
        queues=settings.queues,
        devices=[device.as_json() for device in site.devices.all],
        slots=settings.slots,
    )


if __name__ == "__main__":
    sys.exit(main())
