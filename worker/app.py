"""The Celery worker: one task, one message per job, and the row decides what is done.

    message "a job waits on your queue" → the task claims the best waiting job of that queue → supervises it → returns

The message was acknowledged before: it may be lost, and the housekeeping rings again. A message that finds nothing to
claim returns at once.
"""

import threading
from typing import Any

import structlog
from celery import Celery, Task
from celery.worker import WorkController, state

from core.doorbell import LISTEN_SECONDS, TASK, make_celery
from core.errors import DatabaseAway
from worker.site import Site
from worker.slots import Slots

log = structlog.get_logger(__name__)


def make_app(site: Site, slots: Slots) -> Celery:
    """Return the Celery application with its one task."""
    app = make_celery(site.settings, answer_seconds=LISTEN_SECONDS)

    @app.task(name=TASK, bind=True, shared=False, ignore_result=True, acks_late=False)
    def train(task: Task, job_id: str) -> None:
        """Carry the best waiting job of the message's queue; the id is for people."""
        queue = (task.request.delivery_info or {}).get("routing_key") or site.settings.queues[0]
        try:
            if not slots.carry_one((queue,)):
                log.debug("message.nothing_to_claim", job_id=job_id, queue=queue)
        except DatabaseAway as away:
            log.warning("message.database_away", job_id=job_id, reason=away.detail)

    assert train.name == TASK  # noqa: S101 - the decorator registered it
    return app


class CeleryLoop:
    """Celery's worker in a thread, so that this process keeps its own signals and its own way to stop."""

    def __init__(self, site: Site, slots: Slots) -> None:
        app = make_app(site, slots)
        app.set_default()  # the pool's threads look their tasks up in the default application
        self._controller: Any = WorkController(
            app=app,
            hostname=f"{site.worker_id}@{site.settings.worker_name or 'epochd'}",
            pool="threads",
            concurrency=site.settings.slots,
            queues=",".join(site.settings.queues),
            loglevel="WARNING",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        self._thread = threading.Thread(target=self._run, name="celery")

    def start(self) -> None:
        """Begin to listen; a broker that is away is tried again for ever."""
        _set_should_stop(None)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether Celery still listens."""
        return self._thread.is_alive()

    def join(self, timeout: float) -> bool:
        """Stop listening and wait for the attempts that run; return whether all have ended."""
        _set_should_stop(0)
        self._thread.join(timeout)
        return not self.is_running

    def _run(self) -> None:
        try:
            self._controller.start()
        except Exception:  # the boundary of a thread: the process ends and is started again
            log.exception("celery.ended")


def _set_should_stop(status: int | None) -> None:
    """Set Celery's one flag per process: the loops of its workers end when it is not None."""
    celery_state: Any = state
    celery_state.should_stop = status
