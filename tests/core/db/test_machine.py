"""Jobs under any sequence of posts, wishes, workers, zombies and reapers, against a model written from the design.

Time is moved by changing rows: back-offs and leases end by SQL, never by waiting.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from core import ids
from core.db import jobs, leases
from core.db.clock import now
from core.db.engine import Database
from core.db.leases import ArtifactFile, AttemptEnd, Checkpoint, Claim
from core.db.tables import Job
from core.errors import Conflict, IdempotencyMismatch, NotFound, OwnershipLost
from tests.core.db.given import PROJECT, let_lease_end, new_job, read
from tests.core.db.promises import ENDED, assert_kept, everything
from tests.repetitions import examples

LONG_SECONDS = 3600.0  # nothing ends by itself while an example runs
QUEUES = ("cpu", "gpu")
VISIBLE = (
    "name", "labels", "priority", "state", "desired", "stage", "stop_reason", "error", "attempt", "epochs_done",
    "progress", "best", "latest_metrics", "test_metrics", "resolved_spec", "started_at", "finished_at",
)  # fmt: skip
"""What clients can see of a job's row."""
Call = Callable[[Session, str, int], Any]


@dataclass
class Model:
    """What a job should be."""

    id: str
    number: int
    queue: str
    priority: int
    max_attempts: int | None
    key: str | None
    body: str
    name: str | None = None
    state: str = "queued"
    desired: str = "run"
    is_waiting: bool = False
    """Its back-off is not over."""
    is_over: bool = False
    """Its lease is."""
    epochs: int = 0
    has_zero: bool = False
    crashes: int = 0
    losses: int = 0
    failures: int = 0
    codes: list[str | None] = field(default_factory=list[str | None])
    was_resumed: bool = False
    claims: list[Claim] = field(default_factory=list[Claim])
    published: dict[str, Any] | None = None
    """The last publication of the attempt that runs."""
    numerics: dict[str, Any] | None = None

    @property
    def status(self) -> str:
        return {"pause": "pausing", "cancel": "cancelling"}.get(self.desired, self.state)

    @property
    def is_claimable(self) -> bool:
        return self.state == "queued" and not self.is_waiting

    def leave(self, state: str) -> None:
        self.state, self.desired, self.is_over, self.is_waiting, self.published = state, "run", False, False, None

    def wanted(self) -> str:
        """Where a job goes that is let go of at no cost."""
        return {"cancel": "cancelled", "pause": "paused", "run": "queued"}[self.desired]

    def fail(self, code: str, *, is_loss: bool = False) -> float:
        """An attempt ended before its job; return the back-off."""
        is_free = code == "disk_full"
        self.codes.append(code)
        self.crashes += not is_loss and not is_free
        self.losses += is_loss
        self.failures += not is_free
        is_given_up = self.crashes >= 3 or self.losses >= 5 or self.failures >= (self.max_attempts or 1000)
        if self.desired != "cancel" and is_given_up and not is_free:
            self.leave("failed")
        else:
            self.leave(self.wanted())
        if self.state != "queued" or is_loss:
            return 0.0
        self.is_waiting = True
        return min(60.0 * 2 ** (self._full_disks() - 1), 900.0) if is_free else 2.0 ** (self.crashes - 1)

    def _full_disks(self) -> int:
        count = 0
        while count < len(self.codes) and self.codes[-1 - count] == "disk_full":
            count += 1
        return count


def end(code: str | None = None) -> AttemptEnd:
    return AttemptEnd(code=code)


