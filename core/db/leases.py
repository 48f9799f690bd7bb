"""What workers do with jobs, guarded by lease and fence.

A worker owns a job by its lease and its fence. Every statement here is guarded by both the state and the fence; one
that hits no row raises `OwnershipLost`: stop the trainer, write nothing more.

    queued ── claim ──▶ running ── finish ──▶ succeeded / failed / cancelled
       ▲                  │ │ │
       ├──── requeue ─────┘ │ └── pause ────▶ paused
       └──── reap ──────────┘
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from core.db.claims import LEASE_SECONDS, Checkpoint, Claim, Waiting, claim, waiting
from core.db.clock import now
from core.db.endings import AttemptEnd, fail_attempt
from core.db.publications import publish
from core.db.states import Desired, State, TerminalState, in_state
from core.db.tables import Artifact, Attempt, Job
from core.db.transitions import change, decide, end_attempt, move, owned, ownership_lost, record
from core.db.verdicts import Budgets, CountsAs, Outcome

__all__ = [
    "LEASE_SECONDS",
    "ArtifactFile",
    "AttemptEnd",
    "Budgets",
    "Checkpoint",
    "Claim",
    "Outcome",
    "Waiting",
    "claim",
    "finish",
    "heartbeat",
    "pause",
    "publish",
    "reap",
    "requeue",
    "start",
    "waiting",
    "wish",
]  # fmt: skip

REAP_LIMIT = 100  # jobs of one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """A file that the job leaves, already in the storage under `key`."""

    name: str
    key: str
    sha256: str
    size_bytes: int


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
    decisions: Sequence[Mapping[str, Any]] = (),
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
    decide(session, job, decisions)
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
    seen: dict[str, Any] = {} if progress is None else {"progress": dict(progress), "version": Job.version + 1}
    desired = session.scalars(
        update(Job)
        .where(Job.id == job_id, Job.state == "running", Job.fence == fence)
        .values({"lease_until": now(lease_seconds), **seen})
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
    values: dict[str, Any] = {"active_seconds": max(job.active_seconds, end.active_seconds)}
    end_attempt(session, job, "cancelled" if job.desired == "cancel" else "paused", end.values())
    body: dict[str, Any] = {"attempt": job.attempt, "epoch": job.epochs_done}
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
    outcome: Outcome,
    end: AttemptEnd,
    counts_as: CountsAs | None,
    delay_seconds: float | None = None,
    budgets: Budgets | None = None,
) -> State:
    """Give back a job whose attempt crashed or was drained; `verdicts` decides what becomes of it.

    `outcome` is `crashed` or `drained`; `counts_as` names the budget that this attempt used up, none for a drain and
    for a full disk; `delay_seconds` stands instead of the back-off of `verdicts.delay_seconds`.

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
        .where(in_state("running"), Job.lease_until < now())
        .order_by(Job.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    jobs = session.scalars(over, execution_options={"populate_existing": True}).all()
    for job in jobs:
        end = AttemptEnd(code="lost", message="The worker did not renew its lease.")
        fail_attempt(session, job, "lost", end, event="job.lost", counts_as="loss", budgets=budgets or Budgets())
    return [job.id for job in jobs]


def _owned_change(session: Session, job: Job, values: Mapping[str, Any]) -> Job:
    changed = change(session, job.id, Job.state == "running", Job.fence == job.fence, values=values)
    if changed is None:
        raise ownership_lost(job.id, job.fence)
    return changed


def _desired(job: Job) -> Desired:
    return job.desired  # pyrefly: ignore[bad-return] - a check constraint holds it


def _moved(job: Job) -> State:
    return job.state  # pyrefly: ignore[bad-return] - a check constraint holds it
