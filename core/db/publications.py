"""What every epoch pays for: its row becomes visible, together with the checkpoint that holds it.

This is the transaction that a service runs most. Its statements are built once; it reads what it compares and writes,
not the whole job with its specs. On PostgreSQL, where every statement is a round trip, one writes all tables.
"""

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    JSON,
    Integer,
    UpdateBase,
    bindparam,
    column,
    false,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from core.db.among import is_postgresql
from core.db.claims import Checkpoint, current_checkpoint
from core.db.states import Desired
from core.db.tables import Base
from core.db.transitions import Owned, decide, decision_columns, ownership_lost, record
from core.db.words import Prose, Words

TABLES = Base.metadata.tables
JOBS = TABLES["jobs"]
HELD = (JOBS.c.id == bindparam("held_id"), JOBS.c.state == "running", JOBS.c.fence == bindparam("held_fence"))
OWNED = select(*(JOBS.c[name] for name in Owned._fields)).where(*HELD).with_for_update()
SET = ("checkpoint_key", "checkpoint_digest", "checkpoint_epoch", "previous_checkpoint", "active_seconds")
SET_IF_GIVEN = ("best", "progress", "epochs_done", "latest_metrics", "crashes_no_progress", "losses_no_progress")
CHANGE = (
    update(JOBS)
    .where(*HELD)
    .values({name: bindparam(name) for name in SET})
    .values({name: func.coalesce(bindparam(name, type_=JOBS.c[name].type), JOBS.c[name]) for name in SET_IF_GIVEN})
    .values(version=JOBS.c.version + 1)
)
ROWS = insert(TABLES["epochs"])


def _inserted(changed: CTE, table: str, of: Mapping[str, Any], *, shared: Sequence[str]) -> CTE:
    """Build the insertion of any number of rows: an array for each column of their own, one value for a shared one."""
    arrays = func.unnest(*(bindparam(f"{table}_{name}", type_=ARRAY(kind)) for name, kind in of.items()))
    rows = arrays.table_valued(
        *(column(name, kind) for name, kind in of.items()), name=f"{table}_rows"
    ).render_derived()
    common = [bindparam(f"shared_{name}", type_=TABLES[table].c[name].type) for name in shared]
    chosen = select(changed.c.id, *common, *(rows.c[name] for name in of)).join_from(changed, rows, true())
    return insert(TABLES[table]).from_select(["job_id", *shared, *of], chosen).cte(f"{table}_inserted")


def _written_at_once() -> UpdateBase:
    """Build what changes the job's row and, where its owner still holds it, inserts rows, decisions and the event."""
    changed = CHANGE.returning(JOBS.c.id, JOBS.c.fence).cte("changed")
    inserted = [
        _inserted(changed, "epochs", {"epoch": Integer, "body": Prose}, shared=("attempt", "fence")),
        _inserted(changed, "decisions", {"kind": Words, "epoch": Integer, "body": JSON}, shared=("attempt",)),
    ]
    event = {"type": Words, "body": JSON}
    told = select(
        changed.c.id, changed.c.fence, false(), *(bindparam(f"event_{name}", type_=of) for name, of in event.items())
    )
    events = insert(TABLES["events"]).from_select(["job_id", "fence", "is_terminal", *event], told)
    return events.add_cte(*inserted).execution_options(preserve_rowcount=True)


AT_ONCE = _written_at_once()


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
    if job.checkpoint_key == checkpoint.key and job.checkpoint_digest == checkpoint.digest:
        return job.desired
    epochs = [int(row["epoch"]) for row in rows]
    _check_order(job, epochs)
    values: dict[str, Any] = {
        "checkpoint_key": checkpoint.key,
        "checkpoint_digest": checkpoint.digest,
        "checkpoint_epoch": checkpoint.epoch,
        "previous_checkpoint": current.as_json() if (current := current_checkpoint(job)) else None,
        "active_seconds": max(job.active_seconds, active_seconds),
    }
    if rows:
        values |= {"epochs_done": epochs[-1], "latest_metrics": dict(rows[-1])}
        values |= {"crashes_no_progress": 0, "losses_no_progress": 0}
    if best is not None:
        values["best"] = dict(best)
    if progress is not None:
        values["progress"] = dict(progress)
    bodies = {
        epoch: dumps(row, allow_nan=False, separators=(",", ":")) for epoch, row in zip(epochs, rows, strict=True)
    }
    event, body = "job.checkpoint", {"epoch": checkpoint.epoch, "attempt": job.attempt}
    if rows:
        event, body = "job.epoch", {"epoch": epochs[-1], "first_epoch": epochs[0], "attempt": job.attempt}
    if is_postgresql(session):
        _write_at_once(session, job, values, bodies=bodies, decisions=decisions, event=event, event_body=body)
        return job.desired
    same = {"job_id": job_id, "fence": fence, "attempt": job.attempt}
    if rows:
        session.connection().execute(ROWS, [{**same, "epoch": e, "body": b} for e, b in bodies.items()])
    _change(session, job, values)
    decide(session, job, decisions)
    record(session, job, event, body)
    return job.desired


def _write_at_once(
    session: Session,
    job: Owned,
    values: Mapping[str, Any],
    *,
    bodies: Mapping[int, str],
    decisions: Sequence[Mapping[str, Any]],
    event: str,
    event_body: Mapping[str, Any],
) -> None:
    """Change the job's row and insert all that belongs to it, in one statement.

    The row is locked since `_owned`: the event's id is drawn under its lock, as `transitions` wants it.
    """
    decided = [decision_columns(decision) for decision in decisions]
    more = {
        "epochs_epoch": list(bodies),
        "epochs_body": list(bodies.values()),
        **{f"decisions_{name}": [row[name] for row in decided] for name in ("kind", "epoch", "body")},
        "shared_fence": job.fence,
        "shared_attempt": job.attempt,
        "event_type": event,
        "event_body": dict(event_body),
    }
    _change(session, job, values, AT_ONCE, more)


def _owned(session: Session, job_id: str, fence: int) -> Owned:
    """Lock the job's row for its owner, as `transitions.owned` does."""
    row = session.connection().execute(OWNED, {"held_id": job_id, "held_fence": fence}).one_or_none()
    if row is None:
        raise ownership_lost(job_id, fence)
    return Owned(*row)


def _change(
    session: Session,
    job: Owned,
    values: Mapping[str, Any],
    statement: UpdateBase = CHANGE,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Change the job's row for its owner, and whatever else `statement` does with `more`; clients see a new version."""
    given = {name: values.get(name) for name in (*SET, *SET_IF_GIVEN)}
    held = {"held_id": job.id, "held_fence": job.fence}
    changed = session.connection().execute(statement, {**held, **given, **(more or {})})
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
