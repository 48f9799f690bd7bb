"""Transactions side by side, statement by statement, in orders that Hypothesis draws; then what must hold, holds.

faults.md: cancel, pause, resume against claim, finish, crash. Workers, owners and reapers say what they really say, in
sessions of their own; a worker that has lost its job goes on to its end and has to be refused every time.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.orm import Session

from core import ids
from core.db import jobs, leases
from core.db.clock import now
from core.db.engine import Database
from core.db.leases import AttemptEnd, Checkpoint, Claim
from core.db.tables import Job
from core.errors import Conflict, OwnershipLost
from tests.core.db.given import PROJECT, claimed, finish, let_lease_end, new_job, publish, read, reap
from tests.core.db.promises import ENDED, Story, assert_kept
from tests.core.db.stepping import Stepper
from tests.repetitions import examples

EPOCHS = 3  # of given.SPEC
LONG_SECONDS = 3600.0
REQUESTS: dict[str, Any] = {
    "cancel": jobs.request_cancel,
    "pause": jobs.request_pause,
    "resume": jobs.request_resume,
    "edit": lambda s, p, j: jobs.edit(s, p, j, priority=1),
}
TALK = ("start", "heartbeat", "wish", "publish", "checkpoint", "again")
ENDS = ("finish", "finish", "pause", "crash", "drain", "disk_full", "vanish")

WISHES = ("pause", "cancel", "resume", "pause", "resume", "cancel", "edit")

Part = tuple[str, Any]
attempts = st.tuples(st.lists(st.sampled_from(TALK), min_size=1, max_size=4), st.sampled_from(ENDS), st.booleans())
workers = st.tuples(st.just("worker"), st.lists(attempts, min_size=1, max_size=2))
owners = st.tuples(st.just("owner"), st.lists(st.sampled_from(WISHES), min_size=2, max_size=4))
reapers = st.tuples(st.just("reaper"), st.integers(2, 4))
casts = st.one_of(
    st.tuples(workers, owners),
    st.tuples(workers, reapers),
    st.tuples(workers, workers),
    st.tuples(workers, owners, reapers),
    st.tuples(workers, reapers, owners),
    st.tuples(workers, workers, reapers),
    st.tuples(workers, workers, owners),
    st.tuples(workers, owners, owners),
)
orders = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=10, max_size=40)


@dataclass
class Worker:
    """A worker that keeps talking when it has lost its job."""

    stage: "Stage"
    claim: Claim
    is_lost: bool = False
    epochs: int = 0
    publication: dict[str, Any] | None = None

    def say(self, word: str) -> str:
        """Say one thing; return what the owner wants, or where the job went."""
        try:
            with self.stage.database.session_scope() as session:
                answer = getattr(self, f"_{word}")(session, self.claim.job_id, self.claim.fence)
        except OwnershipLost:
            self.is_lost = True
            self.stage.seen["ownership lost"] += 1
            return "lost"
        assert not self.is_lost, f"{word} was accepted after the job was lost"
        return answer or word

    def finish(self) -> None:
        """End like a worker: all epochs first; what the owner wants meanwhile comes first."""
        wanted = self.say("publish_all")
        if wanted == "cancel":
            self.end("cancel")
        elif wanted == "pause":
            self.end("pause")
        else:
            self.end("succeed")

    def end(self, word: str) -> None:
        if self.say(word) != "lost":
            self.stage.ended[self.claim.fence] += 1
            self.stage.seen[word] += 1

    def _start(self, session: Session, job_id: str, fence: int) -> str:
        return leases.start(session, job_id, fence, resolved_spec={}, numerics={}, from_epoch=self.claim.epochs_done)

    def _heartbeat(self, session: Session, job_id: str, fence: int) -> str:
        return leases.heartbeat(session, job_id, fence, LONG_SECONDS, progress={"step": 1}, stage="training")

    def _wish(self, session: Session, job_id: str, fence: int) -> str:
        return leases.wish(session, job_id, fence)

    def _publish(self, session: Session, job_id: str, fence: int) -> str:
        return self._publish_up_to(min(self.epochs + 1, EPOCHS), session, job_id, fence)

    def _publish_all(self, session: Session, job_id: str, fence: int) -> str:
        return self._publish_up_to(EPOCHS, session, job_id, fence)

    def _checkpoint(self, session: Session, job_id: str, fence: int) -> str:
        return self._publish_up_to(self.epochs, session, job_id, fence)

    def _publish_up_to(self, epoch: int, session: Session, job_id: str, fence: int) -> str:
        epochs = range(self.epochs + 1, epoch + 1)
        self.publication = {
            "checkpoint": Checkpoint(key=ids.new("req"), digest="c", epoch=epoch),
            "rows": [{"epoch": number} for number in epochs],
        }
        wanted = leases.publish(session, job_id, fence, **self.publication)
        self.epochs = epoch
        self.stage.published[fence] += len(epochs)
        return wanted

    def _again(self, session: Session, job_id: str, fence: int) -> str:
        """Repeat the last publication, as after an answer that did not come."""
        if self.publication is None:
            return leases.wish(session, job_id, fence)
        return leases.publish(session, job_id, fence, **self.publication)

    def _succeed(self, session: Session, job_id: str, fence: int) -> None:
        leases.finish(session, job_id, fence, state="succeeded", stop_reason="completed", end=AttemptEnd())

    def _cancel(self, session: Session, job_id: str, fence: int) -> None:
        leases.finish(session, job_id, fence, state="cancelled", stop_reason="cancelled", end=AttemptEnd())

    def _pause(self, session: Session, job_id: str, fence: int) -> str:
        return leases.pause(session, job_id, fence, end=AttemptEnd())

    def _crash(self, session: Session, job_id: str, fence: int) -> str:
        return self._requeue(session, job_id, fence, "killed", outcome="crashed", counts_as="crash")

    def _disk_full(self, session: Session, job_id: str, fence: int) -> str:
        return self._requeue(session, job_id, fence, "disk_full", outcome="crashed", counts_as=None)

    def _drain(self, session: Session, job_id: str, fence: int) -> str:
        return self._requeue(session, job_id, fence, "drained", outcome="drained", counts_as=None)

    def _requeue(self, session: Session, job_id: str, fence: int, code: str, **how: Any) -> str:
        return leases.requeue(session, job_id, fence, end=AttemptEnd(code=code), delay_seconds=0.0, **how)


@dataclass
class Stage:
    """One job, those who want something of it, and what they were told."""

    database: Database
    seen: Counter[str]
    job_id: str = ""
    first: Claim | None = None
    """Made before the play, for the first worker."""
    published: Counter[int] = field(default_factory=Counter[int])
    """Rows by fence that were accepted."""
    ended: Counter[int] = field(default_factory=Counter[int])
    """By fence, how often an end was accepted."""
    answers: Counter[str] = field(default_factory=Counter[str])

    def part(self, kind: str, script: Any) -> Callable[[], None]:
        return lambda: getattr(self, f"play_{kind}")(script)

    def claim(self) -> Claim | None:
        with self.database.session_scope() as session:
            return leases.claim(session, ids.new("wk"), ["cpu"], host="here", lease_seconds=LONG_SECONDS)

    def play_worker(self, script: Sequence[tuple[list[str], str, bool]]) -> None:
        for words, how, is_obedient in script:
            claim, self.first = self.first or self.claim(), None
            if claim is None:
                continue
            worker = Worker(self, claim, epochs=claim.epochs_done)
            wanted = [worker.say(word) for word in words]
            if is_obedient and {"cancel", "pause"} & set(wanted):
                worker.end("cancel" if "cancel" in wanted else "pause")
            elif how == "finish":
                worker.finish()
            elif how != "vanish":
                worker.end(how)

    def play_owner(self, script: Sequence[str]) -> None:
        for word in script:
            try:
                with self.database.session_scope() as session:
                    status = jobs.wire_status(REQUESTS[word](session, PROJECT, self.job_id))
            except Conflict:
                self.answers[f"{word} refused"] += 1
            else:
                self.answers[f"{word}: {status}"] += 1

    def play_reaper(self, rounds: int) -> None:
        """A heartbeat may come between the end of a lease and the reaper."""
        for _ in range(rounds):
            with self.database.session_scope() as session:
                running = update(Job).where(Job.id == self.job_id, Job.state == "running")
                session.execute(running.values(lease_until=now(-1.0)))
            with self.database.session_scope() as session:
                self.seen["reaped"] += len(leases.reap(session))

    def check(self) -> Story:
        (story,) = assert_kept(self.database, [self.job_id])
        rows = Counter(row.fence for row in story.epochs)
        assert rows == +self.published
        assert max(self.ended.values(), default=0) <= 1
        told = Counter(event.type for event in story.events)
        if self.answers["cancel: cancelling"] or self.answers["cancel: cancelled"]:
            assert told["job.cancel_requested"] + told["job.cancelled"] > 0
            assert story.job.state in ENDED or story.job.desired == "cancel"
        if self.answers["pause: pausing"] or self.answers["pause: paused"]:
            assert told["job.pause_requested"] + told["job.paused"] > 0
        return story

    def settle(self) -> None:
        """Carry the job to its end, as workers and owners would; at most a few rounds are needed."""
        for _ in range(10):
            job = read(self.database, self.job_id)
            if job.state in ENDED:
                self.seen[job.state] += 1
                return
            if job.state == "paused":
                with self.database.session_scope() as session:
                    jobs.request_resume(session, PROJECT, self.job_id)
            elif job.state == "running":
                let_lease_end(self.database, self.job_id)
                assert reap(self.database) == [self.job_id]
            else:
                claim = claimed(self.database)
                left = range(claim.epochs_done + 1, EPOCHS + 1)
                if left:
                    publish(self.database, claim, *left)
                    self.published[claim.fence] += len(left)
                finish(self.database, claim)
        raise AssertionError(f"{self.job_id} is {job.state} and does not end")


def test_whatever_the_order_of_the_statements(database: Database) -> None:
    seen: Counter[str] = Counter()

    @examples(50, 1000)
    @given(cast=casts, order=orders, is_running=st.booleans())
    def play(cast: tuple[Part, ...], order: list[tuple[int, int]], is_running: bool) -> None:
        stage = Stage(database, seen)
        with database.session_scope() as session:
            stage.job_id = jobs.create(session, new_job())[0].id
        stage.first = stage.claim() if is_running else None
        stepper = Stepper(database)
        stepper.play([stage.part(*part) for part in cast], order)
        seen["waits"] += stepper.waits
        seen["examples"] += 1
        stage.check()
        stage.settle()
        story = stage.check()
        if story.job.state == "succeeded":
            assert len(story.epochs) == EPOCHS
        seen.update({event.type for event in story.events})

    play()
    # Orders in which nobody met anybody would prove nothing.
    happened = {
        "waits", "ownership lost", "reaped", "job.cancel_requested", "job.pause_requested", "job.paused", "job.resumed",
        "job.requeued", "job.lost", "job.cancelled", "job.succeeded",
    }  # fmt: skip
    assert happened <= set(+seen), dict(seen)
