"""What every poll asks first: who calls, and whether the job has news. Read together for all who ask at once."""

from asyncio import Future
from collections.abc import Collection, Mapping
from typing import Any, Literal

from fastapi import Request

from api.together import Together
from core import ids
from core.db.asked import Head, answers
from core.db.engine import Database
from core.db.keys import Holder
from core.errors import NotFound

Kind = Literal["key", "any key", "head"]
Question = tuple[Kind, str]


class Heads:
    """Reads keys and the heads of jobs. Belongs to one event loop.

    A request's caller and its job are looked up by one statement in one thread: handing over to a thread and back
    costs more than the statement, most of all on a busy machine.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._together: Together[Question, Any] = Together(self._read)

    def begin(self, request: Request) -> None:
        """Ask for the head of the job in the request's path, to be read with its key."""
        job_id = request.path_params.get("job_id")
        if request.method == "GET" and isinstance(job_id, str) and ids.is_id("job", job_id):
            request.state.head = self._together.put(("head", job_id))

    async def key(self, secret: str) -> Holder | None:
        """Return the key of a secret, none where there is none or it was revoked."""
        key: Holder | None = await self._together.put(("key", secret))
        return key

    async def any_key(self) -> bool:
        """Return whether a key was ever made."""
        return bool(await self._together.put(("any key", "")))

    async def first(self, request: Request, project: str, job_id: str) -> Head:
        """Return the head that was asked for when the request came.

        Raises:
            NotFound: the project has no such job.
        """
        begun: Future[Head | None] | None = getattr(request.state, "head", None)
        return _of(project, job_id, await begun) if begun is not None else await self.get(project, job_id)

    async def get(self, project: str, job_id: str) -> Head:
        """Return the head of a job as it is now.

        Raises:
            NotFound: the project has no such job.
        """
        return _of(project, job_id, await self._together.put(("head", job_id)))

    def _read(self, questions: Collection[Question]) -> Mapping[Question, Any]:
        asked: dict[Kind, list[str]] = {"key": [], "any key": [], "head": []}
        for kind, what in questions:
            asked[kind].append(what)
        with self._database.lookup() as connection:
            holders, heads, has_keys = answers(
                connection, secrets=asked["key"], job_ids=asked["head"], asks_for_keys=bool(asked["any key"])
            )
        found: dict[Question, Any] = {("any key", ""): has_keys}
        for job_id, head in heads.items():
            found["head", job_id] = head
        for secret, holder in holders.items():
            found["key", secret] = holder
        return found


def _of(project: str, job_id: str, head: Head | None) -> Head:
    if head is None or head.project != project:
        raise NotFound(f"There is no job {job_id!r} in this project.")
    return head
