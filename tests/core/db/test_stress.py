"""Many workers, many tiny jobs, and all that can go wrong at the database: every job ends, each epoch is there once.

In every run 600 jobs for processes and 200 for threads, which share one core, on PostgreSQL, and 200 on SQLite, whose
writers come one after another; 2,000 each with EPOCHD_FAULT_REPETITIONS=full.
"""

import multiprocessing
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core import ids
from core.db import jobs, leases
from core.db.clock import now
from core.db.engine import Database
from core.db.leases import AttemptEnd, Budgets, Checkpoint, Claim
from core.db.tables import Job
from core.errors import Conflict, OwnershipLost
from tests.core.db.given import PROJECT, new_job
from tests.core.db.patience import LIMIT_SECONDS, said
from tests.core.db.promises import ENDED, assert_kept
from tests.repetitions import repetitions

pytestmark = pytest.mark.timeout(600)

JOBS = 2000
QUEUES = ("cpu", "gpu")
BUDGETS = Budgets(crashes=10**6, losses=10**6)  # poison has tests of its own
MISHAPS = ("crash", "drain", "vanish", "sleep")

T = TypeVar("T")


def accept(database: Database, count: int) -> list[str]:
    """Post jobs of one to three epochs."""
    with database.session_scope() as session:
        return [
            jobs.create(session, new_job(spec={"epochs": 1 + number % 3}, queue=QUEUES[number % 2]))[0].id
            for number in range(count)
        ]


class Worker:
    """Claims and carries jobs until all have ended. One epoch in eight comes with a mishap."""

    def __init__(self, database: Database, seed: int) -> None:
        self._database = database
        self._random = random.Random(seed)
        self._id = ids.new("wk")
        self._until = time.monotonic() + LIMIT_SECONDS
        self.seen: Counter[str] = Counter()

    def work(self) -> Counter[str]:
        queues = list(QUEUES)
        while time.monotonic() < self._until:
            self._random.shuffle(queues)
            claim = said(self._database, lambda session: leases.claim(session, self._id, queues, host="here"))
            if claim is not None:
                self._carry(claim)
            elif left(self._database) == 0:
                return self.seen
            else:
                time.sleep(0.02)
        raise AssertionError(f"{left(self._database)} jobs have not ended")

    def _carry(self, claim: Claim) -> None:
        self.seen["attempts"] += 1
        try:
            self.seen[self._train(claim)] += 1
        except OwnershipLost:
            self.seen["ownership lost"] += 1

    def _train(self, claim: Claim) -> str:
        for epoch in range(claim.epochs_done + 1, claim.spec["epochs"] + 1):
            mishap = self._random.choice(MISHAPS) if self._random.random() < 0.12 else ""
            if mishap:
                self._break(claim, mishap)
            if mishap and mishap != "sleep":
                return mishap
            wanted = self._publish(claim, epoch)
            if wanted != "run":
                return self._obey(claim, wanted)
        self._finish(claim, "succeeded", "completed")
        return "succeeded"

    def _publish(self, claim: Claim, epoch: int) -> str:
        checkpoint = Checkpoint(key=f"{claim.job_id}/{claim.fence}/{epoch}", digest="c", epoch=epoch)
        for _ in range(1 + (self._random.random() < 0.05)):  # as after an answer that did not come
            wanted = self._say(claim, leases.publish, checkpoint=checkpoint, rows=[{"epoch": epoch}])
        return wanted

    def _obey(self, claim: Claim, wanted: str) -> str:
        if wanted == "pause":
            return self._say(claim, leases.pause, end=AttemptEnd())
        self._finish(claim, "cancelled", "cancelled")
        return "cancelled"

    def _finish(self, claim: Claim, state: str, reason: str) -> None:
        self._say(claim, leases.finish, state=state, stop_reason=reason, end=AttemptEnd())

    def _break(self, claim: Claim, mishap: str) -> None:
        """Crash or drain; be gone without a word; or go on when another may have the job by now."""
        if mishap == "crash":
            end = AttemptEnd(code="killed")
            how = {"outcome": "crashed", "counts_as": "crash", "delay_seconds": 0.0, "budgets": BUDGETS}
            self._say(claim, leases.requeue, end=end, **how)
        elif mishap == "drain":
            self._say(claim, leases.requeue, outcome="drained", end=AttemptEnd(code="drained"), counts_as=None)
        else:
            said(self._database, lambda session: let_end(session, claim))
        if mishap == "sleep":
            self.seen["reaped"] += len(said(self._database, reap))

    def _say(self, claim: Claim, statement: Callable[..., T], **fields: Any) -> T:
        return said(self._database, lambda session: statement(session, claim.job_id, claim.fence, **fields))


def let_end(session: Session, claim: Claim) -> None:
    """Put the end of the claim's lease into the past."""
    over = update(Job).where(Job.id == claim.job_id, Job.state == "running", Job.fence == claim.fence)
    session.execute(over.values(lease_until=now(-1.0)))


def reap(session: Session) -> list[str]:
    return leases.reap(session, budgets=BUDGETS)


def left(database: Database) -> int:
    """Count the jobs that have not ended."""
    count = select(func.count()).select_from(Job).where(Job.state.not_in(ENDED))
    return said(database, lambda session: session.scalar(count), write=False) or 0


