"""Telling other workers that a job waits; silent where there is no broker."""

from core.doorbell import Doorbell, make_celery, ring
from core.settings import Settings


class Ringing:
    """The worker's own doorbell: for jobs that it puts back, and for rings that were lost."""

    def __init__(self, settings: Settings) -> None:
        self._app: Doorbell | None = None if settings.is_embedded else make_celery(settings)

    def ring(self, queue: str, job_id: str) -> None:
        """Ring once, where there is a broker; a failure is logged there and costs nothing here."""
        if self._app is not None:
            ring(self._app, queue, job_id)
