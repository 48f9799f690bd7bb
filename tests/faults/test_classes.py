"""Every way in which an attempt can end badly, for real: its class, what becomes of the job, what the user is told.

The table of `delivery.md`, seen through HTTP and in the rows.
"""

import contextlib
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from core.db.engine import Database
from core.faults import Point
from core.process import KILLED, Template
from core.train.failures import as_failed
from tests.faults.harness import SPEC, attempts, trainers, wait_for_epochs
from tests.faults.lab import SMALL, Lab
from tests.faults.rooms import ARE_POSSIBLE, Room, needs_room
from tests.service import Service, wait_until
from worker.outcome import of_failure

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

STALL_SECONDS = 6.0
EPOCHS = 6
SETTINGS = {
    "EPOCHD_STALL_SECONDS": str(STALL_SECONDS),
    "EPOCHD_STOP_GRACE_SECONDS": "1",
    "EPOCHD_TRAINER_MEMORY_BYTES": str(2 << 30),
    "EPOCHD_MAX_FILE_BYTES": str(32 << 20),
}
REGRESSION: dict[str, Any] = {
    "data": {
        "train": {"type": "synthetic.regression", "samples": 200, "n_features": 4, "seed": 1},
        "val": {"from": "train", "fraction": 0.2},
    },
    "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 1}]},
    "loss": "MSELoss",
    "optimizer": {"type": "SGD", "lr": 0.01},
    "epochs": 20,
    "batch_size": 20,
    "seed": 1,
    "checkpoints": {"every": {"epochs": 1}},
    "execution": {"device": "cpu", "threads": 1},
}


@pytest.fixture(scope="module")
def room() -> Iterator[Room | None]:
    if not ARE_POSSIBLE:
        yield None
        return
    with Room({}) as room:
        room.count_oom_kill(0)
        yield room