class Owner:
    """Cancels one job in twenty, pauses and resumes one in ten, while they wait and while they run."""

    def __init__(self, database: Database, job_ids: list[str]) -> None:
        self._database = database
        self._job_ids = job_ids
        self.cancelled: set[str] = set()

    def steer(self) -> None:
        chosen = random.Random(1).sample(self._job_ids, len(self._job_ids) * 3 // 20)
        third = len(chosen) // 3
        for number, job_id in enumerate(chosen):
            if number % 3 == 0:
                self.cancelled |= {job_id} if self._ask(jobs.request_cancel, job_id) else set()
            else:
                self._ask(jobs.request_pause, job_id)
            if number % 3 and number >= third:
                self._ask(jobs.request_resume, chosen[number - third])
            time.sleep(0.005)
        for job_id in chosen:
            self._ask(jobs.request_resume, job_id)

    def _ask(self, request: Callable[..., Job], job_id: str) -> bool:
        try:
            said(self._database, lambda session: request(session, PROJECT, job_id))
        except Conflict:
            return False
        return True


class Watch:
    """Reaps, and looks all the time that nothing is taken back and every promise is kept meanwhile."""

    def __init__(self, database: Database, job_ids: list[str]) -> None:
        self._database = database
        self._job_ids = job_ids
        self._random = random.Random(2)
        self._rows: dict[str, tuple[str, int, int]] = {}
        self.looks = 0

    def run(self, is_over: threading.Event) -> None:
        while not is_over.wait(0.1):
            said(self._database, reap)
            if not is_over.wait(0.4):
                self.look()

    def look(self) -> None:
        assert_kept(self._database, self._random.sample(self._job_ids, min(20, len(self._job_ids))))
        with self._database.session_scope(write=False) as session:
            rows = session.execute(select(Job.id, Job.state, Job.fence, Job.epochs_done)).all()
        for job_id, state, fence, epochs_done in rows:
            before = self._rows.setdefault(job_id, (state, fence, epochs_done))
            assert before[0] not in ENDED or state == before[0], f"{job_id} was {before[0]}, is {state}"
            assert (fence, epochs_done) >= before[1:], f"{job_id}: fence, epochs {before[1:]}, {fence, epochs_done}"
            assert epochs_done >= before[2], f"{job_id}: epochs {before[2]}, then {epochs_done}"
            self._rows[job_id] = (state, fence, epochs_done)
        self.looks += 1


@contextmanager
def disturbed(database: Database, job_ids: list[str]) -> Iterator[Owner]:
    """Have an owner and a watch beside the workers; check everything when these are done."""
    owner, watch, is_over = Owner(database, job_ids), Watch(database, job_ids), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        beside: list[Future[None]] = [pool.submit(owner.steer), pool.submit(watch.run, is_over)]
        try:
            yield owner
        finally:
            is_over.set()
    for one in beside:
        one.result()
    watch.look()
    assert watch.looks > 1


def assert_all_ended_once(database: Database, job_ids: list[str], cancelled: set[str]) -> None:
    stories = assert_kept(database)
    assert [story.job.id for story in stories] == job_ids
    for story in stories:
        job, epochs = story.job, [row.epoch for row in story.epochs]
        assert job.state == "succeeded" or (job.state == "cancelled" and job.id in cancelled)
        if job.state == "succeeded":
            assert epochs == list(range(1, job.spec["epochs"] + 1))
    assert any(story.job.state == "cancelled" for story in stories)
    assert any(story.job.attempt > 1 for story in stories)
    happened = Counter(event.type for story in stories for event in story.events)
    assert {"job.lost", "job.requeued", "job.paused", "job.resumed"} <= set(happened), happened


def test_eight_threads_carry_every_job_to_its_end_once(database: Database) -> None:
    job_ids = accept(database, repetitions(200, JOBS))
    with disturbed(database, job_ids) as owner, ThreadPoolExecutor(8) as pool:
        seen = sum(pool.map(lambda seed: Worker(database, seed).work(), range(8)), Counter[str]())
    assert_all_ended_once(database, job_ids, owner.cancelled)
    assert seen["ownership lost"] > 0, seen


def _work_in_process(url: str, seed: int) -> Counter[str]:
    """Be one of several processes: two threads, connections of its own."""
    database = Database(url)
    try:
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(lambda number: Worker(database, seed + number).work(), range(2)), Counter[str]())
    finally:
        database.dispose()


@pytest.mark.postgres
def test_four_processes_of_two_threads_carry_every_job_to_its_end_once(postgres_url: str) -> None:
    database = Database(postgres_url)
    job_ids = accept(database, repetitions(120, JOBS))
    spawn = multiprocessing.get_context("spawn")
    with disturbed(database, job_ids) as owner, ProcessPoolExecutor(4, mp_context=spawn) as pool:
        seen = sum(pool.map(_work_in_process, [postgres_url] * 4, range(0, 40, 10)), Counter[str]())
    assert_all_ended_once(database, job_ids, owner.cancelled)
    assert seen["ownership lost"] > 0, seen
    database.dispose()