STATEMENTS: dict[str, Call] = {
    "start": lambda s, j, f: leases.start(s, j, f, resolved_spec={}, numerics={"threads": 9}, from_epoch=0),
    "heartbeat": lambda s, j, f: leases.heartbeat(s, j, f, LONG_SECONDS, progress={"step": 9}, stage="saving"),
    "wish": leases.wish,
    "publish": lambda s, j, f: leases.publish(
        s, j, f, checkpoint=Checkpoint(key="z", digest="z", epoch=1), rows=[{"epoch": 1}]
    ),
    "checkpoint": lambda s, j, f: leases.publish(s, j, f, checkpoint=Checkpoint(key="z", digest="z", epoch=0), rows=[]),
    "succeed": lambda s, j, f: leases.finish(s, j, f, state="succeeded", stop_reason="completed", end=end()),
    "fail": lambda s, j, f: leases.finish(s, j, f, state="failed", stop_reason="error", end=end(), error={}),
    "cancel": lambda s, j, f: leases.finish(s, j, f, state="cancelled", stop_reason="cancelled", end=end()),
    "pause": lambda s, j, f: leases.pause(s, j, f, end=end()),
    "crash": lambda s, j, f: leases.requeue(s, j, f, outcome="crashed", end=end("killed"), counts_as="crash"),
    "drain": lambda s, j, f: leases.requeue(s, j, f, outcome="drained", end=end("drained"), counts_as=None),
    "disk_full": lambda s, j, f: leases.requeue(s, j, f, outcome="crashed", end=end("disk_full"), counts_as=None),
}
"""Everything that a worker may say; one that was asleep says it with an old fence."""


