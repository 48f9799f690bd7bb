"""What all attempts of one worker share."""

import threading
from dataclasses import dataclass, field

from core.db.engine import Database
from core.process import Template
from core.settings import Settings
from core.storage import Storage
from worker.devices import Devices
from worker.ringing import Ringing

TRAINER = "core.train.run.main"
PRELOAD = ("core.train.preload",)
SPARE = "core.train.preflight.warming.table"
"""A trainer checks its spec first."""


@dataclass
class Shutdown:
    """How far a stop was asked for: drained at the first signal, at once at the second."""

    draining: threading.Event = field(default_factory=threading.Event)
    at_once: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """Take one more signal."""
        if self.draining.is_set():
            self.at_once.set()
        self.draining.set()


@dataclass(frozen=True)
class Site:
    """A worker's database, storage, template and devices."""

    worker_id: str
    host: str
    settings: Settings
    database: Database
    storage: Storage
    template: Template
    devices: Devices
    ringing: Ringing
    shutdown: Shutdown = field(default_factory=Shutdown)
    trainer: str = TRAINER
    """Dotted name of the entry point; tests of the supervisor put a trainer without torch here."""
