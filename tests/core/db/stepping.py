"""Threads that go through their statements in an order that a test gives: real sessions, real locks, no luck.

Before each statement and each commit a thread of a `Stepper` stops until it is told to go on. One goes at a time, but
for those that wait for another's row lock on PostgreSQL: they go on when the lock is free, as they would anyhow. On
SQLite a writer has the whole database, so who wants to begin while another writes has that one go first.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, text

from core.db.engine import Database

SETTLE_SECONDS = 60.0  # for a statement that is neither done nor waiting for a lock


class Actor(threading.Thread):
    """One who talks to the database."""

    def __init__(self, stepper: "Stepper", play: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._stepper = stepper
        self._play = play
        self.backend = 0
        self.is_going = True
        self.is_done = False
        self.is_writing = False
        self.next = ""
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._stepper.arrive(self, "first statement")
            self._play()
        except BaseException as error:  # noqa: BLE001 - raised again by the test's thread
            self.error = error
        self._stepper.leave(self)


class Stepper:
    """Who may go on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_sqlite = database.engine.dialect.name == "sqlite"
        self._turn = threading.Condition()
        self._actors: list[Actor] = []
        self.waits = 0
        """Steps in which one had to wait for another."""

    def play(self, parts: Sequence[Callable[[], None]], order: Sequence[tuple[int, int]]) -> None:
        """Play the parts side by side: for each (part, statements) of the order that many steps, then all in turn.

        Raises:
            BaseException: what a part raised.
        """
        self._actors = [Actor(self, part) for part in parts]
        with self._listening():
            for actor in self._actors:
                actor.start()
            self._settle()
            for number, statements in order:
                for _ in range(statements):
                    self._step(self._actors[number % len(parts)])
            while not all(actor.is_done for actor in self._actors):
                for actor in self._actors:
                    self._step(actor)
            for actor in self._actors:
                actor.join()
        for actor in self._actors:
            if actor.error is not None:
                raise actor.error

    def arrive(self, actor: Actor, statement: str) -> None:
        """Stop before a statement until it is this one's turn."""
        with self._turn:
            actor.next, actor.is_going = statement, False
            self._turn.notify_all()
            self._turn.wait_for(lambda: actor.is_going)

    def leave(self, actor: Actor) -> None:
        """Note that one has nothing more to say."""
        with self._turn:
            actor.is_done, actor.is_going, actor.is_writing = True, False, False
            self._turn.notify_all()

    def _step(self, actor: Actor) -> None:
        if self._is_sqlite and actor.next == "BEGIN IMMEDIATE" and not actor.is_going:
            writer = next((one for one in self._actors if one.is_writing and not one.is_done), actor)
            self.waits += writer is not actor
            actor = writer
        with self._turn:
            if actor.is_done or actor.is_going:
                return
            actor.is_writing |= actor.next == "BEGIN IMMEDIATE"
            actor.is_going = True
            self._turn.notify_all()
        self._settle()

    def _settle(self) -> None:
        """Wait until everybody stands before a statement, waits for another's lock, or is done."""
        with self._turn:
            going = [actor for actor in self._actors if actor.is_going]
            for _ in range(int(SETTLE_SECONDS / 0.002)):
                if self._turn.wait_for(lambda: not any(actor.is_going for actor in going), timeout=0.002):
                    return
                if not self._is_sqlite and self._wait_for_locks([actor for actor in going if actor.is_going]):
                    self.waits += 1
                    return
        raise AssertionError(f"a statement does not end: {[actor.next for actor in going if actor.is_going]}")

    def _wait_for_locks(self, actors: Sequence[Actor]) -> bool:
        """Tell whether each of them waits for a lock that another has."""
        statement = text("SELECT cardinality(pg_blocking_pids(:pid))")
        with self._database.engine.connect() as connection:
            return all(connection.scalar(statement, {"pid": actor.backend}) for actor in actors)

    @contextmanager
    def _listening(self) -> Generator[None, None, None]:
        def before_statement(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
            actor = threading.current_thread()
            if not isinstance(actor, Actor):
                return
            if statement.startswith("PRAGMA"):  # the first of a transaction; no lock is asked for
                actor.is_writing = False
                return
            if not self._is_sqlite:
                actor.backend = connection.connection.driver_connection.info.backend_pid
            self.arrive(actor, statement)

        def before_commit(_: Connection) -> None:
            actor = threading.current_thread()
            if isinstance(actor, Actor):
                self.arrive(actor, "COMMIT")

        engine = self._database.engine
        event.listen(engine, "before_cursor_execute", before_statement)
        event.listen(engine, "commit", before_commit)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", before_statement)
            event.remove(engine, "commit", before_commit)
