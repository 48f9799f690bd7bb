"""The end of an attempt that is not the end of its job's wish: crashed, drained or lost."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.clock import now
from core.db.states import State
from core.db.tables import Attempt, Job
from core.db.transitions import decide, end_attempt, move
from core.db.verdicts import Budgets, CountsAs, Failure, Outcome, Verdict, max_attempts, verdict

_FAILED_OUTCOMES = ("crashed", "lost")
_FREE_CODE = "disk_full"  # no fault of the job: it waits, and no budget and no max_attempts counts it
_ROW_LIMIT = 12  # full disks in a row that still change the back-off


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """How an attempt ended, for its row.

    Attributes:
        code: `killed`, `oom`, `drained`, …; none for a good end.
        message: what happened, and what to do.
        category: who can mend it, for the error of a job that is given up.
        active_seconds: training time of the job up to here, earlier attempts included.
    """

    code: str | None = None
    message: str | None = None
    category: str = "infrastructure"
    exit_code: int | None = None
    signal: int | None = None
    max_rss_bytes: int | None = None
    active_seconds: float = 0.0

    def values(self) -> dict[str, Any]:
        """Return the columns of the attempt's row."""
        return {
            "code": self.code,
            "message": self.message,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "max_rss_bytes": self.max_rss_bytes,
        }


def fail_attempt(
    session: Session,
    job: Job,
    outcome: Outcome,
    end: AttemptEnd,
    *,
    event: str,
    counts_as: CountsAs | None,
    budgets: Budgets,
    delay_seconds: float | None = None,
) -> State:
    """Close the attempt of a locked running job and move the job where the verdict says."""
    failure = Failure(
        desired=job.desired,
        outcome=outcome,
        code=end.code or outcome,
        counts_as=counts_as,
        crashes=job.crashes_no_progress + (counts_as == "crash"),
        losses=job.losses_no_progress + (counts_as == "loss"),
        failed_attempts=_failed_attempts(session, job) + (outcome in _FAILED_OUTCOMES and end.code != _FREE_CODE),
        same_in_a_row=_same_in_a_row(session, job, end.code) + 1,
        max_attempts=max_attempts(job.spec),
        message=end.message,
    )
    found = verdict(failure, budgets)
    wait = found.delay_seconds if delay_seconds is None else delay_seconds
    end_attempt(session, job, outcome, end.values())
    body: dict[str, Any] = {"attempt": job.attempt, "outcome": outcome, "code": failure.code, "epoch": job.epochs_done}
    values: dict[str, Any] = {
        "crashes_no_progress": failure.crashes,
        "losses_no_progress": failure.losses,
        "active_seconds": max(job.active_seconds, end.active_seconds),
    }
    match found.state:
        case "queued":
            body["delay_seconds"] = wait
            values["run_after"] = now(wait) if wait > 0 else None
            decide(session, job, [{"kind": "retry", **body}] if outcome in _FAILED_OUTCOMES else [])
        case "cancelled":
            event, body["stop_reason"] = "job.cancelled", "cancelled"
            values["stop_reason"] = "cancelled"
        case "paused":
            event = "job.paused"
        case _:
            event, error = "job.failed", _error(job, found, end)
            body |= {"stop_reason": "error", "error": error}
            values |= {"stop_reason": "error", "error": error}
    move(session, job, found.state, event=event, body=body, values=values)
    return found.state


def _error(job: Job, found: Verdict, end: AttemptEnd) -> dict[str, Any]:
    return {
        "code": found.code,
        "message": found.message,
        "category": end.category,
        "retryable": False,
        "attempt": job.attempt,
    }


def _failed_attempts(session: Session, job: Job) -> int:
    counted = select(func.count()).where(
        Attempt.job_id == job.id,
        Attempt.outcome.in_(_FAILED_OUTCOMES),
        Attempt.code.is_distinct_from(_FREE_CODE),
    )
    return session.scalar(counted) or 0


def _same_in_a_row(session: Session, job: Job, code: str | None) -> int:
    """Count the ended attempts, newest first, up to the first with another code."""
    newest = (
        select(Attempt.code)
        .where(Attempt.job_id == job.id, Attempt.ended_at.is_not(None))
        .order_by(Attempt.number.desc())
        .limit(_ROW_LIMIT)
    )
    count = 0
    for earlier in session.scalars(newest):
        if earlier != code:
            break
        count += 1
    return count