@pytest.fixture(scope="module")
def running(room: Room | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("classes")
    faults = folder / "faults"
    faults.mkdir()
    settings = {**SETTINGS, "EPOCHD_FAULTS": str(faults)}
    with Service(folder, settings, within=room.within if room else ()) as service:
        database = Database(f"sqlite:///{folder / 'data' / 'epochd.db'}")
        yield Lab(faults, service, database)
        database.dispose()


@pytest.fixture
def lab(running: Lab) -> Iterator[Lab]:
    yield running
    for armed in running.faults.iterdir():
        armed.unlink()


def failed(
    lab: Lab, job_id: str, code: str, category: str, *, stop_reason: str = "error", attempt: int = 1
) -> dict[str, Any]:
    """Check that a job ended with an error of this class; return it."""
    job = lab.service.finish(job_id)
    assert job["status"] == "failed", (job, lab.ends(job_id), lab.service.log("worker-0"))
    error = job["error"]
    assert (error["code"], error["category"], error["retryable"]) == (code, category, False), error
    assert (job["stop_reason"], error["attempt"], job["attempt"]) == (stop_reason, attempt, attempt)
    assert len(attempts(lab.service, job_id)) == attempt
    assert lab.epochs(job_id) == list(range(1, lab.row(job_id).epochs_done + 1))
    return dict(error)


def succeeded(lab: Lab, job_id: str, epochs: int) -> None:
    """Check that a job succeeded with each of its rows once."""
    job = lab.service.finish(job_id)
    assert job["status"] == "succeeded", (job["error"], lab.ends(job_id), lab.service.log("worker-0"))
    assert job["error"] is None
    assert lab.epochs(job_id) == list(range(1, epochs + 1))


WAYS: list[tuple[Point, str, tuple[str, str | None, int | None, int | None]]] = [
    ("checkpoint.told", "signal SEGV", ("crashed", "crash", signal.SIGSEGV, None)),
    ("checkpoint.told", "signal ABRT", ("crashed", "crash", signal.SIGABRT, None)),
    ("checkpoint.told", "signal KILL", ("crashed", "killed", signal.SIGKILL, None)),
    ("checkpoint.told", "exit 3", ("crashed", "crash", None, 3)),
    ("checkpoint.told", "raise", ("crashed", "crash", None, 0)),
    ("checkpoint.told", "raise ENOMEM", ("crashed", "oom", None, 0)),
]


def test_crashes_with_progress_between_them_are_told_apart_and_never_end_the_job(lab: Lab) -> None:
    epochs = len(WAYS) + 1
    lab.arm(*WAYS[0][:2])
    job_id = lab.service.submit({**SMALL, "epochs": epochs})["id"]
    for (point, _, _), following in zip(WAYS, [*WAYS[1:], None], strict=True):
        lab.wait_fired(point)
        if following is not None:
            lab.arm(*following[:2])
    succeeded(lab, job_id, epochs)
    assert lab.ends(job_id) == [*(end for _, _, end in WAYS), ("succeeded", None, None, 0)]
    tries = attempts(lab.service, job_id)
    assert [(one["from_epoch"], one["to_epoch"]) for one in tries[:-1]] == [(n, n + 1) for n in range(len(WAYS))]
    assert all(one["max_rss_bytes"] > 1 << 20 for one in tries)
    assert "SIGSEGV" in tries[0]["message"]
    assert "GET /v1/jobs/{id}/logs" in tries[0]["message"]
    assert "logs of machine and container" in tries[2]["message"]
    assert "FaultInjected: checkpoint.told" in tries[4]["message"]
    assert "Lower batch_size" in tries[5]["message"]
    retries = lab.decisions(job_id, "retry")
    assert [retry["delay_seconds"] for retry in retries] == [1.0] * len(WAYS)  # each one was the first again
    row = lab.row(job_id)
    assert (row.crashes_no_progress, row.losses_no_progress) == (0, 0)


def test_trainer_that_leaves_without_its_last_word_is_tried_again_though_all_rows_are_there(lab: Lab) -> None:
    lab.arm("trainer.done", "exit 0")
    job_id = lab.service.submit(SMALL)["id"]
    succeeded(lab, job_id, SMALL["epochs"])
    assert lab.ends(job_id) == [("crashed", "crash", None, 0), ("succeeded", None, None, 0)]
    first, second = attempts(lab.service, job_id)
    assert (first["to_epoch"], second["from_epoch"]) == (4, 4)
    assert lab.row(job_id).crashes_no_progress == 1  # no epoch was left to publish
    assert "without its last word (exit code 0)" in first["message"]


def test_three_crashes_at_the_start_are_poison(lab: Lab) -> None:
    lab.arm("trainer.entered", "every signal SEGV")
    job_id = lab.service.submit(SMALL)["id"]
    error = failed(lab, job_id, "poison", "infrastructure", attempt=3)
    assert lab.ends(job_id) == [("crashed", "crash", signal.SIGSEGV, None)] * 3
    assert "Given up after 3 crashes and 0 lost workers" in error["message"]
    assert "SIGSEGV" in error["message"]
    assert "GET /v1/jobs/{id}/logs" in error["message"]
    row = lab.row(job_id)
    assert (row.crashes_no_progress, row.losses_no_progress, row.epochs_done) == (3, 0, 0)
    assert [retry["delay_seconds"] for retry in lab.decisions(job_id, "retry")] == [1.0, 2.0]


def test_five_lost_workers_without_progress_are_poison(lab: Lab) -> None:
    lab.arm("child.starting", "every raise")
    job_id = lab.service.submit(SMALL)["id"]

    def has_ended() -> bool:
        lab.let_lease_end(job_id)
        return lab.row(job_id).state == "failed"

    wait_until(has_ended)
    error = failed(lab, job_id, "poison", "infrastructure", attempt=5)
    assert lab.ends(job_id) == [("lost", "lost", None, None)] * 5
    assert "0 crashes and 5 lost workers" in error["message"]
    assert "did not renew its lease" in error["message"]
    row = lab.row(job_id)
    assert (row.crashes_no_progress, row.losses_no_progress) == (0, 5)


def test_model_that_does_not_fit_into_the_memory_limit_says_so(lab: Lab) -> None:
    wide = [{"type": "Linear", "out_features": 1 << 25}, {"type": "Linear", "out_features": 2}]
    spec = {**SMALL, "model": {"type": "Sequential", "layers": wide}}
    job_id = lab.service.submit({**spec, "execution": {**SPEC["execution"], "max_attempts": 1}})["id"]
    error = failed(lab, job_id, "oom", "resources")
    assert lab.ends(job_id) == [("crashed", "oom", None, 0)]
    assert "as many as execution.max_attempts allows" in error["message"]
    assert "you tried to allocate" in error["message"]
    assert "Lower batch_size" in error["message"]


@needs_room
def test_trainer_that_the_kernel_killed_for_memory_is_oom(lab: Lab, room: Room) -> None:
    lab.arm("trainer.loaded", "wait")
    job_id = lab.service.submit(SMALL)["id"]
    lab.wait_fired("trainer.loaded")
    room.count_oom_kill(1)
    for trainer in trainers(lab.service):
        trainer.kill()
    succeeded(lab, job_id, SMALL["epochs"])
    assert lab.ends(job_id)[0] == ("crashed", "oom", signal.SIGKILL, None)
    assert (
        "The kernel killed the trainer because memory ran out. Lower batch_size"
        in (attempts(lab.service, job_id)[0]["message"])
    )


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), RuntimeError("CUDA error: out of memory")],
    ids=["allocator", "driver"],
)
def test_accelerator_without_memory_ends_the_job_with_what_to_do(error: Exception) -> None:
    failure = of_failure(as_failed(error, 0.0))
    assert (failure.code, failure.category, failure.is_retryable) == ("gpu_oom", "resources", False)
    assert "CUDA" in failure.message
    assert "Lower batch_size (accumulate_grad_batches keeps the update the same)" in failure.message


