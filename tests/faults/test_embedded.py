"""Every crash point, damaged checkpoints, and what owners ask for, on the embedded default."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import psutil
import pytest

from core.db.verdicts import LOSSES
from core.faults import EXIT_CODE, POINTS, Point
from tests.faults.campaign import STEADY, TINY, Campaign, System, end
from tests.faults.table import LIMIT_SECONDS, count
from tests.faults.watching import all_gone
from tests.service import wait_until

Fault = Literal["exit", "raise"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
OF_API: tuple[Point, ...] = ("post.written", "post.committed", "post.rung")
OF_DOORBELL: tuple[Point, ...] = ("ring.sending", "ring.sent")
"""There is none here: test_cluster has them."""
OF_TRAINER: tuple[Point, ...] = (
    "trainer.entered", "trainer.loaded", "epoch.finished", "checkpoint.written", "checkpoint.synced",
    "checkpoint.renamed", "checkpoint.told", "trainer.done",
)  # fmt: skip
OF_WORKER = tuple(point for point in POINTS if point not in (*OF_API, *OF_DOORBELL, *OF_TRAINER))
DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-100] + bytes(100)),
    "gone": lambda path: path.unlink(),
}

pytestmark = [pytest.mark.fault, pytest.mark.timeout(LIMIT_SECONDS)]


@pytest.mark.parametrize("fault", FAULTS)
def test_trainer_may_end_at_any_point(embedded: System, fault: Fault) -> None:
    with Campaign(embedded, "crash points") as campaign:
        for point in OF_TRAINER * count("crash points"):
            campaign.arm(point, fault)
            campaign.submit(TINY)
            embedded.points.wait_fired(point)
            campaign.hit()
            campaign.wait_ended()  # three crashes before its first epoch would end a job
        campaign.settle()


@pytest.mark.parametrize("fault", FAULTS)
def test_api_may_end_at_any_point(embedded: System, fault: Fault) -> None:
    with Campaign(embedded, "crash points") as campaign, ThreadPoolExecutor(1) as clients:
        campaign.allows_500 = fault == "raise"
        for point in OF_API * count("crash points"):
            campaign.arm(point, fault)
            post = clients.submit(campaign.submit, TINY)
            embedded.points.wait_fired(point)
            campaign.hit()
            if fault == "exit":
                assert embedded.service.processes["api"].wait(60) == EXIT_CODE
                embedded.heal()
            post.result()
        campaign.settle()


@pytest.mark.parametrize("fault", FAULTS)
def test_worker_may_end_at_any_point(embedded: System, fault: Fault) -> None:
    with Campaign(embedded, "crash points") as campaign:
        for number, point in enumerate(OF_WORKER * count("crash points"), 1):
            if point.startswith("reap"):
                campaign.arm("claim.committed", "raise")  # a job that nobody carries: its lease ends
            if not point.startswith(("pause", "requeue")):
                campaign.arm(point, fault)
                campaign.submit(TINY)
            else:
                stop_one(campaign, point, fault)
            embedded.points.wait_fired(point)
            campaign.hit()
            if fault == "exit":
                restart_ended(embedded)
            if number % (LOSSES - 1) == 0:
                campaign.wait_ended()  # LOSSES before its first epoch would end a job
        campaign.settle()


def stop_one(campaign: Campaign, point: Point, fault: Fault) -> None:
    """Bring a worker to the point at which it lets go of a job that has not ended."""
    fired = campaign.system.points.faults / f"{point}.fired"
    campaign.arm(point, fault)
    while not fired.exists():
        victim = campaign.victim(jobs=2, spec=STEADY)
        job_id = victim.job_id
        if point.startswith("pause"):
            campaign.ask(job_id, "pause")
        else:
            end(victim.trainer_pid)
        wait_until(lambda victim=victim: fired.exists() or campaign.has_ended(victim))
        wait_until(lambda job_id=job_id: campaign.ask(job_id, "resume") == 202 or not campaign.is_paused(job_id))


def restart_ended(system: System) -> None:
    """Start the worker that has ended at an armed point."""

    def ended() -> str | None:
        return next((name for name in system.workers if system.service.processes[name].poll() is not None), None)

    name = wait_until(ended)
    assert system.service.processes[name].returncode == EXIT_CODE
    system.service.start(name)


def test_every_crash_point_belongs_to_a_test() -> None:
    points = [*OF_API, *OF_DOORBELL, *OF_TRAINER, *OF_WORKER]
    assert sorted(points) == sorted(POINTS)


def test_damaged_checkpoint_costs_the_epochs_since_the_one_before(embedded: System) -> None:
    with Campaign(embedded, "damaged checkpoint") as campaign:
        for _ in range(count("damaged checkpoint")):
            for damage in DAMAGES.values():
                victim = campaign.victim(jobs=2, spec=STEADY)
                assert campaign.ask(victim.job_id, "pause") == 202
                campaign.wait_paused(victim.job_id)
                newest, previous = campaign.checkpoints(victim.job_id)
                damage(newest)
                assert campaign.ask(victim.job_id, "resume") == 202
                campaign.hit(victim)
                embedded.service.finish(victim.job_id)
                assert campaign.attempts(victim.job_id)[-1].from_epoch == previous
        campaign.settle(resumes=campaign.faults)


def test_pause_and_resume_change_no_bit_and_cancel_ends_the_trainer(embedded: System) -> None:
    with Campaign(embedded, "pause and cancel") as campaign:
        for _ in range(count("pause and cancel")):
            paused = campaign.victim(jobs=2, spec=STEADY)
            assert campaign.ask(paused.job_id, "pause") == 202
            campaign.wait_paused(paused.job_id)
            campaign.hit(paused)
            assert campaign.ask(paused.job_id, "resume") == 202
            cancelled = campaign.victim(jobs=2, spec=STEADY)
            trainer = psutil.Process(cancelled.trainer_pid)
            assert campaign.ask(cancelled.job_id, "cancel") == 202
            wait_until(all_gone([trainer]), 2.0, pause=0.02)
            job = embedded.service.finish(cancelled.job_id)
            campaign.hit(cancelled)
            assert (job["status"], job["stop_reason"]) == ("cancelled", "cancelled")
        campaign.settle(resumes=count("pause and cancel"))
