"""Whatever is killed, the job ends as if nothing had happened: rows 1…E once each, the same bytes of weights."""

import random
import signal
import time

import psutil
import pytest

from tests.faults.conftest import Reference
from tests.faults.harness import SPEC, Poller, assert_undisturbed, attempts, resumes, trainers, wait_for_epochs
from tests.service import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]
RANDOM = random.Random(20)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_killed_trainer_is_resumed_from_its_checkpoint(reference: Reference) -> None:
    service = reference.service
    job_id = service.submit(SPEC)["id"]
    with Poller(service, job_id) as poller:
        for epochs in (2, 6, 10):
            wait_for_epochs(service, job_id, epochs)
            time.sleep(RANDOM.uniform(0.0, 0.2))
            for trainer in trainers(service):
                trainer.kill()
        assert_undisturbed(service, job_id, reference.model)
    assert poller.violations == []
    assert poller.partial_looks > 0
    assert resumes(service, job_id) >= 2
    assert {attempt["signal"] for attempt in attempts(service, job_id)[:-1]} == {int(signal.SIGKILL)}


def test_killed_worker_takes_its_trainer_along_and_the_next_one_resumes(reference: Reference) -> None:
    service = reference.service
    job_id = service.submit(SPEC)["id"]
    with Poller(service, job_id) as poller:
        wait_for_epochs(service, job_id, 3)
        (trainer,) = trainers(service)
        service.kill("worker-0")
        wait_until(lambda: gone(trainer), 3.0)
        service.start("worker-0")
        assert_undisturbed(service, job_id, reference.model)
    assert poller.violations == []
    assert resumes(service, job_id) == 1
    assert attempts(service, job_id)[0]["outcome"] == "lost"


def test_killed_api_loses_no_job(reference: Reference) -> None:
    service = reference.service
    job_id = service.submit(SPEC, **{"Idempotency-Key": "once"})["id"]
    wait_for_epochs(service, job_id, 2)
    service.kill("api")
    service.start("api")
    service.wait_ready()
    assert service.submit(SPEC, **{"Idempotency-Key": "once"})["id"] == job_id
    assert_undisturbed(service, job_id, reference.model)


def test_cancel_ends_the_trainer(reference: Reference) -> None:
    service = reference.service
    job_id = service.submit(SPEC)["id"]
    wait_for_epochs(service, job_id, 2)
    (trainer,) = trainers(service)
    assert service.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    wait_until(lambda: gone(trainer), 2.0, pause=0.02)
    job = service.finish(job_id)
    assert (job["status"], job["stop_reason"]) == ("cancelled", "cancelled")


def test_pause_and_resume_give_the_undisturbed_weights(reference: Reference) -> None:
    service = reference.service
    job_id = service.submit(SPEC)["id"]
    wait_for_epochs(service, job_id, 3)
    assert service.client.post(f"/v1/jobs/{job_id}/pause").status_code == 202
    wait_until(lambda: service.job(job_id)["status"] == "paused")
    assert trainers(service) == []
    assert service.client.post(f"/v1/jobs/{job_id}/resume").status_code == 202
    assert_undisturbed(service, job_id, reference.model)
    assert resumes(service, job_id) == 1


def test_drained_worker_gives_its_job_back_and_ends_well(reference: Reference) -> None:
    service = reference.service
    job_id = service.submit(SPEC)["id"]
    wait_for_epochs(service, job_id, 3)
    service.signal("worker-0", signal.SIGTERM)
    assert service.processes["worker-0"].wait(60) == 0
    assert service.job(job_id)["status"] == "queued"
    assert [attempt["outcome"] for attempt in attempts(service, job_id)] == ["drained"]
    service.start("worker-0")
    assert_undisturbed(service, job_id, reference.model)
    assert resumes(service, job_id) == 1


def test_worker_that_wakes_after_its_successor_is_refused(reference: Reference) -> None:
    service = reference.service
    job_id = service.submit(SPEC)["id"]
    with Poller(service, job_id) as poller:
        wait_for_epochs(service, job_id, 3)
        (trainer,) = trainers(service)
        service.signal("worker-0", signal.SIGSTOP)
        service.start("worker-1")
        wait_until(lambda: any(attempt["number"] == 2 for attempt in attempts(service, job_id)))
        wait_until(lambda: any(row["attempt"] == 2 for row in service.rows(job_id)))
        service.signal("worker-0", signal.SIGCONT)
        wait_until(lambda: gone(trainer))
        assert_undisturbed(service, job_id, reference.model)
    service.signal("worker-1", signal.SIGTERM)
    assert service.processes.pop("worker-1").wait(60) == 0
    assert poller.violations == []
    assert "ownership_lost" in service.log("worker-0")
