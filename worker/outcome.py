"""How the end of an attempt is read: what happened, whether it is tried again, and what the user is told.

The table of `delivery.md`, as functions without side effects.
"""

import signal
from dataclasses import dataclass
from typing import Literal

from core.full_disk import is_full
from core.messages import Failed, StopReason
from core.process import Exit, describe

Counts = Literal["crash", "loss"]
Category = Literal["spec", "data", "training", "resources", "infrastructure"]


@dataclass(frozen=True, slots=True)
class Failure:
    """The reading of one failed attempt."""

    code: str
    message: str
    """What happened, and what the user can do."""
    category: Category
    is_retryable: bool
    counts_as: Counts | None = None
    """Which budget it takes from."""
    stop_reason: StopReason = "error"


ADVICE: dict[str, tuple[Category, str]] = {
    "spec_invalid": ("spec", "Correct the spec and post it again."),
    "data_invalid": ("data", "Correct the data set, upload it again and post the job with the new version."),
    "non_finite": ("training", "Lower the learning rate, clip the gradients or scale the inputs."),
    "diverged": ("training", "Lower the learning rate, or raise early_stopping.divergence_threshold."),
    "time_limit": ("resources", "Raise execution.max_runtime_seconds and post it again; finished epochs stay."),
    "gpu_oom": ("resources", "Lower batch_size (accumulate_grad_batches keeps the update the same) or use bf16-mixed."),
    "checkpoint_invalid": ("infrastructure", "Check the storage. The rows are kept; post the job again to start anew."),
    "disk_full": ("resources", "Free space on the disk of artifacts and caches; the job goes on by itself."),
    "oom": ("resources", "Lower batch_size, data.max_samples or the model's size, or give the trainer more memory."),
    "killed": ("infrastructure", "Something outside ended the trainer: look into the logs of machine and container."),
    "crash": ("infrastructure", "Read the attempt's log: GET /v1/jobs/{id}/logs."),
    "stalled": ("infrastructure", "Read the attempt's log; work that is silent for longer needs EPOCHD_STALL_SECONDS."),
}  # fmt: skip
"""By code: the category, and what to do. A crash's advice also stands in the error of a job that is given up."""
FINAL = frozenset(
    {"spec_invalid", "data_invalid", "non_finite", "diverged", "time_limit", "gpu_oom", "checkpoint_invalid"}
)
"""Trying again would end the same way."""


def of_code(code: str, what: str, *, stop_reason: StopReason = "error") -> Failure:
    """Return the reading of an attempt whose trainer or supervisor knows the reason.

    Args:
        code: one of `ADVICE`; another one counts as `crash`.
        what: what happened, with numbers.
        stop_reason: for a job that will not be tried again.
    """
    code = code if code in ADVICE else "crash"
    category, advice = ADVICE[code]
    is_final = code in FINAL
    return Failure(
        code=code,
        message=f"{what.rstrip('.')}. {advice}",
        category=category,
        is_retryable=not is_final,
        counts_as=None if is_final or code == "disk_full" else "crash",
        stop_reason=stop_reason,
    )


def of_error(error: OSError, what: str) -> Failure:
    """Return the reading of an attempt whose files the supervisor could not handle."""
    return of_code("disk_full" if is_full(error) else "crash", f"{what}: {error}")


def of_failure(failed: Failed) -> Failure:
    """Return the reading of an attempt whose trainer said why it cannot go on."""
    by_code: dict[str, StopReason] = {
        "non_finite": "non_finite", "diverged": "diverged", "time_limit": "time_limit",
    }  # fmt: skip
    return of_code(failed.code, failed.message, stop_reason=by_code.get(failed.code, failed.stop_reason))


def of_exit(how: Exit | None, *, was_oom: bool) -> Failure:
    """Return the reading of a trainer that ended without a word."""
    what = f"The trainer ended without its last word ({describe(how)})"
    if how is not None and how.signal == signal.SIGKILL:
        if was_oom:
            return of_code("oom", "The kernel killed the trainer because memory ran out")
        return of_code("killed", what)
    return of_code("crash", what)
