"""Many single questions answered by one statement: those that come while one runs share the next."""

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")

Question = tuple[Key, asyncio.Future[Found | None]]

TURNS = 3
"""So often the event loop goes round before a statement: requests that have arrived by then share it."""


class Together(Generic[Key, Found]):
    """Reads for all who ask at the same time. Belongs to one event loop.

    Nothing is kept: every question is answered by a statement that began after it was asked. One request alone waits
    no longer than with a statement of its own; a hundred together cost one thread and one transaction.

    Args:
        read: finds the answers to several questions, in a thread; a question without one is left out.
    """

    def __init__(self, read: Callable[[Collection[Key]], Mapping[Key, Found]]) -> None:
        self._read = read
        self._asked: list[Question[Key, Found]] = []
        self._answering: asyncio.Task[None] | None = None

    async def ask(self, key: Key) -> Found | None:
        """Return the answer, None where there is none.

        Raises:
            DatabaseAway: as `read` does.
        """
        return await self.put(key)

    def put(self, key: Key) -> asyncio.Future[Found | None]:
        """Put a question and go on; awaiting the answer is as `ask`. It may also be left alone."""
        answer: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_retrieved)
        self._asked.append((key, answer))
        if self._answering is None:
            self._answering = asyncio.create_task(self._answer_all())
        return answer

    async def _answer_all(self) -> None:
        try:
            while self._asked:
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                asked = self._asked.copy()
                self._asked.clear()
                await self._answer(asked)
        finally:
            self._answering = None

    async def _answer(self, asked: list[Question[Key, Found]]) -> None:
        try:
            found = await run_in_threadpool(self._read, {key for key, _ in asked})
        except Exception as error:  # noqa: BLE001 - each of those who asked raises it
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for key, answer in asked:
            if not answer.done():  # its request may have been cancelled
                answer.set_result(found.get(key))


def _retrieved(answer: asyncio.Future[Found | None]) -> None:
    """Look at a failure, so that asyncio does not complain of one that nobody waited for."""
    if not answer.cancelled():
        answer.exception()
