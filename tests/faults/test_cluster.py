"""Processes, servers and links of a cluster die, freeze and come back: nothing is lost, nothing is there twice."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, cast

import psutil
import pytest

from core.faults import Point
from tests.faults.campaign import BRISK, TINY, Campaign, Going, System, end
from tests.faults.link import Link
from tests.faults.table import LIMIT_SECONDS, count
from tests.faults.watching import all_gone
from tests.repetitions import repetitions
from tests.servers import Postgres, Redis
from tests.service import QUICK, wait_until

JOBS = 6
"""As many as the two workers have slots."""
LEASE_SECONDS = float(QUICK["EPOCHD_LEASE_SECONDS"])
DOWN_SECONDS = (0.2, 2.0, 9.0)
IN_POST: tuple[Point | Literal["moment"], ...] = ("post.written", "post.committed", "post.rung", "moment")

pytestmark = [
    pytest.mark.fault,
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.timeout(LIMIT_SECONDS),
]


def postgres_of(system: System) -> Postgres:
    assert system.postgres is not None
    return system.postgres


def redis_of(system: System) -> Redis:
    assert system.redis is not None
    return system.redis


def test_killed_trainer_is_resumed_from_its_checkpoint(cluster: System) -> None:
    faults = count("SIGKILL trainer")
    with Campaign(cluster, "SIGKILL trainer") as campaign:
        for _ in range(faults):
            victim = campaign.victim(jobs=JOBS)
            campaign.wait_moment()
            end(victim.trainer_pid)
            campaign.hit(victim)
        campaign.settle(resumes=faults // 2)
        assert campaign.poller.partial_looks > 0


def test_killed_worker_takes_its_trainers_along_and_another_resumes_them(cluster: System) -> None:
    faults = count("SIGKILL worker")
    with Campaign(cluster, "SIGKILL worker") as campaign:
        campaign.slow_down()
        for _ in range(faults):
            campaign.feed(JOBS)
            for name in cluster.workers:  # the one that is killed is not the only one that carries jobs
                campaign.victim(worker=name, jobs=JOBS)
            victim = campaign.victim(jobs=JOBS)
            campaign.wait_moment()
            name = cluster.name_of(victim.worker_pid)
            below = campaign.going(victim.worker_pid)
            campaign.kill_worker(name)
            cluster.service.start(name)
            campaign.hit(*below)
        campaign.settle(resumes=faults)


def test_api_killed_within_post_accepts_each_key_once(cluster: System) -> None:
    faults = count("SIGKILL API in POST")
    with Campaign(cluster, "SIGKILL API in POST") as campaign, ThreadPoolExecutor(3) as clients:
        for number in range(faults):
            place = IN_POST[number % len(IN_POST)]
            if place != "moment":
                campaign.arm(place, "signal KILL")
            posts = [clients.submit(campaign.submit, TINY) for _ in range(3)]
            if place == "moment":
                campaign.wait_moment(0.1)
                cluster.service.processes["api"].kill()
            assert cluster.service.processes["api"].wait(60) == -signal.SIGKILL
            campaign.hit()
            cluster.service.start("api")
            cluster.service.wait_ready()
            for post in posts:
                post.result()
        campaign.settle()


def test_killed_postgresql_loses_nothing_and_trainers_go_on(cluster: System) -> None:
    faults, postgres = count("SIGKILL PostgreSQL"), postgres_of(cluster)
    with Campaign(cluster, "SIGKILL PostgreSQL") as campaign, ThreadPoolExecutor(2) as clients:
        for number in range(faults):
            victim = campaign.victim(jobs=JOBS)
            campaign.wait_moment()
            postgres.kill()
            campaign.hit(victim)
            posts = [clients.submit(campaign.submit, BRISK) for _ in range(2)]
            time.sleep(DOWN_SECONDS[number % len(DOWN_SECONDS)])
            postgres.start()
            for post in posts:
                post.result()
        campaign.settle()


def test_database_away_for_three_leases_costs_no_attempt(cluster: System) -> None:
    postgres = postgres_of(cluster)
    for _ in range(count("database away")):
        with Campaign(cluster, "database away") as campaign:
            job_ids = [campaign.submit() for _ in range(JOBS)]
            victim = campaign.victim()
            postgres.kill()
            refused = cluster.service.client.post("/v1/jobs", json=BRISK)
            time.sleep(3 * LEASE_SECONDS)
            postgres.start()
            campaign.hit(victim)
            campaign.settle()
            assert refused.status_code == 503
            assert {len(campaign.attempts(job_id)) for job_id in job_ids} == {1}


def test_redis_killed_or_emptied_delays_jobs_only(cluster: System) -> None:
    redis = redis_of(cluster)
    with Campaign(cluster, "SIGKILL or FLUSHALL of Redis") as campaign:
        for number in range(count("SIGKILL or FLUSHALL of Redis")):
            if number % 3 == 1:  # the messages of waiting jobs are gone
                for _ in range(JOBS):
                    campaign.submit(TINY)
                with redis.client() as client:
                    client.flushall()
            else:
                redis.kill()
                campaign.submit(TINY)
                campaign.wait_moment(2.0)
                redis.start()
            campaign.hit()
            campaign.wait_ended()
        campaign.settle()


def test_posts_are_accepted_while_redis_is_frozen(cluster: System) -> None:
    redis, posts = redis_of(cluster), 200
    for _ in range(count("Redis frozen")):
        with Campaign(cluster, "Redis frozen") as campaign, ThreadPoolExecutor(4) as clients:
            begun_at = time.monotonic()
            redis.pause()
            try:
                job_ids = list(clients.map(campaign.submit, [TINY] * posts))
                codes = [campaign.ask(job_id, "cancel") for job_id in job_ids[20:]]  # so that the test ends soon
                time.sleep(max(0.0, begun_at + repetitions(0, 60) - time.monotonic()))
            finally:
                redis.resume()
            campaign.hit()
            campaign.settle()
            assert len(set(job_ids)) == posts
            assert set(codes) <= {200, 202, 409}


def test_worker_that_wakes_after_its_successor_writes_nothing(cluster: System) -> None:
    faults = count("zombie")
    with Campaign(cluster, "zombie") as campaign:
        campaign.slow_down()
        for _ in range(faults):
            with frozen_worker(campaign) as (zombies, trainers):
                campaign.wait_carried(zombies)
            wait_until(all_gone(trainers))
            campaign.hit(*zombies)
        campaign.settle(resumes=faults)


def processes(jobs: list[Going]) -> list[psutil.Process]:
    """Return the trainers that live."""
    pids = [job.trainer_pid for job in jobs if job.trainer_pid is not None]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


@contextmanager
def frozen_worker(campaign: Campaign) -> Iterator[tuple[list[Going], list[psutil.Process]]]:
    """Freeze the worker of a job that trains; yield its jobs and their trainers, which go on."""
    victim = campaign.victim(jobs=4)
    name = campaign.system.name_of(victim.worker_pid)
    with campaign.excused(name):
        campaign.service.signal(name, signal.SIGSTOP)
        mine = campaign.going(victim.worker_pid)
        trainers = processes(mine)
        try:
            yield mine, trainers
        finally:
            campaign.service.signal(name, signal.SIGCONT)
        wait_until(all_gone(trainers))


def test_worker_behind_a_half_open_link_is_refused_once_it_is_back(cluster: System) -> None:
    name, faults = "worker-2", count("half-open link")
    service, near = cluster.service, cluster.service.environment
    url = near["EPOCHD_DATABASE_URL"]
    with Campaign(cluster, "half-open link") as campaign, Link(postgres_of(cluster).port) as link:
        service.environment = near | {
            "EPOCHD_DATABASE_URL": url.replace(str(postgres_of(cluster).port), str(link.port))
        }
        try:
            service.start(name)
        finally:
            service.environment = near
        campaign.slow_down()
        for _ in range(faults):
            victim = campaign.victim(worker=name, jobs=JOBS + 3)
            with campaign.excused(name):
                link.cut()
                mine = campaign.going(victim.worker_pid)
                trainers = processes(mine)
                campaign.wait_carried(mine)
                link.mend()
                wait_until(all_gone(trainers))
            campaign.hit(*mine)
        service.signal(name, signal.SIGTERM)
        assert service.processes.pop(name).wait(60) == 0
        campaign.settle(resumes=faults)


def test_drained_workers_give_their_jobs_back_free_of_charge(cluster: System) -> None:
    faults = count("SIGTERM drain")
    with Campaign(cluster, "SIGTERM drain") as campaign:
        campaign.slow_down()
        for number in range(faults):
            name = cluster.workers[number % len(cluster.workers)]
            victim = campaign.victim(worker=name, jobs=JOBS)
            campaign.service.signal(name, signal.SIGTERM)
            assert campaign.service.processes[name].wait(60) == 0
            campaign.service.start(name)
            campaign.hit(victim)
            attempt = campaign.attempts(victim.job_id)[victim.attempt - 1]
            assert (attempt.outcome, attempt.code) == ("drained", "drained")
        campaign.settle(resumes=faults)


def test_doorbell_that_dies_while_ringing_loses_no_job(cluster: System) -> None:
    with Campaign(cluster, "crash points") as campaign, ThreadPoolExecutor(1) as clients:
        for _ in range(count("crash points")):
            for point in ("ring.sending", "ring.sent"):
                for fault in ("exit", "raise"):
                    campaign.arm(cast("Point", point), fault)
                    post = clients.submit(campaign.submit, TINY)
                    cluster.points.wait_fired(cast("Point", point))
                    campaign.hit()
                    if fault == "exit":
                        wait_until(lambda: any(one.poll() is not None for one in cluster.service.processes.values()))
                        cluster.heal()
                    post.result()
        campaign.settle()
