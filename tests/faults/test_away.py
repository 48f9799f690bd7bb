"""Broker or database away for a while: nothing is refused that need not be, nothing is lost."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.harness import EPOCHS, MODEL, SPEC, Poller, assert_undisturbed, wait_for_epochs
from tests.servers import Postgres, Redis
from tests.service import Service

AWAY_SECONDS = 20.0

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]


@pytest.mark.redis
@pytest.mark.postgres
def test_job_posted_while_redis_is_away_runs_once_it_is_back(
    tmp_path: Path, private_redis: Callable[[], Redis], postgres_url: str
) -> None:
    broker = private_redis()
    settings = {"EPOCHD_BROKER_URL": broker.url, "EPOCHD_DATABASE_URL": postgres_url}
    with Service(tmp_path, settings) as service:
        broker.kill()
        job_id = service.submit({**SPEC, "epochs": 2})["id"]
        broker.start()
        assert service.finish(job_id)["status"] == "succeeded"


@pytest.mark.postgres
def test_training_goes_on_while_postgresql_is_away(tmp_path: Path, private_postgres: Callable[[], Postgres]) -> None:
    database = private_postgres()
    with Service(tmp_path, {"EPOCHD_DATABASE_URL": database.url}) as service:
        undisturbed = service.finish(service.submit(SPEC)["id"])["id"]
        job_id = service.submit(SPEC)["id"]
        with Poller(service, job_id) as poller:
            wait_for_epochs(service, job_id, 3)
            database.kill()
            assert service.client.post("/v1/jobs", json=SPEC).status_code == 503
            time.sleep(AWAY_SECONDS)
            database.start()
            service.wait_ready()
            assert_undisturbed(service, job_id, service.artifact(undisturbed, MODEL))
        assert poller.violations == []
        assert service.job(job_id)["attempt"] == 1
        assert len(poller.rows) == EPOCHS
