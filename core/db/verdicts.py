"""What becomes of a job whose attempt ended before the job did: pure arithmetic, no statement.

The owner's wish comes first (a lost job that was to be cancelled is cancelled), then the budgets:
`CRASHES` crashes or `LOSSES` losses with no newly published epoch, or as many failed attempts as the spec allows.
"""

from dataclasses import dataclass
from typing import Any, Literal

from core.db.states import State

CountsAs = Literal["crash", "loss"]
Outcome = Literal["crashed", "lost", "drained"]

CRASHES = 3  # attempts that crashed, since the last published epoch
LOSSES = 5  # attempts whose lease ended, since the last published epoch
CRASH_LIMIT_SECONDS = 60.0
DISK_FULL_SECONDS = 60.0
DISK_FULL_LIMIT_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """How often a job may fail without getting on."""

    crashes: int = CRASHES
    losses: int = LOSSES


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One attempt's end, with the job's past.

    Attributes:
        outcome: a drained attempt is free of charge.
        code: why, such as `killed`, `disk_full`, `drained`, `lost`.
        crashes: with this one, since the last published epoch.
        losses: with this one, since the last published epoch.
        failed_attempts: with this one, crashed or lost ever; a full disk is not counted.
        same_in_a_row: last attempts that ended with this code, with this one.
        max_attempts: of the spec.
        message: what happened, and what to do.
    """

    desired: str
    outcome: Outcome
    code: str
    counts_as: CountsAs | None
    crashes: int
    losses: int
    failed_attempts: int
    same_in_a_row: int
    max_attempts: int | None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The job's next state, and how long it has to wait there or why it is given up."""

    state: State
    delay_seconds: float = 0.0
    code: str | None = None
    message: str | None = None


def verdict(failure: Failure, budgets: Budgets) -> Verdict:
    """Decide what becomes of the job."""
    if failure.desired == "cancel":
        return Verdict(state="cancelled")
    if (reason := _given_up(failure, budgets)) is not None:
        return reason
    if failure.desired == "pause":
        return Verdict(state="paused")
    return Verdict(state="queued", delay_seconds=delay_seconds(failure))


def _given_up(failure: Failure, budgets: Budgets) -> Verdict | None:
    if failure.counts_as is None:
        return None
    last = f"the last ended with {failure.code!r}. {failure.message or 'Look at its log.'}"
    if failure.crashes >= budgets.crashes or failure.losses >= budgets.losses:
        message = (
            f"Given up after {failure.crashes} crashes and {failure.losses} lost workers without a finished epoch; "
            f"{last}"
        )
        return Verdict(state="failed", code="poison", message=message)
    if failure.max_attempts is not None and failure.failed_attempts >= failure.max_attempts:
        message = (
            f"Given up after {failure.failed_attempts} failed attempts, as many as execution.max_attempts allows; "
            f"{last}"
        )
        return Verdict(state="failed", code=failure.code, message=message)
    return None


def delay_seconds(failure: Failure) -> float:
    """Return the back-off before the next attempt.

    A crash waits 2^n seconds where n counts the crashes before it without progress, at most 60; a full disk waits
    60·2^n seconds where n counts the full disks just before it, at most 15 minutes; a drain or a loss waits not at all.
    """
    if failure.code == "disk_full":
        return min(DISK_FULL_SECONDS * 2 ** min(failure.same_in_a_row - 1, 10), DISK_FULL_LIMIT_SECONDS)
    if failure.counts_as == "crash":
        return min(2.0 ** min(failure.crashes - 1, 10), CRASH_LIMIT_SECONDS)
    return 0.0


def max_attempts(spec: dict[str, Any]) -> int | None:
    """Return how many failed attempts the spec allows, none: as many as the budgets."""
    return spec.get("execution", {}).get("max_attempts")
