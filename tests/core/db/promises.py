"""What holds of the rows of every job at any moment, read from the rows alone: I3, I4 and I5 of the fault tests.

The events of a job are replayed by rules that are written down here from the design, not taken from the code: they
alone have to give the state, the owner's wish, the fence, the attempts and the epochs that the other rows hold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.orm import Session

from core.db.engine import Database
from core.db.tables import Attempt, Base, Decision, Epoch, Event, Job

ENDED = {"succeeded", "failed", "cancelled"}
CHANGES = {
    "job.claimed": ({"queued"}, "running"),
    "job.requeued": ({"running"}, "queued"),
    "job.lost": ({"running"}, "queued"),
    "job.paused": ({"queued", "running"}, "paused"),
    "job.resumed": ({"paused"}, "queued"),
    "job.cancelled": ({"queued", "running", "paused"}, "cancelled"),
    "job.succeeded": ({"running"}, "succeeded"),
    "job.failed": ({"running"}, "failed"),
}
"""Events that change the state: from which ones, to which one."""
WISHES = {
    "job.pause_requested": ({"run"}, "pause"),
    "job.cancel_requested": ({"run", "pause"}, "cancel"),
    "job.resumed": ({"pause"}, "run"),
}
"""Events of a running job whose owner wants something else."""
HONOURED = {"job.requeued": "run", "job.lost": "run", "job.paused": "pause", "job.cancelled": "cancel"}
"""What the owner has to want when a running job comes out so."""
OUTCOMES = {
    "job.succeeded": {"succeeded"},
    "job.failed": {"failed", "crashed", "lost"},
    "job.cancelled": {"cancelled", "crashed", "lost", "drained"},
    "job.paused": {"paused", "crashed", "lost", "drained"},
    "job.requeued": {"paused", "crashed", "drained"},
    "job.lost": {"lost"},
}
"""How an attempt may have ended that ended with this event."""


@dataclass
class Execution:
    """An attempt as the events tell it."""

    number: int
    fence: int
    from_epoch: int
    to_epoch: int | None = None
    ended_by: str | None = None


@dataclass
class Replay:
    """A job as its events tell it."""

    state: str = "queued"
    desired: str = "run"
    fence: int = 0
    epochs_done: int = 0
    rows: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    """Epoch, fence and attempt of each."""
    executions: list[Execution] = field(default_factory=list[Execution])
    retries: int = 0

    def see(self, event: Event) -> None:
        """Go on by one event, if that is legal."""
        assert self.state not in ENDED, f"{event.type} after the end"
        is_change = event.type in CHANGES and not (event.type == "job.resumed" and self.state == "running")
        if is_change:
            self._change(event)
        else:
            assert self.state == "running", f"{event.type} of a {self.state} job"
            self._hear(event)
        assert event.fence == self.fence, f"{event.type} with fence {event.fence} after {self.fence}"
        assert event.is_terminal == (self.state in ENDED)

    def _change(self, event: Event) -> None:
        before, state = CHANGES[event.type]
        assert self.state in before, f"{self.state} to {state}"
        self.fence += 1
        if self.state == "running":
            self._end_attempt(event)
        if state == "running":
            self.executions.append(Execution(len(self.executions) + 1, self.fence, self.epochs_done))
            assert event.body["attempt"] == len(self.executions)
        self.state, self.desired = state, "run"

    def _end_attempt(self, event: Event) -> None:
        assert self.desired == HONOURED.get(event.type, self.desired), f"{event.type}, but the owner: {self.desired}"
        if (event.body.get("error") or {}).get("code") == "poison":
            assert self.desired != "cancel", "given up, but the owner wanted it cancelled"
        self.executions[-1].to_epoch = self.epochs_done
        self.executions[-1].ended_by = event.type
        is_crash = event.type == "job.requeued" and event.body.get("outcome") == "crashed"
        self.retries += event.type == "job.lost" or is_crash

    def _hear(self, event: Event) -> None:
        if event.type in WISHES:
            before, desired = WISHES[event.type]
            assert self.desired in before, f"{self.desired} to {desired}"
            self.desired = desired
        elif event.type == "job.started":
            self.executions[-1].from_epoch = event.body["from_epoch"]
        elif event.type == "job.epoch":
            first, last = event.body["first_epoch"], event.body["epoch"]
            assert first == self.epochs_done + 1 or (first == 0 and not self.rows)
            self.rows += [(epoch, self.fence, len(self.executions)) for epoch in range(first, last + 1)]
            self.epochs_done = last
        else:
            assert event.type in {"job.stage", "job.checkpoint"}, event.type


@dataclass
class Story:
    """All rows of one job."""

    job: Job
    events: list[Event] = field(default_factory=list[Event])
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    epochs: list[Epoch] = field(default_factory=list[Epoch])
    decisions: list[Decision] = field(default_factory=list[Decision])

    def check(self) -> None:
        """Hold every row against what the events tell."""
        first, *later = self.events
        assert (first.type, first.fence, first.is_terminal) == ("job.created", 0, False)
        replay = Replay()
        for event in later:
            replay.see(event)
        self._check_job(replay)
        self._check_epochs(replay)
        self._check_attempts(replay)
        assert sum(decision.kind == "retry" for decision in self.decisions) == replay.retries

    def _check_job(self, replay: Replay) -> None:
        job, told = self.job, replay
        row = (job.state, job.desired, job.fence, job.attempt, job.epochs_done)
        assert row == (told.state, told.desired, told.fence, len(told.executions), told.epochs_done)
        is_running, has_ended = job.state == "running", job.state in ENDED
        assert [job.lease_until is not None, job.worker_id is not None] == [is_running] * 2
        assert [job.finished_at is not None, job.stop_reason is not None] == [has_ended] * 2
        assert (job.error is not None) == (job.state == "failed")
        assert is_running or job.stage is None
        assert job.run_after is None or job.state == "queued"

    def _check_epochs(self, replay: Replay) -> None:
        job, epochs = self.job, self.epochs
        assert [(row.epoch, row.fence, row.attempt) for row in epochs] == replay.rows
        assert [row.epoch for row in epochs if row.epoch > 0] == list(range(1, job.epochs_done + 1))
        assert (job.checkpoint_epoch or 0) == job.epochs_done
        assert (job.checkpoint_key is not None) or not epochs
        assert all(one.fence <= two.fence for one, two in pairwise(epochs))
        assert all(one.recorded_at <= two.recorded_at for one, two in pairwise(epochs))

    def _check_attempts(self, replay: Replay) -> None:
        assert [(one.number, one.fence, one.from_epoch, one.to_epoch) for one in self.attempts] == [
            (one.number, one.fence, one.from_epoch, one.to_epoch) for one in replay.executions
        ]
        for attempt, told in zip(self.attempts, replay.executions, strict=True):
            assert (attempt.ended_at is None) == (told.ended_by is None)
            assert attempt.outcome in (OUTCOMES[told.ended_by] if told.ended_by else {None})
            for row in (row for row in self.epochs if row.attempt == attempt.number):
                assert attempt.started_at <= row.recorded_at
                assert attempt.ended_at is None or row.recorded_at <= attempt.ended_at
        assert all(one.ended_at is not None for one in self.attempts[:-1])


def stories(database: Database, job_ids: Sequence[str] | None = None) -> list[Story]:
    """Read all rows of these jobs, or of all, as they stand at one moment."""
    with database.session_scope(write=False) as session:
        if database.engine.dialect.name == "postgresql":
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        jobs = select(Job).order_by(Job.id)
        found = session.scalars(jobs if job_ids is None else jobs.where(Job.id.in_(job_ids))).all()
        of = {job.id: Story(job) for job in found}
        for event in _rows(session, Event, job_ids, Event.id):
            of[event.job_id].events.append(event)
        for attempt in _rows(session, Attempt, job_ids, Attempt.number):
            of[attempt.job_id].attempts.append(attempt)
        for epoch in _rows(session, Epoch, job_ids, Epoch.epoch):
            of[epoch.job_id].epochs.append(epoch)
        for decision in _rows(session, Decision, job_ids, Decision.id):
            of[decision.job_id].decisions.append(decision)
        session.expunge_all()
    return list(of.values())


def _rows(session: Session, table: Any, job_ids: Sequence[str] | None, order: Any) -> Iterable[Any]:
    statement = select(table).order_by(order)
    return session.scalars(statement if job_ids is None else statement.where(table.job_id.in_(job_ids)))


def assert_kept(database: Database, job_ids: Sequence[str] | None = None) -> list[Story]:
    """Check these jobs, or all; return their rows."""
    found = stories(database, job_ids)
    for story in found:
        try:
            story.check()
        except AssertionError as error:
            raise AssertionError(f"{story.job.id}: {error}\n{_told(story)}") from error
    return found


def _told(story: Story) -> str:
    return "\n".join(f"{event.id} fence {event.fence} {event.type} {event.body}" for event in story.events)


def everything(database: Database, job_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return every column of every row of a job, to see whether anything changed."""
    with database.session_scope(write=False) as session:
        return {
            table.name: [tuple(row) for row in session.execute(_of_job(table, job_id))]
            for table in Base.metadata.sorted_tables
            if table.name == "jobs" or "job_id" in table.c
        }


def _of_job(table: Table, job_id: str) -> Any:
    column = table.c.id if table.name == "jobs" else table.c.job_id
    return select(table).where(column == job_id).order_by(*table.primary_key.columns)
