import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.exc import IntegrityError

from core.db import jobs, leases, series
from core.db.clock import now
from core.db.engine import Database
from core.db.leases import ArtifactFile, AttemptEnd, Checkpoint, Claim
from core.db.tables import Attempt, Epoch, Event, Job
from core.errors import OwnershipLost
from tests.core.db.given import (
    PROJECT,
    claimed,
    crash,
    event_types,
    finish,
    let_lease_end,
    publish,
    queued,
    read,
    reap,
    running,
)


def attempts(database: Database, job_id: str) -> list[Attempt]:
    with database.session_scope(write=False) as session:
        return series.attempts(session, job_id)


def ask(database: Database, action: Any, claim: Claim) -> None:
    with database.session_scope() as session:
        action(session, PROJECT, claim.job_id)


class TestClaim:
    def test_of_an_empty_queue_is_none(self, database: Database) -> None:
        with database.session_scope() as session:
            assert leases.claim(session, "wk_one", ["cpu"], host="here") is None

    def test_takes_the_highest_priority_then_the_oldest(self, database: Database) -> None:
        low, first, second = (queued(database, priority=p).id for p in (0, 5, 5))
        assert [claimed(database).job_id for _ in range(3)] == [first, second, low]

    def test_takes_only_jobs_of_its_queues(self, database: Database) -> None:
        queued(database, queue="gpu")
        with database.session_scope() as session:
            assert leases.claim(session, "wk_one", ["cpu", "big"], host="here") is None
            assert leases.claim(session, "wk_one", ["cpu", "gpu"], host="here") is not None

    def test_a_second_claim_of_the_same_job_returns_none(self, database: Database) -> None:
        running(database)
        with database.session_scope() as session:
            assert leases.claim(session, "wk_two", ["cpu"], host="here") is None

    def test_gives_a_fence_a_lease_and_an_attempt(self, database: Database) -> None:
        claim = running(database, name="mine")
        job = read(database, claim.job_id)
        (attempt,) = attempts(database, claim.job_id)
        assert (job.state, job.stage, job.fence, job.attempt) == ("running", "starting", 1, 1)
        assert (claim.fence, claim.attempt, claim.name) == (1, 1, "mine")
        assert (attempt.number, attempt.fence, attempt.worker_id, attempt.from_epoch) == (1, 1, "wk_one", 0)
        assert attempt.ended_at is None
        assert timedelta(seconds=29) < claim.lease_until - attempt.started_at < timedelta(seconds=31)
        assert event_types(database, claim.job_id) == ["job.created", "job.claimed"]

    def test_waits_for_the_end_of_a_back_off(self, database: Database) -> None:
        claim = running(database)
        crash(database, claim, delay_seconds=60.0)
        with database.session_scope() as session:
            assert leases.waiting(session, ["cpu"]) == []
            assert leases.claim(session, "wk_one", ["cpu"], host="here") is None
            session.execute(update(Job).values({"run_after": now(-0.5)}))
        assert claimed(database).attempt == 2

    def test_waiting_lists_the_best_first_without_taking_it(self, database: Database) -> None:
        low, high = queued(database, priority=-1).id, queued(database, priority=1).id
        with database.session_scope(write=False) as session:
            assert leases.waiting(session, ["cpu"]) == [(high, "cpu"), (low, "cpu")]
            assert leases.waiting(session, ["cpu"], limit=1) == [(high, "cpu")]


class TestStart:
    def test_keeps_the_numerics_of_the_first_attempt_and_records_a_change(self, database: Database) -> None:
        first, other = {"threads": 1}, {"threads": 2}
        claim = running(database)
        for numerics in (first, other):
            with database.session_scope() as session:
                leases.start(
                    session,
                    claim.job_id,
                    claim.fence,
                    resolved_spec={"seed": 1},
                    numerics=numerics,
                    from_epoch=0,
                    pid=7,
                )
            crash(database, claim)
            claim = claimed(database)
            assert (claim.numerics, claim.resolved_spec) == (first, {"seed": 1})
        with database.session_scope(write=False) as session:
            changes = [d for d in series.decisions(session, claim.job_id)[0] if d.kind == "numerics_changed"]
        assert [(d.attempt, d.body) for d in changes] == [(2, {"before": first, "now": other})]

    def test_the_first_start_is_the_jobs_start(self, database: Database) -> None:
        claim = running(database)
        started = []
        for _ in range(2):
            with database.session_scope() as session:
                leases.start(session, claim.job_id, claim.fence, resolved_spec={}, numerics={}, from_epoch=0)
            started.append(read(database, claim.job_id).started_at)
        assert started[0] is not None
        assert started[0] == started[1]


