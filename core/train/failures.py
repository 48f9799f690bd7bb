"""What went wrong, in the words of the contract between supervisor and trainer."""

import errno
from typing import Any

import torch

from core.errors import DataInvalid, Issue, SpecInvalid
from core.messages import Failed, StopReason
from core.train.checkpoint import CheckpointInvalid
from core.train.watch import TimeUsedUp

NOT_FINITE = "the training loss is not finite: try a smaller lr, gradient_clipping or normalised inputs"
DIVERGED = "the monitored value went past early_stopping.divergence_threshold"


def as_failed(error: BaseException, active_seconds: float) -> Failed:
    """Translate an exception."""
    code, stop_reason = _code(error), _stop_reason(error)
    issues: list[dict[str, Any]] = []
    if isinstance(error, SpecInvalid | DataInvalid):
        issues = [issue.as_json() for issue in error.issues]
    message = f"{type(error).__name__}: {error}" if code in ("crash", "oom", "gpu_oom", "disk_full") else str(error)
    return Failed(code=code, message=message, stop_reason=stop_reason, issues=issues, active_seconds=active_seconds)


def _stop_reason(error: BaseException) -> StopReason:
    return "time_limit" if isinstance(error, TimeUsedUp) else "error"


def _code(error: BaseException) -> str:
    by_type: list[tuple[type[BaseException], str]] = [
        (torch.OutOfMemoryError, "gpu_oom"),
        (SpecInvalid, "spec_invalid"),
        (DataInvalid, "data_invalid"),
        (CheckpointInvalid, "checkpoint_invalid"),
        (TimeUsedUp, "time_limit"),
        (MemoryError, "oom"),
    ]
    for kind, code in by_type:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    return "oom" if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error) else "crash"


def refuse(pointer: str, code: str, detail: str) -> SpecInvalid:
    """Build the error of a spec that cannot run, for one place of it."""
    return SpecInvalid([Issue(pointer, code, detail)])
