import errno
import math

import pytest
import torch

from core.errors import DataInvalid, Issue, SpecInvalid
from core.messages import Publish, StageChanged
from core.train.checkpoint import CheckpointInvalid
from core.train.failures import as_failed, refuse
from core.train.journal import with_finite_numbers
from core.train.pipe import Pipe, SupervisorGoneError
from core.train.watch import TimeUsedUp

ISSUE = Issue("/optimizer/lr", "out_of_range", "too large")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecInvalid([ISSUE]), "spec_invalid"),
        (DataInvalid("no labels", issues=[ISSUE]), "data_invalid"),
        (CheckpointInvalid("both are damaged"), "checkpoint_invalid"),
        (TimeUsedUp("used up"), "time_limit"),
        (torch.OutOfMemoryError("CUDA out of memory"), "gpu_oom"),
        (MemoryError(), "oom"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "oom"),
        (RuntimeError("CUDA error: out of memory"), "gpu_oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "gpu_oom"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "crash"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
        (OSError("1000 requested and 0 written"), "disk_full"),
        (OSError(errno.EFBIG, "File too large"), "crash"),
        (OSError(errno.EACCES, "Permission denied"), "crash"),
        (ValueError("anything else"), "crash"),
    ],
)
def test_every_failure_has_its_code(error: Exception, code: str) -> None:
    assert as_failed(error, 1.5).code == code


def test_a_crash_names_the_exception() -> None:
    assert as_failed(ValueError("bad value 7"), 0.0).message == "ValueError: bad value 7"


def test_a_file_over_the_limit_names_the_setting() -> None:
    message = as_failed(OSError(errno.EFBIG, "File too large"), 0.0).message
    assert message.startswith("OSError: [Errno 27] File too large")
    assert "EPOCHD_MAX_FILE_BYTES" in message


def test_issues_of_a_refused_spec_are_kept() -> None:
    failed = as_failed(refuse("/precision", "lbfgs_16_mixed", "cannot"), 0.0)
    assert failed.issues == [{"pointer": "/precision", "code": "lbfgs_16_mixed", "detail": "cannot"}]


def test_values_that_json_has_no_number_for_are_null_and_named() -> None:
    row = {"epoch": 1, "train": {"loss": math.nan, "accuracy": 0.5}, "lr": [math.inf], "val": None}
    assert with_finite_numbers(row) == {
        "epoch": 1, "train": {"loss": None, "accuracy": 0.5}, "lr": [None], "val": None,
        "non_finite": {"train.loss": "nan", "lr.0": "inf"},
    }  # fmt: skip


class Script:
    """A channel that says what was written down for it."""

    def __init__(self, messages: list[dict[str, str]], *, closed: bool = False) -> None:
        self.messages, self.closed, self.sent = messages, closed, list[object]()

    def send(self, message: object) -> None:
        if self.closed:
            raise BrokenPipeError
        self.sent.append(message)

    def receive(self, timeout: float | None = 0) -> dict[str, str] | None:
        return self.messages.pop(0) if self.messages else None


def test_a_stop_is_never_lost_once_it_was_read() -> None:
    pipe = Pipe(Script([{"type": "other"}, {"type": "stop", "reason": "drain"}]))
    assert [pipe.stop_reason(), pipe.stop_reason()] == ["drain", "drain"]


def test_a_supervisor_that_is_gone_is_noticed_by_looking_and_by_sending() -> None:
    with pytest.raises(SupervisorGoneError):
        Pipe(Script([], closed=True)).stop_reason()
    with pytest.raises(SupervisorGoneError):
        Pipe(Script([], closed=True)).stage("training")


def test_stages_are_messages() -> None:
    script = Script([])
    Pipe(script).stage("saving")
    assert script.sent == [StageChanged(stage="saving")]
    assert not isinstance(script.sent[0], Publish)
