"""Threads against each other on a real database. Who wins is chance; that exactly one wins is not."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select

from core.db import jobs, leases
from core.db.engine import Database
from core.db.leases import AttemptEnd
from core.db.tables import Attempt, Event, Job
from core.errors import Conflict, IdempotencyMismatch, OwnershipLost
from tests.core.db.given import (
    PROJECT,
    claimed,
    crash,
    event_types,
    finish,
    let_lease_end,
    new_job,
    publish,
    queued,
    read,
    reap,
    running,
)
from tests.core.db.patience import said
from tests.core.db.promises import assert_kept
from tests.repetitions import repetitions

ROUNDS = repetitions(8, 100)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make the calls at the same moment, and return what each gave or raised."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except (OwnershipLost, Conflict, IdempotencyMismatch) as error:
            return type(error)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_eight_workers_claim_two_hundred_jobs_once_each(database: Database) -> None:
    with database.session_scope() as session:
        ids = [jobs.create(session, new_job())[0].id for _ in range(200)]

    def work(number: int) -> list[str]:
        taken = []
        while True:
            claim = said(database, lambda session: leases.claim(session, f"wk_{number}", ["cpu"], host="here"))
            if claim is None:
                return taken
            taken.append(claim.job_id)

    with ThreadPoolExecutor(8) as pool:
        taken = [job_id for part in pool.map(work, range(8)) for job_id in part]
    assert sorted(taken) == ids
    with database.session_scope(write=False) as session:
        assert session.scalar(select(func.count()).select_from(Attempt)) == 200


def test_reaper_or_heartbeat(database: Database) -> None:
    for _ in range(ROUNDS):
        claim = running(database)
        let_lease_end(database, claim.job_id)

        def beat(claim: leases.Claim = claim) -> str:
            with database.session_scope() as session:
                return leases.heartbeat(session, claim.job_id, claim.fence)

        reaped, answer = at_once(lambda: reap(database), beat)
        kept = read(database, claim.job_id).state == "running"
        assert (answer, reaped) == ("run", []) if kept else (answer, reaped) == (OwnershipLost, [claim.job_id])
        if kept:
            finish(database, claim)
        else:
            finish(database, claimed(database))


def test_four_reapers_take_a_job_once(database: Database) -> None:
    for _ in range(ROUNDS):
        claim = running(database)
        let_lease_end(database, claim.job_id)
        answers = at_once(*[lambda: reap(database)] * 4)
        assert sorted(map(len, answers)) == [0, 0, 0, 1]
        assert event_types(database, claim.job_id).count("job.lost") == 1
        finish(database, claimed(database))


@pytest.mark.parametrize("wish", [jobs.request_cancel, jobs.request_pause], ids=["cancel", "pause"])
def test_a_wish_or_the_end(database: Database, wish: Callable[..., Any]) -> None:
    for _ in range(ROUNDS):
        claim = running(database)

        def ask(job_id: str = claim.job_id) -> str:
            with database.session_scope() as session:
                return wish(session, PROJECT, job_id).desired

        ended, asked = at_once(lambda claim=claim: finish(database, claim), ask)
        assert ended is None
        assert asked in {Conflict, "cancel", "pause"}
        assert jobs.wire_status(read(database, claim.job_id)) == "succeeded"


def test_cancel_or_claim(database: Database) -> None:
    for _ in range(ROUNDS):
        with database.session_scope() as session:
            job_id = jobs.create(session, new_job())[0].id

        def claim() -> leases.Claim | None:
            with database.session_scope() as session:
                return leases.claim(session, "wk_one", ["cpu"], host="here")

        def cancel(job_id: str = job_id) -> str:
            with database.session_scope() as session:
                return jobs.wire_status(jobs.request_cancel(session, PROJECT, job_id))

        taken, status = at_once(claim, cancel)
        assert status == ("cancelled" if taken is None else "cancelling")
        if taken is not None:
            with database.session_scope() as session:
                assert leases.pause(session, job_id, taken.fence, end=AttemptEnd()) == "cancelled"
        assert event_types(database, job_id)[-1] == "job.cancelled"


def test_publish_or_reaper(database: Database) -> None:
    for _ in range(ROUNDS):
        claim = running(database)
        let_lease_end(database, claim.job_id)
        published, reaped = at_once(lambda claim=claim: publish(database, claim, 1), lambda: reap(database))
        job = read(database, claim.job_id)
        assert (job.epochs_done, job.checkpoint_epoch) == ((1, 1) if published == "run" else (0, None))
        if reaped:
            finish(database, claimed(database))
        else:
            assert published == "run"
            finish(database, claim)


def test_crash_or_reaper(database: Database) -> None:
    """Both give the job back, but one attempt ends once and uses up one budget once."""
    for _ in range(ROUNDS):
        claim = running(database)
        let_lease_end(database, claim.job_id)
        crashed, reaped = at_once(lambda claim=claim: crash(database, claim), lambda: reap(database))
        assert (crashed, reaped) in [("queued", []), (OwnershipLost, [claim.job_id])]
        job = read(database, claim.job_id)
        assert (job.crashes_no_progress, job.losses_no_progress) == ((1, 0) if crashed == "queued" else (0, 1))
        finish(database, claimed(database))
    assert_kept(database)


@pytest.mark.parametrize("wish", [jobs.request_cancel, jobs.request_pause], ids=["cancel", "pause"])
def test_a_wish_or_the_reaper(database: Database, wish: Callable[..., Any]) -> None:
    """A wish that was accepted is kept, whether it came before the loss or after it."""
    for _ in range(ROUNDS):
        claim = running(database)
        let_lease_end(database, claim.job_id)

        def ask(job_id: str = claim.job_id) -> str:
            with database.session_scope() as session:
                return jobs.wire_status(wish(session, PROJECT, job_id))

        status, reaped = at_once(ask, lambda: reap(database))
        assert status in {"cancelling", "cancelled", "pausing", "paused"}
        if not reaped:  # a locked row is passed over; the next round takes it
            assert reap(database) == [claim.job_id]
        assert read(database, claim.job_id).state == ("cancelled" if wish is jobs.request_cancel else "paused")
    assert_kept(database)


def test_pause_and_resume_and_cancel_of_a_waiting_job(database: Database) -> None:
    for _ in range(ROUNDS):
        job_id = queued(database).id

        def ask(wish: Callable[..., Any], job_id: str = job_id) -> str:
            with database.session_scope() as session:
                return jobs.wire_status(wish(session, PROJECT, job_id))

        wishes = [jobs.request_pause, jobs.request_resume, jobs.request_cancel]
        answers = at_once(*[lambda wish=wish: ask(wish) for wish in wishes])
        assert answers[2] == "cancelled"
        assert read(database, job_id).state == "cancelled"
    assert_kept(database)


def test_a_claim_from_two_queues_hides_no_job_from_the_worker_of_one(database: Database) -> None:
    best, other = queued(database, queue="cpu", priority=1).id, queued(database, queue="gpu").id
    with database.session_scope() as session:
        first = leases.claim(session, "wk_one", ["cpu", "gpu"], host="here")
        assert first is not None
        assert first.job_id == best
        if database.engine.dialect.name == "sqlite":  # the second worker could not even begin
            session.commit()
        with database.session_scope() as second_session:
            second = leases.claim(second_session, "wk_two", ["gpu"], host="here")
    assert second is not None
    assert second.job_id == other


def test_twenty_bodies_with_one_key_make_one_job(database: Database) -> None:
    def post(number: int) -> str:
        with database.session_scope() as session:
            return jobs.create(session, new_job(idempotency_key="raced", body_sha256=str(number)))[0].id

    answers = at_once(*[lambda number=number: post(number) for number in range(20)])
    assert Counter(map(str, answers))[str(IdempotencyMismatch)] == 19
    with database.session_scope(write=False) as session:
        assert session.scalars(select(Job.id)).all() == [one for one in answers if isinstance(one, str)]


def test_the_event_ids_of_a_job_rise_in_the_order_of_their_commits(database: Database) -> None:
    """A reader that asks for what came after the last id it saw must see every event."""
    claim = running(database)
    seen: list[int] = []

    def beat(stage: str) -> None:
        with database.session_scope() as session:
            leases.heartbeat(session, claim.job_id, claim.fence, stage=stage)

    def poll() -> None:
        while "last" not in stages():
            pass

    def stages() -> list[str]:
        with database.session_scope(write=False) as session:
            last = seen[-1] if seen else 0
            statement = select(Event).where(Event.job_id == claim.job_id, Event.id > last).order_by(Event.id)
            found = session.scalars(statement).all()
        seen.extend(event.id for event in found)
        return [event.body.get("stage", "") for event in found]

    with ThreadPoolExecutor(5) as pool:
        polling = pool.submit(poll)
        list(pool.map(beat, [f"s{number}" for number in range(40)]))
        beat("last")
        polling.result()
    with database.session_scope(write=False) as session:
        written = session.scalars(select(Event.id).where(Event.job_id == claim.job_id).order_by(Event.id)).all()
    assert seen == list(written)
    assert Counter(event_types(database, claim.job_id))["job.stage"] == 41
