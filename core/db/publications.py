"""What every epoch pays for: its row becomes visible, together with the checkpoint that holds it.

This is the transaction that a service runs most. Its statements are built once; it reads what it compares and writes,
not the whole job with its specs.
"""

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from core.db.claims import Checkpoint, current_checkpoint
from core.db.states import Desired
from core.db.tables import Base
from core.db.transitions import Owned, decide, ownership_lost, record

TABLES = Base.metadata.tables
JOBS = TABLES["jobs"]
HELD = (JOBS.c.id == bindparam("held_id"), JOBS.c.state == "running", JOBS.c.fence == bindparam("held_fence"))
OWNED = select(*(JOBS.c[name] for name in Owned._fields)).where(*HELD).with_for_update()
SET = ("checkpoint_key", "checkpoint_sha256", "checkpoint_epoch", "previous_checkpoint", "active_seconds")
SET_IF_GIVEN = ("best", "progress", "epochs_done", "latest_metrics", "crashes_no_progress", "losses_no_progress")
CHANGE = (
    update(JOBS)
    .where(*HELD)
    .values({name: bindparam(name) for name in SET})
    .values({name: func.coalesce(bindparam(name, type_=JOBS.c[name].type), JOBS.c[name]) for name in SET_IF_GIVEN})
    .values(version=JOBS.c.version + 1)
)
ROWS = insert(TABLES["epochs"])


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

    `rows` are the wire's metrics rows, epochs rising without a gap; none for a checkpoint in mid-epoch.
    `active_seconds` is the training time of the job up to here, earlier attempts included.

    Raises:
        OwnershipLost: another worker owns the job.
        ValueError: the rows do not follow those that are published.
        sqlalchemy.exc.IntegrityError: a row was published before; a bug.
    """
    job = _owned(session, job_id, fence)
    if job.checkpoint_key == checkpoint.key and job.checkpoint_sha256 == checkpoint.sha256:
        return job.desired
    epochs = [int(row["epoch"]) for row in rows]
    _check_order(job, epochs)
    values: dict[str, Any] = {
        "checkpoint_key": checkpoint.key,
        "checkpoint_sha256": checkpoint.sha256,
        "checkpoint_epoch": checkpoint.epoch,
        "previous_checkpoint": current.as_json() if (current := current_checkpoint(job)) else None,
        "active_seconds": max(job.active_seconds, active_seconds),
    }
    if rows:
        values |= {"epochs_done": epochs[-1], "latest_metrics": dict(rows[-1])}
        values |= {"crashes_no_progress": 0, "losses_no_progress": 0}
        bodies = [dumps(row, allow_nan=False, separators=(",", ":")) for row in rows]
        session.connection().execute(
            ROWS,
            [
                {"job_id": job_id, "epoch": epoch, "fence": fence, "attempt": job.attempt, "body": body}
                for epoch, body in zip(epochs, bodies, strict=True)
            ],
        )
    if best is not None:
        values["best"] = dict(best)
    if progress is not None:
        values["progress"] = dict(progress)
    _change(session, job, values)
    decide(session, job, decisions)
    if rows:
        record(session, job, "job.epoch", {"epoch": epochs[-1], "first_epoch": epochs[0], "attempt": job.attempt})
    else:
        record(session, job, "job.checkpoint", {"epoch": checkpoint.epoch, "attempt": job.attempt})
    return job.desired


def _owned(session: Session, job_id: str, fence: int) -> Owned:
    """Lock the job's row for its owner, as `transitions.owned` does."""
    row = session.connection().execute(OWNED, {"held_id": job_id, "held_fence": fence}).one_or_none()
    if row is None:
        raise ownership_lost(job_id, fence)
    return Owned(*row)


def _change(session: Session, job: Owned, values: Mapping[str, Any]) -> None:
    """Change the job's row for its owner; clients see a new version."""
    given = {name: values.get(name) for name in (*SET, *SET_IF_GIVEN)}
    changed = session.connection().execute(CHANGE, {"held_id": job.id, "held_fence": job.fence, **given})
    if changed.rowcount != 1:
        raise ownership_lost(job.id, job.fence)
    session.expire_all()  # what the caller holds of the job is of before


def _check_order(job: Owned, epochs: Sequence[int]) -> None:
    """Refuse a gap. A row for epoch 0 (`evaluate_at_start`) may come before all others."""
    if not epochs:
        return
    begin = 0 if job.epochs_done == 0 and epochs[0] == 0 else job.epochs_done + 1
    if epochs != list(range(begin, begin + len(epochs))):
        raise ValueError(f"{job.id}: epochs {epochs} do not follow the {job.epochs_done} that are published")
