"""One attempt over a real database and a real process; the trainer is a double without torch."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.db import jobs, leases, series
from core.errors import OwnershipLost
from tests.service import eventually
from tests.worker.conftest import Desk
from tests.worker.doubles.trainer_double import weights
from worker.supervisor import Supervisor


def trainers(desk: Desk) -> list[psutil.Process]:
    """Return the children of the site's template."""
    return psutil.Process(desk.site.template.pid).children()


def attempts(desk: Desk, job_id: str) -> list[Any]:
    with desk.site.database.session_scope(write=False) as session:
        return list(series.attempts(session, job_id))


def files(desk: Desk, job_id: str) -> set[str]:
    folder = desk.site.storage.local_path(f"jobs/{job_id}")
    assert folder is not None
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_job_succeeds_with_every_row_once(desk: Desk) -> None:
    job_id = desk.submit(epochs=4)
    desk.carry()
    job = desk.job(job_id)
    assert (job.state, job.stop_reason, job.epochs_done) == ("succeeded", "completed", 4)
    assert desk.epochs(job_id) == [1, 2, 3, 4]
    assert desk.model(job_id) == weights(4)


def test_ended_job_keeps_log_artifacts_and_the_last_two_checkpoints(desk: Desk) -> None:
    job_id = desk.submit(epochs=6, epoch_seconds=0.05)
    desk.carry()
    job = desk.job(job_id)
    assert job.checkpoint_key == f"jobs/{job_id}/1/kept/checkpoint-6-60.pt"
    assert job.previous_checkpoint is not None  # of epoch 5, unless a slow supervisor joined two publications
    published = {key.removeprefix(f"jobs/{job_id}/") for key in (job.checkpoint_key, job.previous_checkpoint["key"])}
    assert files(desk, job_id) == {"1/trainer.log", "1/model.safetensors", *published}


def test_log_has_what_the_trainer_printed(desk: Desk) -> None:
    job_id = desk.submit(epochs=1)
    desk.carry()
    path = desk.site.storage.local_path(f"jobs/{job_id}/1/trainer.log")
    assert path is not None
    assert path.read_text() == f"attempt 1 of {job_id}\n"


@pytest.mark.parametrize(
    ("what", "code", "signal_number", "exit_code"),
    [
        ("kill", "killed", signal.SIGKILL, None),
        ("segfault", "crash", signal.SIGSEGV, None),
        ("exit", "crash", None, 3),
        ("raise", "crash", None, 1),
        ("babble", "crash", signal.SIGKILL, None),
    ],
)
def test_crashed_attempt_is_tried_again_from_its_checkpoint(
    desk: Desk, what: str, code: str, signal_number: int | None, exit_code: int | None
) -> None:
    job_id = desk.submit(epochs=5, epoch_seconds=0.01, faults={"1": {"epoch": 4, "do": what}})
    desk.carry()
    assert desk.job(job_id).state == "queued"
    assert eventually(lambda: _carried(desk))
    assert desk.job(job_id).state == "succeeded"
    assert desk.epochs(job_id) == [1, 2, 3, 4, 5]
    assert desk.model(job_id) == weights(5)
    first, second = attempts(desk, job_id)
    assert (first.outcome, first.code, first.signal, first.exit_code) == ("crashed", code, signal_number, exit_code)
    assert second.from_epoch == 3


def _carried(desk: Desk) -> bool:
    claim = desk.claim()
    if claim is not None:
        Supervisor(desk.site, claim).run()
    return claim is not None


