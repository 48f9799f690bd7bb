"""A worker that is told to stop while several attempts run, over real processes; the trainers are doubles."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.service import eventually
from tests.worker.conftest import Desk
from tests.worker.test_supervisor import attempts, trainers
from worker.__main__ import Signals
from worker.site import Shutdown
from worker.slots import ClaimLoop, Slots

SLOTS = 3
Begin = Callable[..., tuple[Desk, ClaimLoop, list[str]]]


@pytest.fixture
def begin(make_desk: Callable[..., Desk]) -> Iterator[Begin]:
    """Start a claim loop whose every slot has a job that has published something."""
    desks: list[Desk] = []

    def begin(*, deaf: int, grace_seconds: float) -> tuple[Desk, ClaimLoop, list[str]]:
        desk = make_desk(slots=SLOTS, stop_grace_seconds=grace_seconds)
        desks.append(desk)
        jobs = [desk.submit(epochs=100_000, epoch_seconds=0.05, ignores_stop=number < deaf) for number in range(SLOTS)]
        loop = ClaimLoop(desk.site, Slots(desk.site))
        loop.start()
        assert eventually(lambda: all(desk.job(job_id).epochs_done >= 1 for job_id in jobs))
        return desk, loop, jobs

    yield begin
    for desk in desks:
        desk.site.shutdown.ask()
        desk.site.shutdown.ask()


def assert_given_back(desk: Desk, jobs: list[str]) -> None:
    assert trainers(desk) == []
    for job_id in jobs:
        job = desk.job(job_id)
        assert (job.state, job.run_after, job.crashes_no_progress) == ("queued", None, 0)
        assert job.checkpoint_epoch == job.epochs_done > 0
        assert [attempt.outcome for attempt in attempts(desk, job_id)] == ["drained"]


def test_every_attempt_is_given_back_within_the_grace_also_those_that_do_not_listen(begin: Begin) -> None:
    desk, loop, jobs = begin(deaf=1, grace_seconds=2.0)
    late = desk.submit(epochs=1)
    desk.site.shutdown.ask()
    assert loop.join(30.0), "the one that does not listen is killed after 2 s"
    assert_given_back(desk, jobs)
    assert desk.job(late).state == "queued"
    assert attempts(desk, late) == [], "nothing more was claimed"


def test_second_request_ends_all_of_them_at_once(begin: Begin) -> None:
    desk, loop, jobs = begin(deaf=SLOTS, grace_seconds=600.0)
    desk.site.shutdown.ask()
    assert not loop.join(1.0)
    desk.site.shutdown.ask()
    assert loop.join(30.0)
    assert_given_back(desk, jobs)


def test_drained_jobs_go_on_where_they_stood(begin: Begin, make_desk: Callable[..., Desk]) -> None:
    desk, loop, jobs = begin(deaf=0, grace_seconds=20.0)
    desk.site.shutdown.ask()
    assert loop.join(30.0)
    stood = {job_id: desk.job(job_id).epochs_done for job_id in jobs}
    successor = make_desk(slots=SLOTS, stop_grace_seconds=20.0)
    again = ClaimLoop(successor.site, Slots(successor.site))
    again.start()
    assert eventually(lambda: all(successor.job(job_id).epochs_done > stood[job_id] for job_id in jobs))
    successor.site.shutdown.ask()
    assert again.join(30.0)
    for job_id in jobs:
        first, second = attempts(successor, job_id)
        assert (first.outcome, second.from_epoch) == ("drained", stood[job_id])


def test_first_signal_drains_and_the_second_means_at_once() -> None:
    assert threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    shutdown = Shutdown()
    try:
        signals = Signals(shutdown)
        os.kill(os.getpid(), signal.SIGTERM)
        assert eventually(lambda: _taken(signals, shutdown))
        assert not shutdown.at_once.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert eventually(lambda: _taken(signals, shutdown) and shutdown.at_once.is_set())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _taken(signals: Signals, shutdown: Shutdown) -> bool:
    time.sleep(0.01)
    signals.take()
    return shutdown.draining.is_set()