class TestHeartbeat:
    def test_renews_the_lease_and_says_what_the_owner_wants(self, database: Database) -> None:
        claim = running(database)
        let_lease_end(database, claim.job_id)
        with database.session_scope() as session:
            assert leases.heartbeat(session, claim.job_id, claim.fence) == "run"
        assert reap(database) == []
        ask(database, jobs.request_cancel, claim)
        with database.session_scope() as session:
            assert leases.heartbeat(session, claim.job_id, claim.fence) == "cancel"

    def test_without_news_is_no_new_version(self, database: Database) -> None:
        claim = running(database)
        before = read(database, claim.job_id).version
        with database.session_scope() as session:
            leases.heartbeat(session, claim.job_id, claim.fence, stage="starting")
        assert read(database, claim.job_id).version == before

    def test_with_news_is_a_new_version_and_a_new_stage_an_event(self, database: Database) -> None:
        claim = running(database)
        before = read(database, claim.job_id).version
        for _ in range(2):
            with database.session_scope() as session:
                leases.heartbeat(session, claim.job_id, claim.fence, progress={"epoch": 1}, stage="training")
        job = read(database, claim.job_id)
        assert (job.progress, job.stage, job.version > before) == ({"epoch": 1}, "training", True)
        assert event_types(database, claim.job_id).count("job.stage") == 1


