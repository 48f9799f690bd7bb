"""What went wrong, in the words of the contract between supervisor and trainer."""

import errno
from typing import Any

import torch

from core.errors import DataInvalid, Issue, SpecInvalid
from core.full_disk import is_full
from core.messages import Failed, StopReason
from core.train.checkpoint import CheckpointInvalid
from core.train.watch import TimeUsedUp

NOT_FINITE = "The training loss or a weight is not finite"
DIVERGED = "The monitored value went past early_stopping.divergence_threshold"
NO_MEMORY = {
    "CUDA error: out of memory": "gpu_oom",
    "CUBLAS_STATUS_ALLOC_FAILED": "gpu_oom",
    "CUDNN_STATUS_ALLOC_FAILED": "gpu_oom",
    "DefaultCPUAllocator": "oom",
}
"""Words in a `RuntimeError` of torch, where it raises nothing more exact."""


def as_failed(error: BaseException, active_seconds: float) -> Failed:
    """Translate an exception."""
    code, stop_reason = _code(error), _stop_reason(error)
    issues: list[dict[str, Any]] = []
    if isinstance(error, SpecInvalid | DataInvalid):
        issues = [issue.as_json() for issue in error.issues]
    message = f"{type(error).__name__}: {error}" if code in ("crash", "oom", "gpu_oom", "disk_full") else str(error)
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        message += " (a trainer's file may not be larger than EPOCHD_MAX_FILE_BYTES)"
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
    if isinstance(error, OSError):
        return _code_of_os(error)
    if isinstance(error, RuntimeError):
        return next((code for words, code in NO_MEMORY.items() if words in str(error)), "crash")
    return "crash"


def _code_of_os(error: OSError) -> str:
    if is_full(error):
        return "disk_full"
    return "oom" if error.errno == errno.ENOMEM else "crash"


def refuse(pointer: str, code: str, detail: str) -> SpecInvalid:
    """Build the error of a spec that cannot run, for one place of it."""
    return SpecInvalid([Issue(pointer, code, detail)])
