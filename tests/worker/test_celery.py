"""The Celery worker over a real Redis: the row decides, the message only wakes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from core.db import workers
from tests.servers import Redis
from tests.service import eventually
from tests.worker.conftest import Desk
from worker.app import CeleryLoop
from worker.housekeeping import Housekeeping
from worker.slots import Slots

pytestmark = pytest.mark.redis


@contextmanager
def listening(desk: Desk, *, housekeeping: bool = False) -> Iterator[CeleryLoop]:
    slots = Slots(desk.site)
    announcement = workers.Announcement(
        id=desk.site.worker_id, name="w", host="here", pid=1, version="0", queues=["cpu"], devices=[], slots=1
    )
    keeper = Housekeeping(desk.site, slots, announcement)
    loop = CeleryLoop(desk.site, slots)
    loop.start()
    if housekeeping:
        keeper.start()
    try:
        yield loop
    finally:
        desk.site.shutdown.ask()
        keeper.stop() if housekeeping else None
        assert eventually(lambda: loop.join(0.5), 60.0)


def test_message_wakes_the_worker(make_desk: Callable[..., Desk], redis_url: str) -> None:
    desk = make_desk(broker_url=redis_url)
    job_id = desk.submit(epochs=2)
    with listening(desk):
        desk.site.ringing.ring("cpu", job_id)
        assert eventually(lambda: desk.job(job_id).state == "succeeded")


def test_doubled_message_does_nothing_more(make_desk: Callable[..., Desk], redis_url: str) -> None:
    desk = make_desk(broker_url=redis_url)
    job_id = desk.submit(epochs=2)
    with listening(desk):
        for _ in range(3):
            desk.site.ringing.ring("cpu", job_id)
        assert eventually(lambda: desk.job(job_id).state == "succeeded")
        other = desk.submit(epochs=1)
        desk.site.ringing.ring("cpu", other)
        assert eventually(lambda: desk.job(other).state == "succeeded")
    assert desk.job(job_id).attempt == 1


def test_lost_message_costs_seconds(make_desk: Callable[..., Desk], redis_url: str) -> None:
    desk = make_desk(broker_url=redis_url)
    with listening(desk, housekeeping=True):
        job_id = desk.submit(epochs=2)
        assert eventually(lambda: desk.job(job_id).state == "succeeded")


@pytest.mark.fault
def test_job_runs_once_the_broker_is_back(make_desk: Callable[..., Desk], private_redis: Callable[[], Redis]) -> None:
    server = private_redis()
    desk = make_desk(broker_url=server.url)
    with listening(desk, housekeeping=True):
        server.kill()
        job_id = desk.submit(epochs=2)
        desk.site.ringing.ring("cpu", job_id)
        time.sleep(1.0)
        assert desk.job(job_id).state == "queued"
        server.start()
        assert eventually(lambda: desk.job(job_id).state == "succeeded", 60.0)
