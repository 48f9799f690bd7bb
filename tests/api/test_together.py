import asyncio
import threading
from collections.abc import Collection, Mapping

import pytest

from api.together import Together
from core.errors import DatabaseAway


class Table:
    """Squares of small numbers, which can be held back, and what was asked for."""

    def __init__(self) -> None:
        self.asked: list[set[int]] = []
        self.fails = False
        self.opened = threading.Event()
        self.opened.set()
        self.begun = threading.Event()

    def read(self, keys: Collection[int]) -> Mapping[int, int]:
        self.asked.append(set(keys))
        self.begun.set()
        assert self.opened.wait(10)
        if self.fails:
            raise DatabaseAway("gone")
        return {key: key * key for key in keys if key < 10}


def test_questions_that_come_while_a_statement_runs_share_the_next() -> None:
    table = Table()

    async def ask() -> list[int | None]:
        together = Together(table.read)
        table.opened.clear()
        first = asyncio.create_task(together.ask(1))
        await asyncio.to_thread(table.begun.wait, 10)
        others = [asyncio.create_task(together.ask(key)) for key in (2, 3, 2, 11)]
        await asyncio.sleep(0)
        table.opened.set()
        return [await task for task in (first, *others)]

    assert asyncio.run(ask()) == [1, 4, 9, 4, None]
    assert table.asked == [{1}, {2, 3, 11}]


def test_nothing_is_kept_between_questions() -> None:
    table = Table()

    async def ask() -> None:
        together = Together(table.read)
        for _ in range(3):
            assert await together.ask(4) == 16

    asyncio.run(ask())
    assert table.asked == [{4}, {4}, {4}]


def test_a_failure_is_everybodys_and_the_next_question_is_asked_again() -> None:
    table = Table()

    async def ask() -> None:
        together = Together(table.read)
        table.fails = True
        failed = await asyncio.gather(*(together.ask(key) for key in (1, 2)), return_exceptions=True)
        assert [type(failure) for failure in failed] == [DatabaseAway, DatabaseAway]
        table.fails = False
        assert await together.ask(1) == 1

    asyncio.run(ask())


def test_a_request_that_goes_away_takes_nobodys_answer_with_it() -> None:
    table = Table()

    async def ask() -> int | None:
        together = Together(table.read)
        table.opened.clear()
        gone, stays = asyncio.create_task(together.ask(2)), asyncio.create_task(together.ask(2))
        await asyncio.to_thread(table.begun.wait, 10)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        table.opened.set()
        return await stays

    assert asyncio.run(ask()) == 4
