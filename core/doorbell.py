"""The doorbell: a Celery message that says "a job waits on your queue". The only place in core that knows Celery.

The message may be lost, doubled or late without harm, for the row in the database is the job. So nothing here waits
for the broker: a POST is answered as fast with a dead or frozen Redis as with a live one.
"""

import queue
import threading
import time
from concurrent.futures import Future
from typing import Any

import structlog
from celery import Celery

from core.faults import hit
from core.settings import Settings

TASK = "epochd.train"
RING_SECONDS = 0.04
"""A caller waits so long for the broker's answer; the sender goes on without it."""
ANSWER_SECONDS = 0.3
"""The broker must connect, and answer, within this when a message is sent."""
LISTEN_SECONDS = 10.0
"""The same for a worker's connection, on which a read may rightly block for a second."""
PAUSE_SECONDS = 1.0
"""After a failure nothing is sent for so long: a frozen broker costs one thread one timeout a second."""
WAITING_RINGS = 1000
log = structlog.get_logger(__name__)


class Doorbell(Celery):
    """A Celery application that sends in a thread of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rings: queue.Queue[tuple[str, str, Future[bool]]] = queue.Queue(WAITING_RINGS)
        self._starting = threading.Lock()
        self._sender: threading.Thread | None = None
        self._silent_until = 0.0

    def hand_over(self, queue_name: str, job_id: str) -> Future[bool] | None:
        """Have one message sent; None where the broker failed a moment ago or too many wait."""
        if time.monotonic() < self._silent_until:
            return None
        answer: Future[bool] = Future()
        try:
            self._rings.put_nowait((queue_name, job_id, answer))
        except queue.Full:
            return None
        with self._starting:
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_all, name="doorbell", daemon=True)
                self._sender.start()
        return answer

    def _send_all(self) -> None:
        while True:
            queue_name, job_id, answer = self._rings.get()
            answer.set_result(time.monotonic() >= self._silent_until and self._send(queue_name, job_id))

    def _send(self, queue_name: str, job_id: str) -> bool:
        try:
            hit("ring.sending")
            self.send_task(TASK, args=[job_id], queue=queue_name, retry=False, ignore_result=True)
            hit("ring.sent")
        except Exception as error:  # noqa: BLE001 - whatever a broken broker raises, the job is in the database
            log.warning("doorbell.not_rung", job_id=job_id, queue=queue_name, error=type(error).__name__)
            self._silent_until = time.monotonic() + PAUSE_SECONDS
            return False
        return True


def make_celery(settings: Settings, *, answer_seconds: float = ANSWER_SECONDS) -> Doorbell:
    """Return the Celery application of this deployment's broker.

    Args:
        settings: `broker_url` must be set.
        answer_seconds: bound of every wait for the broker; workers, which listen, give `LISTEN_SECONDS`.
    """
    if settings.broker_url is None:
        raise ValueError("EPOCHD_BROKER_URL is not set: an embedded service has no doorbell")
    app = Doorbell("epochd", broker=settings.broker_url.get_secret_value(), backend=None, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,  # only late-acknowledged ones: none; False warns
        task_publish_retry=False,
        task_create_missing_queues=True,
        broker_connection_timeout=ANSWER_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=2,
        broker_transport_options={
            "socket_connect_timeout": ANSWER_SECONDS,
            "socket_timeout": answer_seconds,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "max_retries": 0,  # kombu would try again for ever, two seconds apart and more
            "interval_start": 0.0,
        },
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        enable_utc=True,
    )
    return app


def ring(app: Doorbell, queue_name: str, job_id: str) -> bool:
    """Tell the workers of a queue that a job waits; never raises, and takes a few milliseconds at most.

    Returns:
        Whether the broker is known to have the message. False is no reason to worry: workers ring again for jobs
        that wait while a slot is free.
    """
    answer = app.hand_over(queue_name, job_id)
    if answer is None:
        return False
    try:
        return answer.result(RING_SECONDS)
    except TimeoutError:
        return False
