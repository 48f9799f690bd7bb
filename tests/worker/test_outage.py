"""The database goes away while a trainer works: nothing is lost, nothing twice."""

import time
from collections.abc import Callable

import pytest

from tests.servers import Postgres
from tests.service import eventually
from tests.worker.conftest import Desk
from tests.worker.doubles.trainer_double import weights

pytestmark = [pytest.mark.postgres, pytest.mark.fault]


def test_epochs_finished_during_an_outage_are_published_afterwards(
    make_desk: Callable[..., Desk], private_postgres: Callable[[], Postgres]
) -> None:
    server = private_postgres()
    desk = make_desk(database_url=server.url, lease_seconds=30.0)
    job_id = desk.submit(epochs=60, epoch_seconds=0.1)
    carrying = desk.carry_in_background()
    assert eventually(lambda: desk.job(job_id).epochs_done >= 5)
    server.kill()
    time.sleep(3.0)
    server.start()
    carrying.join()
    job = desk.job(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert desk.epochs(job_id) == list(range(1, 61))
    assert desk.model(job_id) == weights(60)


def test_job_that_ends_during_an_outage_is_finished_afterwards(
    make_desk: Callable[..., Desk], private_postgres: Callable[[], Postgres]
) -> None:
    server = private_postgres()
    desk = make_desk(database_url=server.url, lease_seconds=30.0)
    job_id = desk.submit(epochs=15, epoch_seconds=0.1)
    carrying = desk.carry_in_background()
    assert eventually(lambda: desk.job(job_id).epochs_done >= 2)
    server.kill()
    folder = desk.site.storage.local_path(f"jobs/{job_id}/1")
    assert folder is not None
    assert eventually((folder / "model.safetensors").exists)
    time.sleep(0.5)
    server.start()
    carrying.join()
    assert desk.job(job_id).state == "succeeded"
    assert desk.epochs(job_id) == list(range(1, 16))


def test_trainer_is_stopped_at_a_checkpoint_when_the_outage_is_long(
    make_desk: Callable[..., Desk], private_postgres: Callable[[], Postgres]
) -> None:
    server = private_postgres()
    desk = make_desk(database_url=server.url, lease_seconds=30.0, outage_seconds=1.0)
    job_id = desk.submit(epochs=1000, epoch_seconds=0.1)
    carrying = desk.carry_in_background()
    assert eventually(lambda: desk.job(job_id).epochs_done >= 2)
    server.kill()
    time.sleep(3.0)
    server.start()
    carrying.join()
    job = desk.job(job_id)
    assert (job.state, job.crashes_no_progress) == ("queued", 0)
    assert desk.epochs(job_id) == list(range(1, job.epochs_done + 1))
    assert job.checkpoint_epoch == job.epochs_done
