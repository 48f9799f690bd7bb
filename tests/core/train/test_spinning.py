"""Threads spin where nobody else wants to run, and sleep where they have to queue; no bit depends on it."""

import errno
import json
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.process import FORCED_VARIABLES
from core.train import spinning
from core.train.spinning import Brake, Spinning
from tests.core.train.attempts import SPEC, Job

ROOT = Path(__file__).parents[3]
BRAKE = """
import json, os, time
import torch
from core.train.spinning import Brake

def others():
    "Processor seconds of all threads but this one."
    tasks = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
    return sum(int(open(f"/proc/self/task/{task}/schedstat").read().split()[0]) for task in tasks) / 1e9

def burnt():
    total = float((torch.ones(2000, 200) @ torch.ones(200, 2000)).sum())
    before = others()
    time.sleep(0.3)
    return others() - before, total

torch.set_num_threads(2)
brake = Brake()
found = []
for _ in range(2):
    brake.apply()
    found.append(burnt())
    brake.release()
    found.append(burnt())
print(json.dumps(found))
"""
QUEUE = """
import hashlib, os, threading
from core.train.spinning import queued_seconds

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
before = queued_seconds()
for threads in [threading.Thread(target=hashlib.sha256, args=(bytes(1 << 26),)) for _ in range(3)], []:
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        after = max(before, queued_seconds())
        hashlib.sha256(bytes(1 << 20))
print(after - before)
"""


def printed(script: str, **variables: str) -> str:
    env = os.environ | FORCED_VARIABLES | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(spinning.PROCESSORS < 2, reason="with one processor libgomp never spins")
def test_threads_that_wait_burn_no_processor_while_the_brake_is_on() -> None:
    asleep, awake, asleep_again, awake_again = json.loads(printed(BRAKE, GOMP_SPINCOUNT="infinite"))
    assert {total for _, total in (asleep, awake, asleep_again, awake_again)} == {8e8}
    for (rested, _), (spun, _) in ((asleep, awake), (asleep_again, awake_again)):
        assert rested < 0.01
        assert spun > 0.02  # of 0.3 s, also on a machine that has much else to do


def test_the_time_is_counted_for_which_threads_queue_for_a_processor() -> None:
    assert float(printed(QUEUE)) > 0.05


class Machine:
    """Time, the brake, and threads that queue for a share of it."""

    def __init__(self) -> None:
        self.now = self.queued = 0.0
        self.is_on = False
        self.changes: list[tuple[float, bool]] = []
        self.spinning = Spinning(self, lambda: self.queued, clock=lambda: self.now)  # type: ignore[arg-type]
        self.changes.clear()

    def apply(self) -> None:
        self.is_on = True
        self.changes.append((round(self.now, 3), True))

    def release(self) -> None:
        self.is_on = False
        self.changes.append((round(self.now, 3), False))

    def go_on(self, seconds: float, *, share: float, asleep: float | None = None) -> None:
        """Train so long, queueing for `share` of the time, for `asleep` of it while threads sleep."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += 0.001
            self.queued += 0.001 * (asleep if self.is_on and asleep is not None else share)
            self.spinning.look()


def test_threads_sleep_at_first_and_spin_after_a_quiet_look() -> None:
    machine = Machine()
    assert machine.is_on
    machine.go_on(0.015, share=0.0)
    assert not machine.changes
    machine.go_on(0.5, share=0.02)
    assert len(machine.changes) == 1
    assert not machine.is_on


def test_threads_beside_another_trainer_never_begin_to_spin() -> None:
    machine = Machine()
    machine.go_on(5, share=0.9, asleep=0.25)
    assert machine.is_on
    assert not machine.changes


def test_one_crowded_look_is_a_checkpoint_and_two_are_a_neighbor() -> None:
    machine = Machine()
    machine.go_on(1, share=0.0)
    machine.go_on(0.02, share=0.9)
    machine.go_on(1, share=0.0)
    assert not machine.is_on
    machine.go_on(0.1, share=0.9, asleep=0.3)
    assert machine.is_on
    machine.go_on(1, share=0.0)
    assert not machine.is_on
    assert len(machine.changes) == 3


def test_who_has_to_sleep_again_and_again_tries_ever_more_seldom() -> None:
    machine = Machine()
    machine.go_on(60, share=0.9, asleep=0.0)  # a neighbor that is noticed only while threads spin
    releases = [at for at, is_on in machine.changes if not is_on]
    gaps = [after - before for before, after in pairwise(releases)]
    assert 2 * spinning.FIRST_PAUSE_SECONDS < gaps[0] < 0.3
    assert all(later > 1.5 * earlier for earlier, later in pairwise(gaps[:5]))
    assert min(gaps[6:]) >= spinning.LONGEST_PAUSE_SECONDS
    machine.go_on(60, share=0.0)
    assert not machine.is_on


def test_a_thread_that_ends_while_it_is_looked_at_counts_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for task, told in ((os.getpid(), "5 2000000000 1\n"), (1, "7 500000000 1\n"), (2, None)):
        (tmp_path / str(task)).mkdir()
        if told is not None:
            (tmp_path / str(task) / "schedstat").write_text(told)
    monkeypatch.setattr(spinning, "TASKS", tmp_path)
    assert spinning.queued_seconds() == 2.5


def test_one_thread_waits_for_nobody() -> None:
    assert spinning.begin(1) is None


def test_training_goes_on_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    brake = Brake()
    monkeypatch.setattr(threading.Thread, "start", fail)
    brake.apply()
    assert not brake.is_on
    brake.release()


def test_training_goes_on_asleep_when_it_can_no_longer_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> float:
        raise OSError(errno.EMFILE, "Too many open files")

    machine = Machine()
    machine.go_on(1, share=0.0)
    assert not machine.is_on
    monkeypatch.setattr(machine.spinning, "_queued", fail)
    machine.go_on(10, share=0.0)
    assert machine.is_on
    assert len(machine.changes) == 2


@pytest.mark.parametrize("told", [None, "", "0 0 0\n"])
def test_threads_sleep_for_good_where_the_system_does_not_tell_who_queues(
    told: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / str(os.getpid())
    own.mkdir()
    if told is not None:
        (own / "schedstat").write_text(told)
    brakes: list[Brake] = []

    class Kept(Brake):
        def __init__(self) -> None:
            super().__init__()
            brakes.append(self)

    monkeypatch.setattr(spinning, "Brake", Kept)
    monkeypatch.setattr(spinning, "TASKS", tmp_path)
    assert spinning.begin(2) is None
    assert [brake.is_on for brake in brakes] == [True]
    brakes[0].release()


def test_an_attempt_of_several_threads_looks_while_it_trains_and_leaves_no_brake_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun: list[tuple[int, Machine, list[float]]] = []

    def begin(threads: int) -> Any:
        machine, looks = Machine(), list[float]()
        monkeypatch.setattr(machine.spinning, "look", lambda: looks.append(machine.now))
        begun.append((threads, machine, looks))
        return machine.spinning

    monkeypatch.setattr(spinning, "begin", begin)
    monkeypatch.setattr("core.train.watch.POLL_SECONDS", 0)
    spec = {**SPEC, "execution": {"device": "cpu", "threads": 2}}
    supervisor = Job(spec, tmp_path).attempt()
    assert supervisor.started.numerics["threads"] == 2
    ((threads, machine, looks),) = begun
    assert threads == 2
    assert len(looks) >= spec["epochs"] * 4
    assert not machine.is_on
