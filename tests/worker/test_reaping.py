"""After an outage every lease is over: nobody is robbed before its worker had a whole lease's time to renew it."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from core.db import engine
from tests.core.db.given import let_lease_end
from tests.service import eventually
from tests.worker.conftest import Desk
from tests.worker.test_housekeeping import Clock, make_housekeeping
from worker.housekeeping import Contact, Housekeeping


def silent_job(desk: Desk) -> str:
    """Return a running job whose lease is over."""
    job_id = desk.submit(epochs=1)
    assert desk.claim() is not None
    let_lease_end(desk.site.database, job_id)
    return job_id


def keeper_with(desk: Desk, clock: Clock) -> tuple[Housekeeping, Contact]:
    housekeeping = make_housekeeping(desk)
    housekeeping._contact = Contact(desk.site.settings.lease_seconds, clock)
    return housekeeping, housekeeping._contact


def test_lease_that_is_over_is_left_alone_for_one_whole_lease(make_desk: Callable[..., Desk]) -> None:
    desk, clock = make_desk(lease_seconds=30.0), Clock()
    job_id = silent_job(desk)
    housekeeping, _ = keeper_with(desk, clock)
    for seconds in (0.0, 29.0):
        clock.now += seconds
        housekeeping.tick()
        assert desk.job(job_id).state == "running"
    clock.now += 1.0
    housekeeping.tick()
    assert desk.job(job_id).state == "queued"


def test_wait_begins_anew_when_the_database_was_away(
    make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.05)
    desk, clock = make_desk(lease_seconds=30.0, reap_seconds=0.02), Clock()
    job_id = silent_job(desk)
    housekeeping, contact = keeper_with(desk, clock)
    housekeeping.start()
    try:
        assert eventually(lambda: contact._last == clock.now)
        clock.now += 20.0
        assert eventually(lambda: contact._last == clock.now)
        with desk.site.database.session_scope() as holding:  # SQLite's one writer: the database is away for others
            holding.execute(text("SELECT 1"))
            assert eventually(lambda: contact._since is None, 5.0)
        assert eventually(lambda: contact._since is not None)
        clock.now += 20.0
        assert eventually(lambda: contact._last == clock.now)
        assert contact.seconds == 20.0
        assert desk.job(job_id).state == "running"
        clock.now += 10.0
        assert eventually(lambda: desk.job(job_id).state == "queued")
    finally:
        housekeeping.stop()
