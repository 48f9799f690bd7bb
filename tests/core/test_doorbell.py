"""Ringing over a real Redis that is well, frozen, dead and back again."""

import json
import time
from collections.abc import Callable

import pytest

from core.doorbell import TASK, Doorbell, make_celery, ring
from core.settings import Settings
from tests.servers import Redis

pytestmark = pytest.mark.redis


def make_app(url: str) -> Doorbell:
    return make_celery(Settings.model_validate({"broker_url": url}))


def rings(app: Doorbell, seconds: float = 20.0) -> bool:
    """Ring until the broker takes it."""
    deadline = time.monotonic() + seconds
    while not ring(app, "cpu", "job_1"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_ring_leaves_one_message_on_the_queue_of_the_job(private_redis: Callable[[], Redis]) -> None:
    server = private_redis()
    answer = make_app(server.url).hand_over("gpu", "job_7")
    assert answer is not None
    assert answer.result(20.0)
    with server.client() as client:
        (message,) = client.lrange("gpu", 0, -1)
    body = json.loads(message)
    assert body["headers"]["task"] == TASK
    assert "job_7" in body["headers"]["argsrepr"]


@pytest.mark.fault
def test_frozen_broker_costs_no_answer_and_is_used_again_when_it_wakes(private_redis: Callable[[], Redis]) -> None:
    server = private_redis()
    app = make_app(server.url)
    assert rings(app)
    server.pause()
    assert [ring(app, "cpu", f"job_{number}") for number in range(3)] == [False] * 3
    server.resume()
    assert rings(app)


@pytest.mark.fault
def test_dead_broker_costs_no_answer_and_is_used_again_when_it_is_back(private_redis: Callable[[], Redis]) -> None:
    server = private_redis()
    app = make_app(server.url)
    assert rings(app)
    server.kill()
    assert not ring(app, "cpu", "job_2")
    server.start()
    assert rings(app)


def test_embedded_service_has_no_doorbell() -> None:
    with pytest.raises(ValueError, match="EPOCHD_BROKER_URL"):
        make_celery(Settings())
