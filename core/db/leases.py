"""What workers do with jobs. A worker owns a job by its lease and its fence; every statement here is guarded by both
the state and the fence, and one that hits no row raises `OwnershipLost`: stop the trainer, write nothing more.

    queued ── claim ──▶ running ── finish ──▶ succeeded / failed / cancelled
       ▲                  │ │ │
       ├──── requeue ─────┘ │ └── pause ────▶ paused
       └──── reap ──────────┘
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from json import dumps
from typing import Any, NamedTuple, Self

from sqlalchemy import ColumnElement, func, insert, or_, select, update
from sqlalchemy.orm import Session

from core.db.clock import now
from core.db.endings import AttemptEnd, fail_attempt
from core.db.states import Desired, State, TerminalState
from core.db.tables import Artifact, Attempt, Epoch, Job
from core.db.transitions import FRESH, change, decide, end_attempt, move, owned, ownership_lost, record
from core.db.verdicts import Budgets, CountsAs

LEASE_SECONDS = 30.0  # a worker that is silent for so long has lost its jobs
REAP_LIMIT = 100  # jobs of one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A published checkpoint file.

    Attributes:
        key: where the storage has it.
        sha256: of its bytes.
        epoch: finished epochs that it holds.
    """

    key: str
    sha256: str
    epoch: int

    def as_json(self) -> dict[str, Any]:
        """Return it as the jobs table keeps the previous one."""
        return {"key": self.key, "sha256": self.sha256, "epoch": self.epoch}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that this worker owns now, with all that its attempt needs.

    Attributes:
        fence: to be shown with every further statement.
        attempt: number of this execution, from 1.
        resolved_spec: the spec with every default, from preflight or an earlier attempt.
        checkpoint: to resume from.
        previous_checkpoint: to resume from when `checkpoint` is not good.
        epochs_done: rows that are published: never send them again.
        numerics: what decided the bits of the first attempt.
        active_seconds: training time of earlier attempts.
    """

    job_id: str
    project: str
    name: str | None
    queue: str
    fence: int
    attempt: int
    spec: dict[str, Any]
    resolved_spec: dict[str, Any] | None
    checkpoint: Checkpoint | None
    previous_checkpoint: Checkpoint | None
    epochs_done: int
    numerics: dict[str, Any] | None
    active_seconds: float
    lease_until: datetime

    @classmethod
    def of(cls, job: Job) -> Self:
        """Read the claim from a row that was just claimed."""
        assert job.lease_until is not None, "claimed rows have a lease"  # noqa: S101 - for ourselves
        return cls(
            job_id=job.id,
            project=job.project,
            name=job.name,
            queue=job.queue,
            fence=job.fence,
            attempt=job.attempt,
            spec=job.spec,
            resolved_spec=job.resolved_spec,
            checkpoint=_checkpoint(job),
            previous_checkpoint=Checkpoint(**job.previous_checkpoint) if job.previous_checkpoint else None,
            epochs_done=job.epochs_done,
            numerics=job.numerics,
            active_seconds=job.active_seconds,
            lease_until=job.lease_until,
        )


class Waiting(NamedTuple):
    """A job that could be claimed now."""

    job_id: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """A file that the job leaves, already in the storage under `key`."""

    name: str
    key: str
    sha256: str
    size_bytes: int


def waiting(session: Session, queues: Sequence[str], limit: int = 100) -> list[Waiting]:
    """Return the jobs of these queues that could be claimed now, the best first. Takes no lock."""
    rows = session.execute(_claimable(queues, Job.id, Job.queue).limit(limit)).tuples()
    return [Waiting(*row) for row in rows]


def claim(
    session: Session,
    worker_id: str,
    queues: Sequence[str],
    *,
    host: str,
    device: str = "cpu",
    lease_seconds: float = LEASE_SECONDS,
) -> Claim | None:
    """Take the best waiting job of these queues: highest priority, then oldest. None where nothing waits.

    PostgreSQL skips rows that others are just taking; SQLite's writers come one after another.
    """
    best = _claimable(queues, Job.id).limit(1).with_for_update(skip_locked=True).scalar_subquery()
    job = session.scalars(
        update(Job)
        .where(Job.id == best, Job.state == "queued")
        .values(
            state="running",
            stage="starting",
            fence=Job.fence + 1,
            attempt=Job.attempt + 1,
            worker_id=worker_id,
            lease_until=now(lease_seconds),
            run_after=None,
            version=Job.version + 1,
        )
        .returning(Job),
        execution_options=FRESH,
    ).one_or_none()
    if job is None:
        return None
    session.execute(
        insert(Attempt).values(
            job_id=job.id,
            number=job.attempt,
            fence=job.fence,
            worker_id=worker_id,
            host=host,
            device=device,
            from_epoch=job.checkpoint_epoch or 0,
        )
    )
    record(session, job, "job.claimed", {"attempt": job.attempt, "worker": worker_id})
    return Claim.of(job)


def _claimable(queues: Sequence[str], *columns: ColumnElement[Any] | Any) -> Any:
    return (
        select(*columns)
        .where(
            Job.state == "queued",
            Job.desired == "run",
            Job.queue.in_(queues),
            or_(Job.run_after.is_(None), Job.run_after <= now()),
        )
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
    )


def start(
    session: Session,
    job_id: str,
    fence: int,
    *,
    resolved_spec: Mapping[str, Any],
    numerics: Mapping[str, Any],
    from_epoch: int,
    pid: int | None = None,
    device: str | None = None,
) -> Desired:
    """Note that the trainer's plan stands. The numerics of the first start are kept; others are recorded as a change.

    Raises:
        OwnershipLost: another worker owns the job.
    """
    job = owned(session, job_id, fence)
    first = job.numerics or dict(numerics)
    job = _owned_change(
        session,
        job,
        {
            "resolved_spec": dict(resolved_spec),
            "numerics": first,
            "started_at": func.coalesce(Job.started_at, now()),
        },
    )
    attempt = {"pid": pid, "device": device, "from_epoch": from_epoch}
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job_id, Attempt.number == job.attempt)
        .values({key: value for key, value in attempt.items() if value is not None}),
        execution_options={"synchronize_session": False},
    )
    record(session, job, "job.started", {"attempt": job.attempt, "from_epoch": from_epoch, "numerics": dict(numerics)})
    if first != numerics:
        decide(
            session, job, [{"kind": "numerics_changed", "epoch": from_epoch, "before": first, "now": dict(numerics)}]
        )
    return _desired(job)


def heartbeat(
    session: Session,
    job_id: str,
    fence: int,
    lease_seconds: float = LEASE_SECONDS,
    *,
    progress: Mapping[str, Any] | None = None,
    stage: str | None = None,
) -> Desired:
    """Renew the lease, tell clients where the job is, and return what its owner wants.

    Raises:
        OwnershipLost: another worker owns the job.
    """
    seen = {} if progress is None else {"progress": dict(progress), "version": Job.version + 1}
    desired = session.scalars(
        update(Job)
        .where(Job.id == job_id, Job.state == "running", Job.fence == fence)
        .values(lease_until=now(lease_seconds), **seen)
        .returning(Job.desired),
        execution_options={"synchronize_session": False},
    ).one_or_none()
    if desired is None:
        raise ownership_lost(job_id, fence)
    if stage is not None:
        job = change(session, job_id, Job.fence == fence, Job.stage.is_distinct_from(stage), values={"stage": stage})
        if job is not None:
            record(session, job, "job.stage", {"stage": stage})
    return desired  # pyrefly: ignore[bad-return] - a check constraint holds it


def wish(session: Session, job_id: str, fence: int) -> Desired:
    """Return what the job's owner wants, by one read without a lock; cheap enough for two a second.

    Raises:
        OwnershipLost: another worker owns the job.
    """
    statement = select(Job.desired).where(Job.id == job_id, Job.state == "running", Job.fence == fence)
    desired = session.scalars(statement).one_or_none()
    if desired is None:
        raise ownership_lost(job_id, fence)
    return desired  # pyrefly: ignore[bad-return] - a check constraint holds it


def publish(
    session: Session,
    job_id: str,
    fence: int,
    *,
    checkpoint: Checkpoint,
    rows: Sequence[Mapping[str, Any]],
    decisions: Sequence[Mapping[str, Any]] = (),
    best: Mapping[str, Any] | None = None,
    progress: Mapping[str, Any] | None = None,
    active_seconds: float = 0.0,
) -> Desired:
    """Make finished epochs visible together with the checkpoint that holds them, and reset the budgets.

    The same publication may come twice: its owner repeats it when the database went away before it had answered.

    Args:
        rows: metrics rows of the wire, epochs rising without a gap; none for a checkpoint in mid-epoch.
        active_seconds: training time of the job up to here, earlier attempts included.

    Raises:
        OwnershipLost: another worker owns the job.
        ValueError: the rows do not follow those that are published.
        sqlalchemy.exc.IntegrityError: a row was published before; a bug.
    """
    job = owned(session, job_id, fence)
    if job.checkpoint_key == checkpoint.key and job.checkpoint_sha256 == checkpoint.sha256:
        return _desired(job)
    epochs = [int(row["epoch"]) for row in rows]
    _check_order(job, epochs)
    values: dict[str, Any] = {
        "checkpoint_key": checkpoint.key,
        "checkpoint_sha256": checkpoint.sha256,
        "checkpoint_epoch": checkpoint.epoch,
        "previous_checkpoint": current.as_json() if (current := _checkpoint(job)) else None,
        "active_seconds": max(job.active_seconds, active_seconds),
    }
    if rows:
        values |= {"epochs_done": epochs[-1], "latest_metrics": dict(rows[-1])}
        values |= {"crashes_no_progress": 0, "losses_no_progress": 0}
        bodies = [dumps(row, allow_nan=False, separators=(",", ":")) for row in rows]
        session.execute(
            insert(Epoch),
            [
                {"job_id": job_id, "epoch": epoch, "fence": fence, "attempt": job.attempt, "body": body}
                for epoch, body in zip(epochs, bodies, strict=True)
            ],
        )
    if best is not None:
        values["best"] = dict(best)
    if progress is not None:
        values["progress"] = dict(progress)
    job = _owned_change(session, job, values)
    decide(session, job, decisions)
    if rows:
        record(session, job, "job.epoch", {"epoch": epochs[-1], "first_epoch": epochs[0], "attempt": job.attempt})
    else:
        record(session, job, "job.checkpoint", {"epoch": checkpoint.epoch, "attempt": job.attempt})
    return _desired(job)


def finish(
    session: Session,
    job_id: str,
    fence: int,
    *,
    state: TerminalState,
    stop_reason: str,
    end: AttemptEnd,
    error: Mapping[str, Any] | None = None,
    artifacts: Sequence[ArtifactFile] = (),
    test_metrics: Mapping[str, Any] | None = None,
    best: Mapping[str, Any] | None = None,
    decisions: Sequence[Mapping[str, Any]] = (),
) -> None:
    """End the job for good.

    Raises:
        OwnershipLost: another worker owns the job.
    """
    job = owned(session, job_id, fence)
    if artifacts:
        session.execute(
            insert(Artifact),
            [
                {"job_id": job_id, "name": a.name, "key": a.key, "sha256": a.sha256, "size_bytes": a.size_bytes}
                for a in artifacts
            ],
        )
    decide(session, job, decisions)
    end_attempt(session, job, state, end.values())
    move(
        session,
        job,
        state,
        event=f"job.{state}",
        body={"stop_reason": stop_reason, "error": dict(error) if error else None, "epoch": job.epochs_done},
        values={
            "stop_reason": stop_reason,
            "error": dict(error) if error else None,
            "active_seconds": max(job.active_seconds, end.active_seconds),
            **({"test_metrics": dict(test_metrics)} if test_metrics is not None else {}),
            **({"best": dict(best)} if best is not None else {}),
        },
    )


def pause(session: Session, job_id: str, fence: int, *, end: AttemptEnd) -> State:
    """Let go of a job whose trainer stopped at a checkpoint, as its owner wanted.

    Returns:
        `paused`; `cancelled` or `queued` where the owner wants that by now.

    Raises:
        OwnershipLost: another worker owns the job.
    """
    job = owned(session, job_id, fence)
    values = {"active_seconds": max(job.active_seconds, end.active_seconds)}
    end_attempt(session, job, "cancelled" if job.desired == "cancel" else "paused", end.values())
    body = {"attempt": job.attempt, "epoch": job.epochs_done}
    match job.desired:
        case "cancel":
            body["stop_reason"] = "cancelled"
            values["stop_reason"] = "cancelled"
            return _moved(move(session, job, "cancelled", event="job.cancelled", body=body, values=values))
        case "pause":
            return _moved(move(session, job, "paused", event="job.paused", body=body, values=values))
        case _:
            return _moved(move(session, job, "queued", event="job.requeued", body=body, values=values))


def requeue(
    session: Session,
    job_id: str,
    fence: int,
    *,
    outcome: str,
    end: AttemptEnd,
    counts_as: CountsAs | None,
    delay_seconds: float | None = None,
    budgets: Budgets | None = None,
) -> State:
    """Give back a job whose attempt crashed or was drained; `verdicts` decides what becomes of it.

    Args:
        outcome: `crashed` or `drained`.
        counts_as: the budget that this attempt used up; none for a drain and for a full disk.
        delay_seconds: instead of the back-off of `verdicts.delay_seconds`.

    Returns:
        `queued`; `cancelled` or `paused` where its owner wanted that; `failed` where it is given up.

    Raises:
        OwnershipLost: another worker owns the job.
    """
    job = owned(session, job_id, fence)
    return fail_attempt(
        session,
        job,
        outcome,
        end,
        event="job.requeued",
        counts_as=counts_as,
        budgets=budgets or Budgets(),
        delay_seconds=delay_seconds,
    )


def reap(session: Session, *, budgets: Budgets | None = None, limit: int = REAP_LIMIT) -> list[str]:
    """Take jobs away from workers whose lease is over, and return their ids.

    Call it only after a whole lease time of unbroken contact with the database: after an outage every lease is over,
    and its owner needs that long to renew it. A heartbeat that holds the row's lock wins.
    """
    over = (
        select(Job)
        .where(Job.state == "running", Job.lease_until < now())
        .order_by(Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    jobs = session.scalars(over, execution_options={"populate_existing": True}).all()
    for job in jobs:
        end = AttemptEnd(code="lost", message="The worker did not renew its lease.")
        fail_attempt(session, job, "lost", end, event="job.lost", counts_as="loss", budgets=budgets or Budgets())
    return [job.id for job in jobs]


def _check_order(job: Job, epochs: Sequence[int]) -> None:
    """Refuse a gap. A row for epoch 0 (`evaluate_at_start`) may come before all others."""
    if not epochs:
        return
    begin = 0 if job.epochs_done == 0 and epochs[0] == 0 else job.epochs_done + 1
    if epochs != list(range(begin, begin + len(epochs))):
        raise ValueError(f"{job.id}: epochs {epochs} do not follow the {job.epochs_done} that are published")


def _owned_change(session: Session, job: Job, values: Mapping[str, Any]) -> Job:
    changed = change(session, job.id, Job.state == "running", Job.fence == job.fence, values=values)
    if changed is None:
        raise ownership_lost(job.id, job.fence)
    return changed


def _checkpoint(job: Job) -> Checkpoint | None:
    if job.checkpoint_key is None or job.checkpoint_sha256 is None:
        return None
    return Checkpoint(key=job.checkpoint_key, sha256=job.checkpoint_sha256, epoch=job.checkpoint_epoch or 0)


def _desired(job: Job) -> Desired:
    return job.desired  # pyrefly: ignore[bad-return] - a check constraint holds it


def _moved(job: Job) -> State:
    return job.state  # pyrefly: ignore[bad-return] - a check constraint holds it
