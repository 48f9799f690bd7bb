"""Taking a waiting job: the best of the queues, each by one worker only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, Self

from sqlalchemy import ColumnElement, Select, insert, or_, select, union_all, update
from sqlalchemy.orm import Session

from core.db.clock import now
from core.db.states import in_state
from core.db.tables import Attempt, Job
from core.db.transitions import FRESH, Owned, record

Rows = Select[*tuple[Any, ...]]

LEASE_SECONDS = 30.0  # a worker that is silent for so long has lost its jobs
CLAIMERS = 16  # workers whose claims of several queues may overlap without hiding a job from one another


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A published checkpoint file.

    Attributes:
        key: where the storage has it.
        digest: of its bytes, as `core.digests` writes it.
        epoch: finished epochs that it holds.
    """

    key: str
    digest: str
    epoch: int

    def as_json(self) -> dict[str, Any]:
        """Return it as the jobs table keeps the previous one."""
        return {"key": self.key, "digest": self.digest, "epoch": self.epoch}


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
            checkpoint=current_checkpoint(job),
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


def waiting(session: Session, queues: Sequence[str], limit: int = 100) -> list[Waiting]:
    """Return the jobs of these queues that could be claimed now, the best first. Takes no lock."""
    return [Waiting(row.id, row.queue) for row in session.execute(_best(tuple(queues), limit, is_locking=False))]


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
    best = _best(tuple(queues), 1, is_locking=True).subquery()
    job = session.scalars(
        update(Job)
        .where(Job.id == select(best.c.id).scalar_subquery(), in_state("queued"))
        .values(
            {
                "state": "running",
                "stage": "starting",
                "fence": Job.fence + 1,
                "attempt": Job.attempt + 1,
                "worker_id": worker_id,
                "lease_until": now(lease_seconds),
                "run_after": None,
                "version": Job.version + 1,
            }
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


@lru_cache
def _best(queues: tuple[str, ...], limit: int, *, is_locking: bool) -> Rows:
    """Select id and queue of the jobs that could be claimed now, the best first.

    The best of each queue are found by the index, which is ordered within a queue only, then compared: one condition
    on all queues would sort everything that waits. No row is locked but the one that is taken: the best of another
    queue, held for a moment, would be hidden from its own workers.
    """
    ahead = max(limit, CLAIMERS) if is_locking else limit
    heads = [_ordered(Job.queue == queue).limit(ahead) for queue in dict.fromkeys(queues)]
    if len(heads) == 1:
        best = heads[0].limit(limit)
    else:
        found = union_all(*(select(head.subquery().c.id) for head in heads))
        best = _ordered(Job.id.in_(found)).limit(limit)
    if is_locking:
        best = best.with_for_update(skip_locked=True)
    return best


def _ordered(those: ColumnElement[bool]) -> Rows:
    statement = select(Job.id, Job.queue).where(
        those,
        in_state("queued"),
        Job.desired == "run",
        or_(Job.run_after.is_(None), Job.run_after <= now()),
    )
    return statement.order_by(Job.priority.desc(), Job.created_at, Job.id)


def current_checkpoint(job: Job | Owned) -> Checkpoint | None:
    """Return the checkpoint that the row points to."""
    if job.checkpoint_key is None or job.checkpoint_digest is None:
        return None
    return Checkpoint(key=job.checkpoint_key, digest=job.checkpoint_digest, epoch=job.checkpoint_epoch or 0)
