"""What tells whether a job has news, for all requests that ask at the same time."""

from collections.abc import Collection, Mapping

from api.together import Together
from core.db import jobs
from core.db.engine import Database
from core.db.jobs import Head
from core.errors import NotFound


class Heads:
    """Reads the heads of jobs. Belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._together = Together(self._read)

    async def get(self, project: str, job_id: str) -> Head:
        """Return the head of a job as it is now.

        Raises:
            NotFound: the project has no such job.
        """
        head = await self._together.ask(job_id)
        if head is None or head.project != project:
            raise NotFound(f"There is no job {job_id!r} in this project.")
        return head

    def _read(self, job_ids: Collection[str]) -> Mapping[str, Head]:
        with self._database.session_scope(write=False) as session:
            return jobs.heads(session, job_ids)
