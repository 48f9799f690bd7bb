from typing import Any

import pytest
from sqlalchemy import update

from core.db import jobs, leases, series
from core.db.engine import Database
from core.db.leases import Budgets, Claim
from core.db.tables import Job
from tests.core.db.given import (
    PROJECT,
    claimed,
    crash,
    event_types,
    let_lease_end,
    publish,
    queued,
    read,
    reap,
    running,
)


def lose(database: Database, claim: Claim) -> None:
    let_lease_end(database, claim.job_id)
    assert reap(database) == [claim.job_id]


def outcomes(database: Database, job_id: str) -> list[tuple[str | None, str | None]]:
    with database.session_scope(write=False) as session:
        return [(attempt.outcome, attempt.code) for attempt in series.attempts(session, job_id)]


def ask(database: Database, action: Any, claim: Claim) -> None:
    with database.session_scope() as session:
        action(session, PROJECT, claim.job_id)


class TestRequeue:
    def test_a_crashed_job_waits_and_is_tried_again(self, database: Database) -> None:
        claim = running(database)
        assert crash(database, claim, delay_seconds=None) == "queued"
        job = read(database, claim.job_id)
        assert (job.state, job.fence, job.crashes_no_progress, job.worker_id) == ("queued", 2, 1, None)
        assert job.run_after is not None
        assert outcomes(database, claim.job_id) == [("crashed", "killed")]
        assert event_types(database, claim.job_id)[-1] == "job.requeued"
        with database.session_scope(write=False) as session:
            (retry,) = series.decisions(session, claim.job_id)[0]
        assert (retry.kind, retry.body["code"], retry.body["delay_seconds"]) == ("retry", "killed", 1.0)

    def test_a_drained_job_is_free_at_once_and_free_of_charge(self, database: Database) -> None:
        claim = running(database)
        for attempt in range(2, 9):
            assert crash(database, claim, "drained", outcome="drained", counts_as=None, delay_seconds=None) == "queued"
            claim = claimed(database)
            assert claim.attempt == attempt
        assert read(database, claim.job_id).crashes_no_progress == 0

    def test_three_crashes_without_an_epoch_are_poison(self, database: Database) -> None:
        claim = running(database)
        assert [crash(database, claim), crash(database, claimed(database))] == ["queued", "queued"]
        assert crash(database, claimed(database)) == "failed"
        job = read(database, claim.job_id)
        assert job.error is not None
        assert (job.state, job.stop_reason, job.error["code"], job.error["attempt"]) == ("failed", "error", "poison", 3)
        assert event_types(database, claim.job_id)[-1] == "job.failed"

    def test_crashes_with_an_epoch_between_them_are_not(self, database: Database) -> None:
        claim = running(database)
        for epoch in range(1, 6):
            publish(database, claim, epoch)
            assert crash(database, claim) == "queued"
            claim = claimed(database)

    def test_the_callers_budgets_count(self, database: Database) -> None:
        assert crash(database, running(database), budgets=Budgets(crashes=1)) == "failed"

    def test_the_spec_may_allow_fewer_attempts(self, database: Database) -> None:
        claim = running(database, spec={"execution": {"max_attempts": 2}})
        publish(database, claim, 1)
        assert crash(database, claim) == "queued"
        claim = claimed(database)
        publish(database, claim, 2)
        assert crash(database, claim) == "failed"
        error = read(database, claim.job_id).error
        assert error is not None
        assert error["code"] == "killed"

    def test_full_disks_wait_twice_as_long_each_time(self, database: Database) -> None:
        claim = running(database)
        for _ in range(3):
            assert crash(database, claim, "disk_full", counts_as=None, delay_seconds=None) == "queued"
            with database.session_scope() as session:
                session.execute(update(Job).values(run_after=None))
            claim = claimed(database)
        with database.session_scope(write=False) as session:
            decisions = series.decisions(session, claim.job_id)[0]
        assert [decision.body["delay_seconds"] for decision in decisions] == [60.0, 120.0, 240.0]

    def test_full_disks_are_not_among_the_attempts_that_the_spec_allows(self, database: Database) -> None:
        claim = running(database, spec={"execution": {"max_attempts": 2}})
        for _ in range(3):
            assert crash(database, claim, "disk_full", counts_as=None) == "queued"
            claim = claimed(database)
        assert crash(database, claim) == "queued"
        assert crash(database, claimed(database)) == "failed"

    @pytest.mark.parametrize(
        ("wish", "state"), [(jobs.request_cancel, "cancelled"), (jobs.request_pause, "paused")], ids=["cancel", "pause"]
    )
    def test_the_owners_wish_is_honoured(self, database: Database, wish: Any, state: str) -> None:
        claim = running(database)
        ask(database, wish, claim)
        assert crash(database, claim) == state
        assert jobs.wire_status(read(database, claim.job_id)) == state
        assert event_types(database, claim.job_id)[-1] == f"job.{state}"


class TestReap:
    def test_leaves_jobs_with_a_live_lease_alone(self, database: Database) -> None:
        claim = running(database)
        assert reap(database) == []
        assert read(database, claim.job_id).state == "running"

    def test_requeues_a_job_whose_lease_is_over(self, database: Database) -> None:
        claim = running(database)
        lose(database, claim)
        job = read(database, claim.job_id)
        assert (job.state, job.fence, job.losses_no_progress, job.run_after) == ("queued", 2, 1, None)
        assert outcomes(database, claim.job_id) == [("lost", "lost")]
        assert event_types(database, claim.job_id)[-1] == "job.lost"

    def test_again_finds_nothing(self, database: Database) -> None:
        lose(database, running(database))
        assert reap(database) == []

    def test_five_losses_without_an_epoch_are_poison(self, database: Database) -> None:
        job_id = queued(database).id
        for _ in range(5):
            assert read(database, job_id).state == "queued"
            lose(database, claimed(database))
        assert read(database, job_id).state == "failed"

    @pytest.mark.parametrize(
        ("wish", "state"), [(jobs.request_cancel, "cancelled"), (jobs.request_pause, "paused")], ids=["cancel", "pause"]
    )
    def test_the_owners_wish_is_honoured(self, database: Database, wish: Any, state: str) -> None:
        claim = running(database)
        ask(database, wish, claim)
        lose(database, claim)
        assert jobs.wire_status(read(database, claim.job_id)) == state

    def test_takes_so_many_at_a_time(self, database: Database) -> None:
        claims = [running(database) for _ in range(3)]
        for claim in claims:
            let_lease_end(database, claim.job_id)
        with database.session_scope() as session:
            assert len(leases.reap(session, limit=2)) == 2
        assert len(reap(database)) == 1
