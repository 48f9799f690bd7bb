"""What an application is made of, built once by `create_app` and handed to its routes."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

from api.access import Gate
from api.answers import Answers
from api.broker import Broker
from api.changes import Changes
from api.heads import Heads
from api.preflight import Preflight
from api.telemetry import Telemetry
from core.db.engine import Database
from core.db.tables import Job
from core.doorbell import Doorbell, make_celery, ring
from core.process import Template
from core.settings import Settings
from core.storage import Storage


@dataclass(frozen=True)
class Services:
    """The database, the files, and what stands beside them."""

    settings: Settings
    database: Database
    storage: Storage
    preflight: Preflight
    changes: Changes
    heads: Heads
    answers: Answers
    telemetry: Telemetry
    gate: Gate
    doorbell: Doorbell | None = field(repr=False)
    """None: embedded, workers poll the database."""
    broker: Broker | None = field(repr=False)

    @classmethod
    def build(cls, settings: Settings, template: Template) -> Self:
        """Make everything from the settings; nothing is started or connected yet."""
        database = Database(settings.sqlalchemy_url)
        heads = Heads(database)
        return cls(
            settings=settings,
            database=database,
            storage=Storage(settings.storage_url),
            preflight=Preflight(template, settings),
            changes=Changes(database),
            heads=heads,
            answers=Answers(),
            telemetry=Telemetry(database, settings),
            gate=Gate(database, settings, heads),
            doorbell=None if settings.is_embedded else make_celery(settings),
            broker=None if settings.broker_url is None else Broker(settings.broker_url.get_secret_value()),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run what runs in the background as long as the block lasts."""
        self.preflight.start()
        async with self.changes.running():
            yield
        await self.preflight.stop()
        self.database.dispose()
        if self.broker is not None:
            self.broker.close()

    def ring(self, job: Job) -> None:
        """Tell workers that a job waits; after the commit, and whether it succeeds or not."""
        if self.doorbell is not None:
            self.telemetry.rung(was_taken=ring(self.doorbell, job.queue, job.id))
