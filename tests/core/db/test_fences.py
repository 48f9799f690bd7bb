"""What keeps two workers from one job: transactions that are whole or not at all, rows that are locked or passed by."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core.db import leases
from core.db.engine import Database
from core.db.leases import AttemptEnd, Checkpoint, Claim
from core.db.states import TERMINAL
from core.db.tables import Base, Event
from core.db.transitions import move
from core.errors import OwnershipLost
from tests.core.db.given import claimed, crash, finish, let_lease_end, publish, queued, read, reap, running

STARTED: dict[str, Any] = {"resolved_spec": {}, "numerics": {"threads": 1}, "from_epoch": 0}
WRITES: dict[str, Callable[[Session, Claim], Any]] = {
    "claim": lambda s, c: leases.claim(s, "wk_two", ["cpu"], host="there"),
    "start": lambda s, c: leases.start(s, c.job_id, c.fence, **STARTED),
    "heartbeat": lambda s, c: leases.heartbeat(s, c.job_id, c.fence, stage="saving"),
    "publish": lambda s, c: leases.publish(
        s,
        c.job_id,
        c.fence,
        checkpoint=Checkpoint(key="two", digest="s", epoch=2),
        rows=[{"epoch": 2}],
        decisions=[{"kind": "stop_when", "epoch": 2}],
    ),
    "finish": lambda s, c: leases.finish(
        s, c.job_id, c.fence, state="succeeded", stop_reason="completed", end=AttemptEnd()
    ),
    "pause": lambda s, c: leases.pause(s, c.job_id, c.fence, end=AttemptEnd()),
    "requeue": lambda s, c: leases.requeue(
        s, c.job_id, c.fence, outcome="crashed", end=AttemptEnd(), counts_as="crash"
    ),
    "reap": lambda s, c: leases.reap(s),
}


class Cut(Exception):
    """The process ends just before the commit."""


def everything(database: Database) -> dict[str, list[Any]]:
    """Read every row of every table."""
    with database.session_scope(write=False) as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all())) for table in Base.metadata.sorted_tables
        }


def cut_before_the_commit(database: Database, write: Callable[[Session], Any]) -> None:
    with database.session_scope() as session:
        write(session)
        raise Cut


@pytest.mark.parametrize("write", WRITES)
def test_what_is_not_committed_leaves_nothing(database: Database, write: str) -> None:
    claim = running(database)
    publish(database, claim, 1, key="one")
    queued(database)
    let_lease_end(database, claim.job_id)
    before = everything(database)
    with pytest.raises(Cut):
        cut_before_the_commit(database, lambda session: WRITES[write](session, claim))
    assert everything(database) == before


def test_a_row_that_has_moved_on_is_not_moved_again(database: Database) -> None:
    claim = running(database)
    stale = read(database, claim.job_id)
    crash(database, claim)
    claimed(database, "wk_two")
    with pytest.raises(OwnershipLost), database.session_scope() as session:
        move(session, stale, "queued", event="job.lost")
    assert read(database, claim.job_id).worker_id == "wk_two"


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_the_event_of_an_end_is_terminal(database: Database, state: str) -> None:
    claim = running(database)
    finish(database, claim, state)
    with database.session_scope(write=False) as session:
        ends = session.scalars(select(Event.type).where(Event.job_id == claim.job_id, Event.is_terminal)).all()
    assert ends == [f"job.{state}"]


@pytest.fixture
def locking(postgres_url: str) -> Iterator[Database]:
    """A PostgreSQL database that waits for a locked row no longer than a test wants to."""
    opened = Database(f"{postgres_url}?options=-c lock_timeout=3000")
    yield opened
    opened.dispose()


@pytest.mark.postgres
class TestRowsThatAreHeld:
    """On PostgreSQL writers work at the same time (on SQLite one after another)."""

    def test_a_claim_passes_by_a_job_that_another_is_just_taking(self, locking: Database) -> None:
        first, second = queued(locking).id, queued(locking).id
        with locking.session_scope() as one, locking.session_scope() as two:
            claims = [leases.claim(session, "wk", ["cpu"], host="here") for session in (one, two)]
        assert [claim and claim.job_id for claim in claims] == [first, second]

    def test_a_reaper_passes_by_a_job_that_another_is_just_taking(self, locking: Database) -> None:
        claim = running(locking)
        let_lease_end(locking, claim.job_id)
        with locking.session_scope() as one, locking.session_scope() as two:
            assert [leases.reap(one), leases.reap(two)] == [[claim.job_id], []]

    def test_a_heartbeat_that_holds_the_row_wins_over_the_reaper(self, locking: Database) -> None:
        claim = running(locking)
        let_lease_end(locking, claim.job_id)
        with ThreadPoolExecutor(1) as pool:
            with locking.session_scope() as beating:
                leases.heartbeat(beating, claim.job_id, claim.fence)
                reaping = pool.submit(reap, locking)
                _until_it_ends_or_waits(reaping.done, beating)
            assert reaping.result() == []
        assert read(locking, claim.job_id).state == "running"


def _until_it_ends_or_waits(has_ended: Callable[[], bool], session: Session) -> None:
    """Wait until another thread is done, or waits for a lock of this session (for 3 s, then it is done)."""
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))")
    while not (has_ended() or session.scalar(waits)):
        time.sleep(0.01)
