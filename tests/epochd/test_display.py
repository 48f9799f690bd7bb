"""What people read while a job runs and when it has ended."""

import io
from typing import Any, cast

import pytest
from rich.console import Console

from epochd.display.live import Bar, Lines, display_for
from epochd.display.numbers import bytes_in_words, number, scalars, seconds_in_words
from epochd.display.summary import closing_table, early_stopping_in_words
from epochd.wire import Artifact, Job, Row


def job(**changes: Any) -> Job:
    body: dict[str, Any] = {
        "id": "job_1", "object": "job", "name": "digits", "metadata": {}, "status": "running", "stage": "training",
        "is_terminal": False, "stop_reason": None, "error": None, "best": None, "latest_metrics": None,
        "progress": {"epoch": 2, "epochs": 10, "fraction": 0.25}, "test_metrics": None, "attempt": 1,
        "created_at": "2026-01-01T00:00:00Z", "started_at": None, "finished_at": None, "queued_seconds": 0.1,
        "spec_digest": "0" * 64, "resolved_spec": None, "next_poll_seconds": 1.0,
        "spec": {"epochs": 10, "early_stopping": {"monitor": "val_loss", "patience": 5}},
    }  # fmt: skip
    return cast("Job", body | changes)


def row(epoch: int, **changes: Any) -> Row:
    body: dict[str, Any] = {
        "epoch": epoch, "step": epoch * 10, "train": {"loss": 0.51234, "accuracy": 0.9},
        "val": {"loss": 0.6, "confusion_matrix": [[1]]}, "lr": [0.003], "seconds": 0.1, "samples_per_second": 12345.6,
        "early_stopping": {"wait": 1, "patience": 5}, "attempt": 1, "recorded_at": "2026-01-01T00:00:01Z",
    }  # fmt: skip
    return cast("Row", body | changes)


def check(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "early_stopping", "epoch": 8, "value": 0.5, "best": 0.4, "best_epoch": 3, "wait": 5, "patience": 5,
        "action": "stop", "reason": "patience",
    } | changes  # fmt: skip


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None, _environ={"TERM": "xterm"})


def pipe() -> Console:
    return Console(file=io.StringIO(), width=200, _environ={})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "words"), [(0.003, "0.003"), (0.96666, "0.9667"), (12.345, "12.35"), (3e-5, "3e-05"), (None, "-")]
)
def test_numbers_have_four_digits(value: float | None, words: str) -> None:
    assert number(value) == words


@pytest.mark.parametrize(("seconds", "words"), [(8.44, "8.4 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


@pytest.mark.parametrize(("size", "words"), [(712, "712 B"), (19046, "18.6 KiB"), (3 << 30, "3.0 GiB")])
def test_bytes_in_words(size: int, words: str) -> None:
    assert bytes_in_words(size) == words


def test_matrices_are_left_out_and_what_is_not_finite_is_named() -> None:
    strange = row(1, val={"loss": None, "confusion_matrix": [[1]]}, non_finite={"val.loss": "nan"})
    assert scalars(strange, "val") == {"loss": "nan"}


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines() -> None:
    assert isinstance(display_for(terminal()), Bar)
    assert isinstance(display_for(pipe()), Lines)


def test_lines_show_each_epoch_once_with_losses_lr_speed_and_patience() -> None:
    console = pipe()
    with Lines(console) as display:
        display.show(job(), [row(1)])
        display.show(job(), [row(2)])
    assert written(console).splitlines() == [
        "running",
        "epoch 1/10  train loss 0.5123  train accuracy 0.9  val loss 0.6  lr 0.003  12,346 samples/s  patience 1/5",
        "epoch 2/10  train loss 0.5123  train accuracy 0.9  val loss 0.6  lr 0.003  12,346 samples/s  patience 1/5",
    ]


def test_lines_say_how_a_paused_job_goes_on_and_when_it_is_a_second_attempt() -> None:
    console = pipe()
    with Lines(console) as display:
        display.show(job(status="paused"), [])
        display.show(job(status="running", attempt=2), [])
    assert written(console).splitlines() == ["paused (epochd resume job_1 lets it go on)", "running (attempt 2)"]


def test_the_bar_shows_epoch_and_numbers() -> None:
    console = terminal()
    with Bar(console) as display:
        display.show(job(), [row(2)])
    shown = written(console)
    assert "digits training" in shown
    assert "epoch 2/10" in shown
    assert "25%" in shown
    assert "val loss 0.6" in shown
    assert "patience 1/5" in shown


def test_the_closing_table_tells_result_best_test_metrics_and_artifacts() -> None:
    ended = job(
        status="succeeded", is_terminal=True, stop_reason="early_stopping",
        best={"epoch": 3, "monitor": "val_loss", "value": 0.4}, test_metrics={"loss": 0.41, "accuracy": 0.97},
        latest_metrics={"train": {"loss": 0.1}, "val": {"loss": 0.5, "accuracy": 0.96}},
        started_at="2026-01-01T00:00:00Z", finished_at="2026-01-01T00:00:08.400Z",
        saved={"epochs": 8, "seconds": 33.6},
    )  # fmt: skip
    console = pipe()
    files: list[Artifact] = [{"name": "model.safetensors", "sha256": "0" * 64, "size_bytes": 19046}]
    console.print(closing_table(ended, [check()], files, row(3)))
    lines = [" ".join(line.split()) for line in written(console).splitlines()]
    assert lines == [
        "job job_1 (digits)",
        "status succeeded, early_stopping",
        "epochs 2 of 10",
        "best val_loss 0.4 at epoch 3",
        "best val loss 0.6",
        "last train loss 0.1",
        "last val loss 0.5 accuracy 0.96",
        "test loss 0.41 accuracy 0.97",
        "early stopping stopped after epoch 8: val_loss did not improve in 5 checks; best val_loss 0.4 at epoch 3",
        "saved 8 epochs, about 33.6 s",
        "took 8.4 s",
        "artifact model.safetensors (18.6 KiB)",
    ]


def test_a_failed_job_tells_its_error() -> None:
    console = pipe()
    failed = job(
        status="failed", is_terminal=True, stop_reason="error", error={"code": "oom", "message": "[no] memory"}
    )
    console.print(closing_table(failed, []))
    assert "oom: [no] memory" in written(console)


@pytest.mark.parametrize(
    ("state", "decisions", "words"),
    [
        (job(spec={"epochs": 10}), [], "not asked for"),
        (job(), [], "no check of val_loss yet"),
        (
            job(is_terminal=True, status="succeeded"),
            [check(action="continue", wait=2)],
            "did not stop it: patience used 2 of 5; best val_loss 0.4 at epoch 3",
        ),
        (
            job(),
            [check(action="continue", wait=2), {"kind": "lr_cut"}],
            "goes on: patience used 2 of 5; best val_loss 0.4 at epoch 3",
        ),
        (
            job(),
            [check(reason="threshold")],
            "stopped after epoch 8: val_loss reached its threshold; best val_loss 0.4 at epoch 3",
        ),
    ],
)
def test_early_stopping_says_its_decision_or_why_there_was_none(
    state: Job, decisions: list[dict[str, Any]], words: str
) -> None:
    assert early_stopping_in_words(state, decisions) == words