def test_file_over_the_limit_names_the_setting(lab: Lab) -> None:
    wide = [{"type": "Linear", "out_features": 1 << 19}, {"type": "Linear", "out_features": 2}]
    execution = {**SPEC["execution"], "max_attempts": 1}
    data = {"train": {**SPEC["data"]["train"], "samples": 40}}
    spec = {**SMALL, "data": data, "batch_size": 8, "optimizer": "SGD", "execution": execution}
    job_id = lab.service.submit({**spec, "model": {"type": "Sequential", "layers": wide}})["id"]
    error = failed(lab, job_id, "crash", "infrastructure")
    assert "File too large" in error["message"]
    assert "EPOCHD_MAX_FILE_BYTES" in error["message"]
    assert not list(lab.stored(f"jobs/{job_id}").rglob("*.tmp"))


def test_loss_that_is_not_finite_ends_the_job(lab: Lab) -> None:
    job_id = lab.service.submit({**REGRESSION, "optimizer": {"type": "SGD", "lr": 1e15}})["id"]
    error = failed(lab, job_id, "non_finite", "training", stop_reason="non_finite")
    assert "Lower the learning rate" in error["message"]
    assert lab.ends(job_id) == [("failed", "non_finite", None, 0)]
    assert lab.service.rows(job_id)[-1]["non_finite"]


def test_loss_past_its_threshold_ends_the_job(lab: Lab) -> None:
    stopping = {"monitor": "val_loss", "mode": "min", "divergence_threshold": 1e-9}
    job_id = lab.service.submit({**REGRESSION, "early_stopping": stopping})["id"]
    error = failed(lab, job_id, "diverged", "training", stop_reason="diverged")
    assert "early_stopping.divergence_threshold" in error["message"]
    assert lab.ends(job_id) == [("failed", "diverged", None, 0)]
    assert lab.epochs(job_id) == [1]


