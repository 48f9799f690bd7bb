"""A message is done with before its work begins: what is repeated is decided by leases, never by the broker."""

from collections.abc import Callable

import pytest
import redis

from tests.service import eventually
from tests.worker.conftest import Desk
from tests.worker.test_celery import listening

pytestmark = pytest.mark.redis
UNACKNOWLEDGED = "unacked"
"""Where kombu keeps what a worker took and has not acknowledged, to give it to another one after an hour."""


def test_message_of_a_running_job_is_acknowledged(make_desk: Callable[..., Desk], redis_url: str) -> None:
    desk = make_desk(broker_url=redis_url)
    job_id = desk.submit(epochs=1000, epoch_seconds=0.05)
    with redis.Redis.from_url(redis_url) as broker, listening(desk):
        desk.site.ringing.ring("cpu", job_id)
        assert eventually(lambda: desk.job(job_id).epochs_done >= 1)
        assert (broker.hlen(UNACKNOWLEDGED), broker.llen("cpu")) == (0, 0)
