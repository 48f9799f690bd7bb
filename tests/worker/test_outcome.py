"""The table of exits in delivery.md, row by row."""

import errno
import signal

import pytest

from core.messages import Failed
from core.process import Exit
from worker.outcome import ADVICE, FINAL, of_code, of_error, of_exit, of_failure


@pytest.mark.parametrize(
    ("how", "was_oom", "code"),
    [
        (Exit(None, signal.SIGKILL, None), False, "killed"),
        (Exit(None, signal.SIGKILL, None), True, "oom"),
        (Exit(None, signal.SIGSEGV, None), False, "crash"),
        (Exit(None, signal.SIGSEGV, None), True, "crash"),
        (Exit(None, signal.SIGABRT, None), False, "crash"),
        (Exit(0, None, None), False, "crash"),
        (Exit(1, None, None), False, "crash"),
        (None, False, "crash"),
    ],
)
def test_trainer_that_ended_without_a_word_is_tried_again(how: Exit | None, was_oom: bool, code: str) -> None:
    failure = of_exit(how, was_oom=was_oom)
    assert (failure.code, failure.is_retryable, failure.counts_as) == (code, True, "crash")


@pytest.mark.parametrize("code", sorted(FINAL))
def test_what_would_end_the_same_way_again_is_not_tried_again(code: str) -> None:
    failure = of_code(code, "It happened")
    assert (failure.is_retryable, failure.counts_as) == (False, None)


def test_full_disk_costs_no_budget() -> None:
    failure = of_code("disk_full", "no space left on device")
    assert (failure.is_retryable, failure.counts_as) == (True, None)


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EACCES, "crash")]
)
def test_file_that_cannot_be_written_is_a_full_disk_or_a_crash(number: int, code: str) -> None:
    failure = of_error(OSError(number, "why"), "A checkpoint could not be kept")
    assert failure.code == code
    assert failure.message.startswith(f"A checkpoint could not be kept: [Errno {number}] why. ")


@pytest.mark.parametrize("code", sorted(ADVICE))
def test_every_message_ends_with_what_to_do(code: str) -> None:
    category, advice = ADVICE[code]
    failure = of_code(code, "It happened")
    assert (failure.category, failure.message) == (category, f"It happened. {advice}")


@pytest.mark.parametrize(
    ("code", "stop_reason"),
    [("non_finite", "non_finite"), ("diverged", "diverged"), ("time_limit", "time_limit"), ("spec_invalid", "error")],
)
def test_stop_reason_names_the_failures_that_have_one(code: str, stop_reason: str) -> None:
    assert of_failure(Failed(code=code, message="m")).stop_reason == stop_reason


def test_message_says_what_happened_and_what_to_do() -> None:
    message = of_code("gpu_oom", "CUDA out of memory: tried to allocate 2 GiB.").message
    assert message.startswith("CUDA out of memory: tried to allocate 2 GiB. Lower batch_size")