def test_time_limit_ends_the_job_and_keeps_its_epochs(lab: Lab) -> None:
    execution = {**SPEC["execution"], "max_runtime_seconds": 1.5}
    job_id = lab.service.submit({**SMALL, "epochs": 100_000, "execution": execution})["id"]
    error = failed(lab, job_id, "time_limit", "resources", stop_reason="time_limit")
    assert "1.5 s of training time are used up" in error["message"]
    assert "Raise execution.max_runtime_seconds" in error["message"]
    assert lab.ends(job_id) == [("failed", "time_limit", None, 0)]
    assert lab.row(job_id).epochs_done >= 1


def test_silent_trainer_is_ended_and_tried_again(lab: Lab) -> None:
    lab.arm("trainer.loaded", "sleep 600")
    job_id = lab.service.submit(SMALL)["id"]
    succeeded(lab, job_id, SMALL["epochs"])
    assert lab.ends(job_id)[0] == ("crashed", "stalled", signal.SIGKILL, None)
    message = attempts(lab.service, job_id)[0]["message"]
    assert "silent for 6 s" in message
    assert "EPOCHD_STALL_SECONDS" in message


def test_trainer_that_writes_garbage_to_its_pipe_is_ended_and_tried_again(lab: Lab) -> None:
    lab.slow()
    job_id = lab.service.submit(SMALL)["id"]
    wait_for_epochs(lab.service, job_id, 2)
    (trainer,) = trainers(lab.service)
    with message_pipe(trainer.pid).open("wb") as pipe:
        pipe.write(b"\n\x00 this is no message\n")
    lab.disarm("checkpoint.told")
    succeeded(lab, job_id, SMALL["epochs"])
    assert lab.ends(job_id) == [("crashed", "crash", signal.SIGKILL, None), ("succeeded", None, None, 0)]
    first, second = attempts(lab.service, job_id)
    assert "sent something that is not a message" in first["message"]
    assert second["from_epoch"] >= 2


def message_pipe(pid: int) -> Path:
    """Return the one pipe that a trainer writes to beside its output."""
    found: list[Path] = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            is_pipe = stat.S_ISFIFO(fd.stat().st_mode)
            flags = int(Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().split("flags:")[1].split()[0], 8)
            if is_pipe and int(fd.name) > 2 and flags & os.O_ACCMODE == os.O_WRONLY:
                found.append(fd)
    (pipe,) = found
    return pipe


def test_trainer_that_does_not_hear_its_stop_is_killed_after_the_grace(lab: Lab) -> None:
    lab.slow()
    job_id = lab.service.submit({**SMALL, "epochs": 1000})["id"]
    wait_for_epochs(lab.service, job_id, 1)
    (trainer,) = trainers(lab.service)
    trainer.suspend()
    assert lab.service.client.post(f"/v1/jobs/{job_id}/pause").status_code == 202
    wait_until(lambda: lab.service.job(job_id)["status"] == "paused")
    assert not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE
    assert lab.ends(job_id) == [("paused", None, signal.SIGKILL, None)]
    row = lab.row(job_id)
    assert (row.crashes_no_progress, row.losses_no_progress) == (0, 0)
    assert lab.epochs(job_id) == list(range(1, row.epochs_done + 1))
    assert lab.service.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert lab.service.finish(job_id)["status"] == "cancelled"