class TestPublish:
    def test_moves_pointer_rows_and_decisions_together(self, database: Database) -> None:
        claim = running(database)
        with database.session_scope() as session:
            desired = leases.publish(
                session,
                claim.job_id,
                claim.fence,
                checkpoint=Checkpoint(key="k", digest="s", epoch=2),
                rows=[{"epoch": 1, "train": {"loss": 0.5}}, {"epoch": 2, "train": {"loss": 0.25}}],
                decisions=[{"kind": "early_stopping", "epoch": 2, "wait": 1}],
                best={"epoch": 2, "monitor": "train_loss", "value": 0.25},
                progress={"epoch": 2, "epochs": 3},
                active_seconds=1.5,
            )
        job = read(database, claim.job_id)
        assert desired == "run"
        assert (job.epochs_done, job.checkpoint_key, job.checkpoint_epoch) == (2, "k", 2)
        assert (job.best, job.active_seconds) == ({"epoch": 2, "monitor": "train_loss", "value": 0.25}, 1.5)
        assert job.latest_metrics == {"epoch": 2, "train": {"loss": 0.25}}
        with database.session_scope(write=False) as session:
            rows, has_more = series.rows(session, claim.job_id)
            decisions = series.decisions(session, claim.job_id)[0]
        assert ([row.body for row in rows], has_more) == (
            ['{"epoch":1,"train":{"loss":0.5}}', '{"epoch":2,"train":{"loss":0.25}}'],
            False,
        )
        assert [row.attempt for row in rows] == [1, 1]
        assert [(d.kind, d.epoch, d.body) for d in decisions] == [("early_stopping", 2, {"wait": 1})]
        assert event_types(database, claim.job_id)[-1] == "job.epoch"

    def test_decisions_of_several_epochs_stay_in_order_and_any_text_is_kept(self, database: Database) -> None:
        claim = running(database)
        said = [{"kind": "retry", "epoch": None, "why": 'quoted "\\" {a,b} NULL \u00e4'}, {"kind": "lr", "epoch": 2}]
        said += [{"kind": "early_stopping", "epoch": epoch, "wait": epoch} for epoch in range(1, 30)]
        rows = [{"epoch": epoch, "why": 'a "\\" {b,c}'} for epoch in range(1, 30)]
        with database.session_scope() as session:
            checkpoint = Checkpoint(key="k", digest="s", epoch=29)
            leases.publish(session, claim.job_id, claim.fence, checkpoint=checkpoint, rows=rows, decisions=said)
        with database.session_scope(write=False) as session:
            decisions = series.decisions(session, claim.job_id)[0]
            bodies = [json.loads(row.body) for row in series.rows(session, claim.job_id)[0]]
        assert [{"kind": d.kind, "epoch": d.epoch, **d.body} for d in decisions] == said
        assert bodies == rows

    def test_is_two_statements_on_postgresql(self, database: Database) -> None:
        claim, seen = running(database), list[str]()
        event.listen(database.engine, "before_cursor_execute", lambda _c, _u, statement, *_: seen.append(statement))
        publish(database, claim, 1, 2)
        written = [statement.split()[0] for statement in seen if "job" in statement]
        assert written == (["SELECT", "WITH"] if "WITH" in written else ["SELECT", "INSERT", "UPDATE", "INSERT"])
        assert ("WITH" in written) == (database.engine.dialect.name == "postgresql")

    def test_keeps_the_checkpoint_before(self, database: Database) -> None:
        claim = running(database)
        publish(database, claim, 1, key="one")
        publish(database, claim, 2, key="two")
        crash(database, claim)
        again = claimed(database)
        assert again.checkpoint == Checkpoint(key="two", digest="c" * 64, epoch=2)
        assert again.previous_checkpoint == Checkpoint(key="one", digest="c" * 64, epoch=1)

    def test_the_same_again_changes_nothing(self, database: Database) -> None:
        claim = running(database)
        publish(database, claim, 1, key="one")
        before = read(database, claim.job_id).version
        assert publish(database, claim, 1, key="one") == "run"
        assert read(database, claim.job_id).version == before

    @pytest.mark.parametrize("epochs", [[2], [1, 3], [2, 1], [0, 2], [1, 1]], ids=str)
    def test_rows_that_leave_a_gap_are_refused_whole(self, database: Database, epochs: list[int]) -> None:
        claim = running(database)
        with pytest.raises(ValueError, match="do not follow"):
            publish(database, claim, *epochs)
        assert read(database, claim.job_id).checkpoint_key is None

    def test_a_row_that_is_there_already_is_refused_whole(self, database: Database) -> None:
        claim = running(database)
        publish(database, claim, 1, key="one")
        with database.session_scope() as session:
            session.execute(update(Job).values(epochs_done=0))  # a bug somewhere else
        with pytest.raises(IntegrityError):
            publish(database, claim, 1, key="two")
        assert read(database, claim.job_id).checkpoint_key == "one"

    def test_a_row_before_the_first_update_is_epoch_zero(self, database: Database) -> None:
        claim = running(database)
        publish(database, claim, 0)
        publish(database, claim, 1, 2)
        with database.session_scope(write=False) as session:
            assert len(series.rows(session, claim.job_id)[0]) == 3
            assert len(series.rows(session, claim.job_id, after=0)[0]) == 2
            assert series.rows(session, claim.job_id, limit=1)[1] is True

    def test_a_checkpoint_in_mid_epoch_moves_only_the_pointer(self, database: Database) -> None:
        claim = running(database)
        publish(database, claim, 1)
        with database.session_scope() as session:
            checkpoint = Checkpoint(key="mid", digest="s", epoch=1)
            leases.publish(session, claim.job_id, claim.fence, checkpoint=checkpoint, rows=[])
        job = read(database, claim.job_id)
        assert (job.epochs_done, job.checkpoint_key) == (1, "mid")
        assert event_types(database, claim.job_id)[-1] == "job.checkpoint"

    def test_a_published_epoch_resets_both_budgets(self, database: Database) -> None:
        claim = running(database)
        crash(database, claim)
        claim = claimed(database)
        let_lease_end(database, claim.job_id)
        reap(database)
        claim = claimed(database)
        assert (read(database, claim.job_id).crashes_no_progress, read(database, claim.job_id).losses_no_progress) == (
            1,
            1,
        )
        publish(database, claim, 1)
        assert (read(database, claim.job_id).crashes_no_progress, read(database, claim.job_id).losses_no_progress) == (
            0,
            0,
        )