def test_three_crashes_without_progress_are_poison(desk: Desk) -> None:
    fault = {"epoch": 1, "do": "exit"}
    job_id = desk.submit(epochs=3, faults={"1": fault, "2": fault, "3": fault})
    for _ in range(3):
        assert eventually(lambda: _carried(desk))
    job = desk.job(job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "poison"


def test_failure_that_would_repeat_ends_the_job(desk: Desk) -> None:
    job_id = desk.submit(epochs=3, faults={"1": {"do": "refuse", "code": "data_invalid"}})
    desk.carry()
    job = desk.job(job_id)
    assert (job.state, job.stop_reason) == ("failed", "error")
    assert job.error is not None
    assert (job.error["code"], job.error["category"], job.error["attempt"]) == ("data_invalid", "data", 1)
    assert "Correct the data set" in job.error["message"]


def test_full_disk_waits_a_minute(desk: Desk) -> None:
    job_id = desk.submit(epochs=3, faults={"1": {"do": "refuse", "code": "disk_full"}})
    desk.carry()
    job = desk.job(job_id)
    assert job.state == "queued"
    assert job.run_after is not None
    assert desk.claim() is None


def test_artifact_with_another_digest_is_not_taken(desk: Desk) -> None:
    job_id = desk.submit(epochs=2, faults={"1": {"do": "lie"}})
    desk.carry()
    assert desk.job(job_id).state == "queued"
    assert attempts(desk, job_id)[0].code == "crash"


def test_cancel_ends_the_trainer_though_it_does_not_listen(desk: Desk) -> None:
    job_id = desk.submit(epochs=1000, epoch_seconds=0.05, ignores_stop=True)
    carrying = desk.carry_in_background()
    assert eventually(lambda: desk.job(job_id).epochs_done >= 2)
    (trainer,) = trainers(desk)
    desk.ask(jobs.request_cancel, job_id)
    trainer.wait(timeout=2.0)
    carrying.join()
    job = desk.job(job_id)
    assert (job.state, job.stop_reason) == ("cancelled", "cancelled")
    assert desk.epochs(job_id) == list(range(1, job.epochs_done + 1))


def test_pause_and_resume_give_the_undisturbed_weights(desk: Desk) -> None:
    job_id = desk.submit(epochs=12, epoch_seconds=0.1)
    carrying = desk.carry_in_background()
    assert eventually(lambda: desk.job(job_id).epochs_done >= 2)
    desk.ask(jobs.request_pause, job_id)
    carrying.join()
    paused = desk.job(job_id)
    assert paused.state == "paused"
    assert 2 <= paused.epochs_done < 12
    desk.ask(jobs.request_resume, job_id)
    desk.carry()
    assert desk.model(job_id) == weights(12)
    assert desk.epochs(job_id) == list(range(1, 13))
    assert attempts(desk, job_id)[1].from_epoch == paused.epochs_done


def test_drain_gives_the_job_back_free_of_charge(desk: Desk) -> None:
    job_id = desk.submit(epochs=100, epoch_seconds=0.05)
    carrying = desk.carry_in_background()
    assert eventually(lambda: desk.job(job_id).epochs_done >= 1)
    desk.site.shutdown.ask()
    carrying.join()
    job = desk.job(job_id)
    assert (job.state, job.crashes_no_progress, job.run_after) == ("queued", 0, None)
    assert attempts(desk, job_id)[0].outcome == "drained"


def test_second_signal_ends_a_trainer_that_does_not_listen_at_once(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(stop_grace_seconds=600.0)
    job_id = desk.submit(epochs=1000, epoch_seconds=0.05, ignores_stop=True)
    carrying = desk.carry_in_background()
    assert eventually(lambda: desk.job(job_id).epochs_done >= 1)
    desk.site.shutdown.ask()
    desk.site.shutdown.ask()
    carrying.join(timeout=30.0)
    assert not carrying.is_alive()
    assert desk.job(job_id).state == "queued"


def test_silent_trainer_is_stalled(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(stall_seconds=0.5)
    job_id = desk.submit(epochs=5, faults={"1": {"epoch": 2, "do": "hang"}})
    desk.carry()
    assert attempts(desk, job_id)[0].code == "stalled"
    assert desk.job(job_id).state == "queued"


def test_worker_that_lost_its_lease_writes_nothing_more(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(heartbeat_seconds=600.0, lease_seconds=0.01)
    job_id = desk.submit(epochs=1000, epoch_seconds=0.05)
    carrying = desk.carry_in_background()
    assert eventually(lambda: desk.job(job_id).epochs_done >= 2)
    with desk.site.database.session_scope() as session:
        assert leases.reap(session) == [job_id]
    taken = desk.job(job_id)
    carrying.join()
    assert trainers(desk) == []
    after = desk.job(job_id)
    assert (after.state, after.fence, after.epochs_done) == ("queued", taken.fence, taken.epochs_done)
    assert desk.epochs(job_id) == list(range(1, taken.epochs_done + 1))


def test_damaged_checkpoint_falls_back_to_the_one_before(desk: Desk) -> None:
    job_id = desk.submit(epochs=5, epoch_seconds=0.2, faults={"1": {"epoch": 4, "do": "kill"}})
    desk.carry()
    key, previous = desk.job(job_id).checkpoint_key, desk.job(job_id).previous_checkpoint
    assert key is not None
    assert previous is not None
    path = desk.site.storage.local_path(key)
    assert path is not None
    path.write_bytes(b"damaged")
    assert eventually(lambda: _carried(desk))
    assert desk.model(job_id) == weights(5)
    assert desk.epochs(job_id) == [1, 2, 3, 4, 5]
    assert attempts(desk, job_id)[1].from_epoch == previous["epoch"]


def test_storage_elsewhere_gets_the_files_before_the_database_names_them(
    make_desk: Callable[..., Desk], tmp_path: Path
) -> None:
    desk = make_desk(artifacts_url="memory://artifacts")
    job_id = desk.submit(epochs=4, epoch_seconds=0.05, faults={"1": {"epoch": 4, "do": "kill"}})
    desk.carry()
    key = desk.job(job_id).checkpoint_key
    assert key is not None
    assert desk.site.storage.exists(key)
    assert eventually(lambda: _carried(desk))
    assert desk.model(job_id) == weights(4)
    assert desk.site.storage.exists(f"jobs/{job_id}/1/trainer.log")
    assert not list((tmp_path / "cache" / "attempts").rglob("*.pt"))


def test_statement_with_an_old_fence_is_refused(desk: Desk) -> None:
    desk.submit(epochs=1)
    claim = desk.claim()
    assert claim is not None
    with desk.site.database.session_scope() as session, pytest.raises(OwnershipLost):
        leases.wish(session, claim.job_id, claim.fence - 1)
