"""One job under any sequence of requests, workers, zombies and reapers, against a model of twenty lines."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from core import ids
from core.db import jobs, leases, series
from core.db.engine import Database
from core.db.leases import AttemptEnd, Checkpoint, Claim
from core.db.states import LEGAL, TERMINAL
from core.db.tables import Epoch, Event
from core.errors import Conflict, OwnershipLost
from tests.core.db.given import PROJECT, let_lease_end, new_job, read

STATE_OF = {
    "job.created": "queued", "job.resumed": "queued", "job.requeued": "queued", "job.lost": "queued",
    "job.claimed": "running", "job.paused": "paused", "job.cancelled": "cancelled", "job.failed": "failed",
    "job.succeeded": "succeeded",
}  # fmt: skip


@dataclass
class Model:
    """What the job should be."""

    state: str = "queued"
    desired: str = "run"
    epochs: int = 0
    crashes: int = 0
    losses: int = 0
    was_resumed: bool = False
    claims: list[Claim] = field(default_factory=list)

    def leave(self, state: str) -> None:
        self.state, self.desired = state, "run"

    def fail(self) -> None:
        """An attempt ended before its job."""
        if self.desired == "cancel":
            self.leave("cancelled")
        elif self.crashes >= 3 or self.losses >= 5:
            self.leave("failed")
        else:
            self.leave("paused" if self.desired == "pause" else "queued")

    @property
    def status(self) -> str:
        return {"pause": "pausing", "cancel": "cancelling"}.get(self.desired, self.state)


class JobMachine(RuleBasedStateMachine):
    database: Database

    @initialize()
    def accept(self) -> None:
        self.queue = ids.new("req")  # each example has a queue of its own in the shared database
        with self.database.session_scope() as session:
            self.job_id = jobs.create(session, new_job(queue=self.queue))[0].id
        self.model = Model()
        self.version = 0

    @rule()
    def cancel(self) -> None:
        model = self.model
        is_refused = model.state in {"succeeded", "failed"}
        if self.ask(jobs.request_cancel, is_refused=is_refused) and model.state != "cancelled":
            if model.state == "running":
                model.desired = "cancel"
            else:
                model.leave("cancelled")

    @rule()
    def pause_request(self) -> None:
        model = self.model
        is_refused = model.status in {"cancelling", *TERMINAL}
        if self.ask(jobs.request_pause, is_refused=is_refused):
            if model.state == "running":
                model.desired = "pause"
            else:
                model.leave("paused")

    @rule()
    def resume(self) -> None:
        model = self.model
        is_possible = model.status in {"paused", "pausing"}
        is_again = model.was_resumed and model.status in {"queued", "running"}
        if self.ask(jobs.request_resume, is_refused=not (is_possible or is_again)) and is_possible:
            model.leave("running" if model.state == "running" else "queued")
            model.was_resumed = True

    @rule()
    def claim(self) -> None:
        with self.database.session_scope() as session:
            claim = leases.claim(session, "wk_one", [self.queue], host="here")
        assert (claim is not None) == (self.model.state == "queued")
        if claim is not None:
            assert claim.epochs_done == self.model.epochs
            self.model.state = "running"
            self.model.claims.append(claim)

    @precondition(lambda self: self.model.claims)
    @rule(who=st.integers(0, 3))
    def heartbeat(self, who: int) -> None:
        self.work(who, lambda s, c: leases.heartbeat(s, c.job_id, c.fence, stage="training"))

    @precondition(lambda self: self.model.claims)
    @rule(who=st.integers(0, 3), count=st.integers(0, 3))
    def publish(self, who: int, count: int) -> None:
        model = self.model
        epochs = range(model.epochs + 1, model.epochs + 1 + count)
        checkpoint = Checkpoint(key=ids.new("req"), sha256="c", epoch=model.epochs + count)
        rows = [{"epoch": epoch} for epoch in epochs]
        if self.work(who, lambda s, c: leases.publish(s, c.job_id, c.fence, checkpoint=checkpoint, rows=rows)) and rows:
            model.epochs += count
            model.crashes = model.losses = 0

    @precondition(lambda self: self.model.claims)
    @rule(who=st.integers(0, 3), state=st.sampled_from(["succeeded", "failed", "cancelled"]))
    def finish(self, who: int, state: Any) -> None:
        def end(session: Any, claim: Claim) -> None:
            leases.finish(session, claim.job_id, claim.fence, state=state, stop_reason="completed", end=AttemptEnd())

        if self.work(who, end):
            self.model.leave(state)

    @precondition(lambda self: self.model.claims)
    @rule(who=st.integers(0, 3))
    def pause(self, who: int) -> None:
        model = self.model
        if self.work(who, lambda s, c: leases.pause(s, c.job_id, c.fence, end=AttemptEnd())):
            model.leave({"cancel": "cancelled", "pause": "paused", "run": "queued"}[model.desired])

    @precondition(lambda self: self.model.claims)
    @rule(who=st.integers(0, 3))
    def crash(self, who: int) -> None:
        def end(session: Any, claim: Claim) -> None:
            leases.requeue(
                session, claim.job_id, claim.fence, outcome="crashed", end=AttemptEnd(code="killed"),
                counts_as="crash", delay_seconds=0.0,
            )  # fmt: skip

        if self.work(who, end):
            self.model.crashes += 1
            self.model.fail()

    @precondition(lambda self: self.model.claims)
    @rule(who=st.integers(0, 3))
    def drain(self, who: int) -> None:
        def end(session: Any, claim: Claim) -> None:
            end = AttemptEnd(code="drained")
            leases.requeue(session, claim.job_id, claim.fence, outcome="drained", end=end, counts_as=None)

        if self.work(who, end):
            states = {"cancel": "cancelled", "pause": "paused", "run": "queued"}
            self.model.leave(states[self.model.desired])

    @precondition(lambda self: self.model.state == "running")
    @rule()
    def lose(self) -> None:
        let_lease_end(self.database, self.job_id)
        with self.database.session_scope() as session:
            assert leases.reap(session) == [self.job_id]
        self.model.losses += 1
        self.model.fail()

    @rule()
    def reap(self) -> None:
        with self.database.session_scope() as session:
            assert leases.reap(session) == []

    @invariant()
    def the_row_is_what_the_model_says(self) -> None:
        job, model = read(self.database, self.job_id), self.model
        assert jobs.wire_status(job) == model.status
        assert job.epochs_done == model.epochs
        assert (job.crashes_no_progress, job.losses_no_progress) == (model.crashes, model.losses)
        assert job.version >= self.version
        assert (job.finished_at is not None) == (job.state in TERMINAL)
        self.version = job.version

    @invariant()
    def the_epochs_are_whole_and_the_chain_is_legal(self) -> None:
        with self.database.session_scope(write=False) as session:
            epochs = session.scalars(select(Epoch).where(Epoch.job_id == self.job_id).order_by(Epoch.epoch)).all()
            chain = [
                event
                for event in session.scalars(select(Event).where(Event.job_id == self.job_id).order_by(Event.id))
                if event.type in STATE_OF and not (event.type == "job.resumed" and event.fence in self.fences())
            ]
            open_attempts = [one for one in series.attempts(session, self.job_id) if one.ended_at is None]
        assert [epoch.epoch for epoch in epochs] == list(range(1, self.model.epochs + 1))
        assert all(one.fence <= two.fence for one, two in pairwise(epochs))
        assert all(one.fence < two.fence for one, two in pairwise(chain))
        assert all(STATE_OF[two.type] in LEGAL[STATE_OF[one.type]] for one, two in pairwise(chain))
        assert STATE_OF[chain[-1].type] == self.model.state
        assert len(open_attempts) == (self.model.state == "running")

    def fences(self) -> set[int]:
        """Fences of claims: a pause that was taken back leaves the state as it was."""
        return {claim.fence for claim in self.model.claims}

    def ask(self, request: Any, *, is_refused: bool) -> bool:
        """Make a request; return whether it was accepted, which has to be as expected."""
        try:
            with self.database.session_scope() as session:
                request(session, PROJECT, self.job_id)
        except Conflict:
            assert is_refused
            return False
        assert not is_refused
        return True

    def work(self, who: int, call: Any) -> bool:
        """Do something with the newest claim (0) or an older one; return whether that one owns the job."""
        claims = self.model.claims
        claim = claims[max(len(claims) - 1 - who, 0)]
        owns = self.model.state == "running" and claim is claims[-1]
        try:
            with self.database.session_scope() as session:
                call(session, claim)
        except OwnershipLost:
            assert not owns
            return False
        assert owns
        return True


def test_a_job_is_always_what_the_model_says(database: Database) -> None:
    class Machine(JobMachine):
        pass

    Machine.database = database
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=checks),
    )