class TestFinish:
    def test_ends_the_job_and_its_attempt(self, database: Database) -> None:
        claim = running(database)
        publish(database, claim, 1)
        model = ArtifactFile(name="model.safetensors", key="k", sha256="s", size_bytes=9)
        end = AttemptEnd(exit_code=0, max_rss_bytes=5, active_seconds=2.5)
        finish(
            database,
            claim,
            stop_reason="early_stopping",
            end=end,
            artifacts=[model],
            test_metrics={"accuracy": 1.0},
            decisions=[{"kind": "restore_best", "epoch": 1}],
        )
        job, (attempt,) = read(database, claim.job_id), attempts(database, claim.job_id)
        assert (job.state, job.stop_reason, job.error, job.fence) == ("succeeded", "early_stopping", None, 2)
        assert (job.worker_id, job.lease_until, job.stage) == (None, None, None)
        assert (job.test_metrics, job.active_seconds) == ({"accuracy": 1.0}, 2.5)
        assert job.finished_at is not None
        assert (attempt.outcome, attempt.exit_code, attempt.max_rss_bytes, attempt.to_epoch) == ("succeeded", 0, 5, 1)
        assert attempt.ended_at is not None
        with database.session_scope(write=False) as session:
            assert [a.name for a in series.artifacts(session, claim.job_id)] == ["model.safetensors"]
            assert series.artifact(session, claim.job_id, "model.safetensors").size_bytes == 9
        assert event_types(database, claim.job_id)[-1] == "job.succeeded"

    def test_a_failure_keeps_its_error(self, database: Database) -> None:
        claim = running(database)
        error = {"code": "non_finite", "message": "loss is nan"}
        finish(database, claim, "failed", stop_reason="non_finite", error=error)
        job = read(database, claim.job_id)
        assert (job.state, job.stop_reason, job.error) == ("failed", "non_finite", error)

    def test_a_job_that_ended_while_it_was_to_be_cancelled_has_ended(self, database: Database) -> None:
        claim = running(database)
        ask(database, jobs.request_cancel, claim)
        finish(database, claim, "succeeded")
        assert jobs.wire_status(read(database, claim.job_id)) == "succeeded"

    def test_the_database_refuses_a_second_terminal_event(self, database: Database) -> None:
        claim = running(database)
        finish(database, claim)
        with pytest.raises(IntegrityError), database.session_scope() as session:
            session.add(Event(job_id=claim.job_id, type="job.failed", fence=9, is_terminal=True, body={}))


class TestPause:
    @pytest.mark.parametrize(
        ("wishes", "state", "event"),
        [
            ([jobs.request_pause], "paused", "job.paused"),
            ([jobs.request_pause, jobs.request_cancel], "cancelled", "job.cancelled"),
            ([jobs.request_pause, jobs.request_resume], "queued", "job.requeued"),
        ],
    )
    def test_comes_out_as_the_owner_wants_by_now(
        self, database: Database, wishes: list[Any], state: str, event: str
    ) -> None:
        claim = running(database)
        for wish in wishes:
            ask(database, wish, claim)
        with database.session_scope() as session:
            assert leases.pause(session, claim.job_id, claim.fence, end=AttemptEnd(active_seconds=3.0)) == state
        job = read(database, claim.job_id)
        assert (job.state, job.desired, job.active_seconds, job.worker_id) == (state, "run", 3.0, None)
        assert event_types(database, claim.job_id)[-1] == event


@pytest.fixture
def zombie(database: Database) -> Claim:
    """A claim whose job another worker has taken over and published."""
    claim = running(database)
    let_lease_end(database, claim.job_id)
    reap(database)
    publish(database, claimed(database, "wk_two"), 1)
    return claim


class TestLostOwnership:
    """Whatever a worker says with an old fence is refused and leaves no trace."""

    CALLS = {  # noqa: RUF012 - a table to read
        "start": lambda s, c: leases.start(s, c.job_id, c.fence, resolved_spec={}, numerics={}, from_epoch=0),
        "heartbeat": lambda s, c: leases.heartbeat(s, c.job_id, c.fence, stage="saving"),
        "publish": lambda s, c: leases.publish(
            s, c.job_id, c.fence, checkpoint=Checkpoint(key="z", digest="z", epoch=2), rows=[{"epoch": 2}]
        ),
        "finish": lambda s, c: leases.finish(
            s, c.job_id, c.fence, state="succeeded", stop_reason="completed", end=AttemptEnd()
        ),
        "pause": lambda s, c: leases.pause(s, c.job_id, c.fence, end=AttemptEnd()),
        "requeue": lambda s, c: leases.requeue(
            s, c.job_id, c.fence, outcome="crashed", end=AttemptEnd(), counts_as="crash"
        ),
    }

    @pytest.mark.parametrize("call", CALLS)
    def test_of_a_zombie(self, database: Database, zombie: Claim, call: str) -> None:
        before, seen = read(database, zombie.job_id), event_types(database, zombie.job_id)
        with pytest.raises(OwnershipLost, match=zombie.job_id), database.session_scope() as session:
            self.CALLS[call](session, zombie)
        after = read(database, zombie.job_id)
        assert (after.version, after.state, after.fence) == (before.version, "running", before.fence)
        assert event_types(database, zombie.job_id) == seen
        with database.session_scope(write=False) as session:
            assert session.scalars(select(Epoch.epoch)).all() == [1]

    @pytest.mark.parametrize("call", CALLS)
    def test_of_a_job_that_has_ended(self, database: Database, call: str) -> None:
        claim = running(database)
        finish(database, claim)
        with pytest.raises(OwnershipLost), database.session_scope() as session:
            self.CALLS[call](session, claim)