class JobMachine(RuleBasedStateMachine):
    database: Database

    @initialize()
    def begin(self) -> None:
        self.models: list[Model] = []
        self.deleted: list[Claim] = []
        self.count = 0
        self.seen: dict[str, tuple[int, list[Any]]] = {}

    def teardown(self) -> None:
        with self.database.session_scope() as session:
            session.execute(delete(Job))

    # What owners do.

    @precondition(lambda self: len(self.models) < 4)
    @rule(
        queue=st.sampled_from(QUEUES),
        priority=st.integers(-1, 1),
        max_attempts=st.sampled_from([None, None, 1, 2, 4]),
        key=st.sampled_from([None, "a", "b"]),
        body=st.sampled_from(["x", "y"]),
    )
    def accept(self, queue: str, priority: int, max_attempts: int | None, key: str | None, body: str) -> None:
        spec = {"epochs": 3, **({"execution": {"max_attempts": max_attempts}} if max_attempts else {})}
        new = new_job(spec=spec, queue=queue, priority=priority, idempotency_key=key, body_sha256=body)
        first = next((model for model in self.models if key is not None and model.key == key), None)
        if first is not None and first.body != body:
            with pytest.raises(IdempotencyMismatch, match=first.id), self.database.session_scope() as session:
                jobs.create(session, new)
            return
        with self.database.session_scope() as session:
            job, is_new = jobs.create(session, new)
        assert is_new == (first is None)
        assert first is None or job.id == first.id
        if is_new:
            self.count += 1
            self.models.append(Model(job.id, self.count, queue, priority, max_attempts, key, body))

    @precondition(lambda self: self.models)
    @rule(which=st.integers(0, 3))
    def cancel(self, which: int) -> None:
        model = self.pick(self.models, which)
        is_refused = model.state in {"succeeded", "failed"}
        if self.ask(model, jobs.request_cancel, is_refused=is_refused) and model.state != "cancelled":
            if model.state == "running":
                model.desired = "cancel"
            else:
                model.leave("cancelled")

    @precondition(lambda self: self.models)
    @rule(which=st.integers(0, 3))
    def pause(self, which: int) -> None:
        model = self.pick(self.models, which)
        is_refused = model.status in {"cancelling", *ENDED}
        if self.ask(model, jobs.request_pause, is_refused=is_refused):
            if model.state == "running":
                model.desired = "pause"
            else:
                model.leave("paused")

    @precondition(lambda self: self.models)
    @rule(which=st.integers(0, 3))
    def resume(self, which: int) -> None:
        model = self.pick(self.models, which)
        is_possible = model.status in {"paused", "pausing"}
        is_again = model.was_resumed and model.status in {"queued", "running"}
        if self.ask(model, jobs.request_resume, is_refused=not (is_possible or is_again)) and is_possible:
            model.was_resumed = True
            if model.state == "running":
                model.desired = "run"
            else:
                model.leave("queued")

    @precondition(lambda self: self.models)
    @rule(which=st.integers(0, 3), name=st.sampled_from([None, "new"]), priority=st.integers(-1, 1))
    def edit(self, which: int, name: str | None, priority: int) -> None:
        model = self.pick(self.models, which)
        with self.database.session_scope() as session:
            jobs.edit(session, PROJECT, model.id, name=name, priority=priority)
        model.name, model.priority = name, priority

    @precondition(lambda self: self.models)
    @rule(which=st.integers(0, 3))
    def delete(self, which: int) -> None:
        model = self.pick(self.models, which)
        if not self.ask(model, jobs.delete, is_refused=model.state not in ENDED):
            return
        assert not any(everything(self.database, model.id).values())
        self.models.remove(model)
        self.deleted += model.claims
        for request in (jobs.request_cancel, jobs.request_pause, jobs.request_resume, jobs.edit, jobs.delete, jobs.get):
            with pytest.raises(NotFound), self.database.session_scope() as session:
                request(session, PROJECT, model.id)

    # What the worker does that owns a job.

    @rule(queues=st.sampled_from([("cpu",), ("gpu",), QUEUES, ("gpu", "cpu")]))
    def claim(self, queues: tuple[str, ...]) -> None:
        with self.database.session_scope() as session:
            claim = leases.claim(session, "wk_one", queues, host="here", lease_seconds=LONG_SECONDS)
        best = next((model for model in self.order() if model.queue in queues), None)
        assert (claim and claim.job_id) == (best and best.id)
        if claim is None or best is None:
            return
        assert (claim.epochs_done, claim.attempt) == (best.epochs, len(best.claims) + 1)
        assert claim.fence > (best.claims[-1].fence if best.claims else 0)
        assert claim.numerics == best.numerics
        best.state = "running"
        best.claims.append(claim)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), threads=st.integers(1, 2))
    def start(self, which: int, threads: int) -> None:
        model, numerics = self.pick(self.running, which), {"threads": threads}
        said = self.say(
            model,
            lambda s, j, f: leases.start(
                s, j, f, resolved_spec={"epochs": 3}, numerics=numerics, from_epoch=model.epochs, pid=7
            ),
        )
        assert said == model.desired
        model.numerics = model.numerics or numerics
        assert read(self.database, model.id).numerics == model.numerics

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), stage=st.sampled_from([None, "training", "saving"]), step=st.integers(0, 2))
    def heartbeat(self, which: int, stage: str | None, step: int) -> None:
        model = self.pick(self.running, which)
        progress = {"step": step} if step else None
        assert model.desired == self.say(
            model, lambda s, j, f: leases.heartbeat(s, j, f, LONG_SECONDS, progress=progress, stage=stage)
        )
        model.is_over = False

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3))
    def wish(self, which: int) -> None:
        model = self.pick(self.running, which)
        before = everything(self.database, model.id)
        assert self.say(model, leases.wish) == model.desired
        assert everything(self.database, model.id) == before

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), count=st.integers(0, 3), is_scored_at_start=st.booleans())
    def publish(self, which: int, count: int, is_scored_at_start: bool) -> None:
        model = self.pick(self.running, which)
        last = model.epochs + count
        epochs = list(range(model.epochs + 1, last + 1))
        if is_scored_at_start and model.epochs == 0 and not model.has_zero:
            epochs.insert(0, 0)
        model.published = {
            "checkpoint": Checkpoint(key=ids.new("req"), digest="c", epoch=last),
            "rows": [{"epoch": epoch, "train": {"loss": 1 / (epoch + 1)}} for epoch in epochs],
            "decisions": [{"kind": "early_stopping", "epoch": last, "wait": 1}] * (count > 1),
            "best": {"epoch": last} if epochs else None,
        }
        assert self.publish_as(model, model.published) == model.desired
        model.epochs = last
        model.has_zero |= 0 in epochs
        if epochs:
            model.crashes = model.losses = 0

    @precondition(lambda self: any(model.published for model in self.models))
    @rule(which=st.integers(0, 3))
    def publish_the_same_again(self, which: int) -> None:
        model = self.pick([model for model in self.models if model.published], which)
        before = everything(self.database, model.id)
        assert self.publish_as(model, model.published or {}) == model.desired
        assert everything(self.database, model.id) == before

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), epochs=st.sampled_from([[2], [1, 3], [-1], [2, 3]]))
    def publish_what_does_not_follow(self, which: int, epochs: list[int]) -> None:
        model = self.pick(self.running, which)
        before = everything(self.database, model.id)
        rows = [{"epoch": model.epochs + ahead} for ahead in epochs]
        with pytest.raises(ValueError, match="do not follow"):
            self.publish_as(model, {"checkpoint": Checkpoint(key="gap", digest="c", epoch=9), "rows": rows})
        assert everything(self.database, model.id) == before

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), is_good=st.booleans())
    def finish(self, which: int, is_good: bool) -> None:
        """Like a worker: what is to be cancelled is cancelled, unless it had ended already."""
        model = self.pick(self.running, which)
        state = "succeeded" if is_good else ("cancelled" if model.desired == "cancel" else "failed")
        fields: dict[str, Any] = {
            "succeeded": {
                "stop_reason": "completed",
                "artifacts": [ArtifactFile(name="model", key="k", sha256="s", size_bytes=1)],
                "test_metrics": {"loss": 0.5},
            },
            "failed": {"stop_reason": "non_finite", "error": {"code": "non_finite", "message": "loss is nan"}},
            "cancelled": {"stop_reason": "cancelled"},
        }[state]
        self.say(model, lambda s, j, f: leases.finish(s, j, f, state=state, end=end(), **fields))
        model.codes.append(None)
        model.leave(state)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3))
    def let_go(self, which: int) -> None:
        model = self.pick(self.running, which)
        state = model.wanted()
        assert self.say(model, lambda s, j, f: leases.pause(s, j, f, end=end())) == state
        model.codes.append(None)
        model.leave(state)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3))
    def drain(self, which: int) -> None:
        model = self.pick(self.running, which)
        state = model.wanted()
        assert self.say(model, STATEMENTS["drain"]) == state
        model.codes.append("drained")
        model.leave(state)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), code=st.sampled_from(["killed", "oom", "disk_full", "disk_full"]))
    def crash(self, which: int, code: str) -> None:
        model = self.pick(self.running, which)
        counts_as: Any = None if code == "disk_full" else "crash"
        delay = model.fail(code)
        said = self.say(
            model, lambda s, j, f: leases.requeue(s, j, f, outcome="crashed", end=end(code), counts_as=counts_as)
        )
        assert said == model.state
        self.check_back_off(model, delay)

    # What everybody else does.

    @precondition(lambda self: self.stale)
    @rule(which=st.integers(0, 20), says=st.lists(st.sampled_from(sorted(STATEMENTS)), min_size=3, unique=True))
    def wake(self, which: int, says: list[str]) -> None:
        """One that lost its job, frozen or cut off, goes on as if nothing had been."""
        claim = self.pick(self.stale, which)
        before = everything(self.database, claim.job_id)
        for word in says:
            with pytest.raises(OwnershipLost, match=claim.job_id), self.database.session_scope() as session:
                STATEMENTS[word](session, claim.job_id, claim.fence)
        assert everything(self.database, claim.job_id) == before

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3))
    def let_lease_end(self, which: int) -> None:
        model = self.pick(self.running, which)
        let_lease_end(self.database, model.id)
        model.is_over = True

    @rule()
    def reap(self) -> None:
        lost = [model for model in self.models if model.is_over]
        with self.database.session_scope() as session:
            assert sorted(leases.reap(session)) == sorted(model.id for model in lost)
        for model in lost:
            model.fail("lost", is_loss=True)

    @precondition(lambda self: any(model.is_waiting for model in self.models))
    @rule(which=st.integers(0, 3))
    def let_back_off_end(self, which: int) -> None:
        model = self.pick([model for model in self.models if model.is_waiting], which)
        self.move_back_off(model, -1.0)
        model.is_waiting = False

    @invariant()
    def every_row_is_what_the_model_says(self) -> None:
        stories = {story.job.id: story for story in assert_kept(self.database)}
        assert set(stories) == {model.id for model in self.models}
        for model in self.models:
            job = stories[model.id].job
            assert jobs.wire_status(job) == model.status
            assert (job.epochs_done, job.crashes_no_progress, job.losses_no_progress) == (
                model.epochs,
                model.crashes,
                model.losses,
            )
            assert (job.name, job.priority, job.run_after is not None) == (model.name, model.priority, model.is_waiting)
            self.check_version(job)

    @invariant()
    def what_waits_is_listed_the_best_first(self) -> None:
        with self.database.session_scope(write=False) as session:
            assert [job.job_id for job in leases.waiting(session, QUEUES)] == [model.id for model in self.order()]

    @property
    def running(self) -> list[Model]:
        return [model for model in self.models if model.state == "running"]

    @property
    def stale(self) -> list[Claim]:
        """Claims of those who own nothing any more."""
        ended = [c for model in self.models for c in model.claims[: -1 if model.state == "running" else None]]
        return ended + self.deleted

    def order(self) -> list[Model]:
        waiting = [model for model in self.models if model.is_claimable]
        return sorted(waiting, key=lambda model: (-model.priority, model.number))

    def pick(self, some: list[Any], which: int) -> Any:
        return some[which % len(some)]

    def ask(self, model: Model, request: Any, *, is_refused: bool) -> bool:
        """Make a request; return whether it was accepted, which has to be as expected. A refusal changes nothing."""
        before = everything(self.database, model.id)
        try:
            with self.database.session_scope() as session:
                request(session, PROJECT, model.id)
        except Conflict:
            assert is_refused
            assert everything(self.database, model.id) == before
            return False
        assert not is_refused
        return True

    def say(self, model: Model, call: Call) -> Any:
        """Say something as the owner of the job."""
        with self.database.session_scope() as session:
            return call(session, model.id, model.claims[-1].fence)

    def publish_as(self, model: Model, publication: dict[str, Any]) -> Any:
        return self.say(model, lambda s, j, f: leases.publish(s, j, f, **publication))

    def check_back_off(self, model: Model, delay: float) -> None:
        """Hold the back-off against the model's, then make it long."""
        job = read(self.database, model.id)
        if not model.is_waiting:
            assert job.run_after is None
            return
        assert job.run_after is not None
        (*_, retry) = assert_kept(self.database, [model.id])[0].decisions
        assert (retry.kind, retry.body["delay_seconds"]) == ("retry", delay)
        assert abs((job.run_after - retry.recorded_at).total_seconds() - delay) < 1.0
        self.move_back_off(model, LONG_SECONDS)

    def move_back_off(self, model: Model, seconds: float) -> None:
        with self.database.session_scope() as session:
            session.execute(update(Job).where(Job.id == model.id).values(run_after=now(seconds)))

    def check_version(self, job: Job) -> None:
        """See that the version never falls, and rises with every change that clients can see."""
        visible = [getattr(job, column) for column in VISIBLE]
        version, before = self.seen.get(job.id, (0, []))
        assert job.version > version if visible != before else job.version >= version
        self.seen[job.id] = (job.version, visible)


def test_jobs_are_always_what_the_model_says(database: Database) -> None:
    class Machine(JobMachine):
        pass

    Machine.database = database
    run_state_machine_as_test(Machine, settings=examples(12, 600, steps=40))