@pytest.mark.parametrize("what", ["crashes", "is killed by its owner"])
def test_children_of_a_child_end_with_it(what: str) -> None:
    children = Path(__file__).parent.parent / "core" / "children"
    with (
        Template(["child_entries"], env={"PYTHONPATH": str(children)}) as template,
        template.spawn("child_entries.hang", {}) as child,
    ):
        message = child.receive(60.0)
        assert message is not None
        grandchild = psutil.Process(int(message["grandchild"]))
        if what == "crashes":
            os.kill(child.pid, signal.SIGSEGV)
        else:
            child.kill()
        assert child.wait(30.0) is not None
        wait_until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def kept_at(lab: Lab, epochs: int) -> str:
    """Kill a trainer when so many epochs are published; its successor waits before it reads anything."""
    lab.slow()
    job_id = str(lab.service.submit({**SMALL, "epochs": EPOCHS})["id"])
    wait_for_epochs(lab.service, job_id, epochs)
    lab.arm("trainer.entered", "wait")
    for trainer in trainers(lab.service):
        trainer.kill()
    lab.wait_fired("trainer.entered")
    lab.disarm("checkpoint.told")
    return job_id


def test_damaged_checkpoint_falls_back_to_the_one_before(lab: Lab) -> None:
    job_id = kept_at(lab, 3)
    row = lab.row(job_id)
    assert row.checkpoint_key is not None
    lab.stored(row.checkpoint_key).write_bytes(b"damaged")
    lab.let_go("trainer.entered")
    succeeded(lab, job_id, EPOCHS)
    first, second = attempts(lab.service, job_id)
    assert second["from_epoch"] == first["to_epoch"] - 1
    (rollback,) = lab.decisions(job_id, "rollback")
    assert rollback["epoch"] == second["from_epoch"]
    assert "not " in rollback["reason"]
    assert "as published" in rollback["reason"]


def test_job_without_a_sound_checkpoint_says_so(lab: Lab) -> None:
    job_id = kept_at(lab, 3)
    row = lab.row(job_id)
    assert row.checkpoint_key is not None
    assert row.previous_checkpoint is not None
    lab.stored(row.checkpoint_key).write_bytes(b"damaged")
    lab.stored(row.previous_checkpoint["key"]).unlink()
    lab.let_go("trainer.entered")
    error = failed(lab, job_id, "checkpoint_invalid", "infrastructure", attempt=2)
    assert "has digest" in error["message"]
    assert "cannot be read" in error["message"]
    assert "Check the storage. The rows are kept; post the job again to start anew" in error["message"]
    assert lab.ends(job_id)[1] == ("failed", "checkpoint_invalid", None, 0)
    assert len(lab.epochs(job_id)) >= 3


def test_data_set_that_is_gone_at_the_start_ends_the_job(lab: Lab) -> None:
    client, folder = lab.service.client, lab.service.folder / "data"
    table = "a,b,y\n" + "".join(f"{n},{n % 7},{n % 2}\n" for n in range(100))
    posted = client.post("/v1/datasets", files={"file": ("t.csv", table.encode())}, data={"format": "csv", "name": "t"})
    assert posted.status_code == 201, posted.text
    data = {"train": {"type": "dataset", "id": posted.json()["id"]}, "columns": {"target": "y"}}
    lab.arm("child.starting", "wait")
    job_id = lab.service.submit({**SMALL, "data": data})["id"]
    lab.wait_fired("child.starting")
    shutil.rmtree(folder / "artifacts" / "datasets")
    shutil.rmtree(folder / "cache" / "data")
    lab.let_go("child.starting")
    error = failed(lab, job_id, "data_invalid", "data")
    assert "the uploaded file is not there any more" in error["message"]
    assert "Correct the data set, upload it again" in error["message"]
    assert lab.ends(job_id) == [("failed", "data_invalid", None, 0)]


def test_jobs_run_after_the_template_was_killed(lab: Lab) -> None:
    lab.arm("trainer.loaded", "wait")
    job_id = lab.service.submit(SMALL)["id"]
    lab.wait_fired("trainer.loaded")
    (template,) = psutil.Process(lab.service.processes["worker-0"].pid).children()
    template.kill()
    succeeded(lab, job_id, SMALL["epochs"])
    assert lab.ends(job_id) == [("crashed", "killed", KILLED.signal, None), ("succeeded", None, None, 0)]
    succeeded(lab, lab.service.submit(SMALL)["id"], SMALL["epochs"])
