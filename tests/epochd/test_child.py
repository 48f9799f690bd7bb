"""Processes that start again when they die, and die with their owner."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from epochd.child import Child, cause, pause_before_start

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.mark.parametrize(
    ("deaths", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (6, 16.0), (7, 30.0), (10_000, 30.0)]
)
def test_the_pause_doubles_with_each_death_up_to_thirty_seconds(deaths: int, seconds: float) -> None:
    assert pause_before_start(deaths) == seconds


def dead(child: Child, *, started_at: float) -> int:
    """Start the child, kill it, and look at an instant after its death."""
    child.start(started_at)
    assert child.process
    child.process.kill()
    child.process.wait()
    status = child.look(started_at + 1.0)
    assert status is not None
    return status


def test_a_look_at_a_dead_child_plans_its_next_start() -> None:
    child = Child("sleep", SLEEP, os.environ)
    assert cause(dead(child, started_at=100.0)) == "SIGKILL"
    assert (child.process, child.deaths, child.start_at) == (None, 1, 101.5)
    dead(child, started_at=102.0)
    assert (child.deaths, child.start_at) == (2, 104.0)


def test_a_minute_of_health_makes_earlier_deaths_forgotten() -> None:
    child = Child("sleep", SLEEP, os.environ, deaths=5)
    child.start(0.0)
    assert child.process
    child.process.kill()
    child.process.wait()
    child.look(61.0)
    assert (child.deaths, child.start_at) == (1, 61.5)


def test_a_look_at_a_living_child_changes_nothing() -> None:
    child = Child("sleep", SLEEP, os.environ)
    child.start(0.0)
    try:
        assert child.look(1.0) is None
        assert child.deaths == 0
    finally:
        child.send(signal.SIGKILL)
        child.end(10)


def test_a_child_that_ends_when_asked_is_not_killed() -> None:
    child = Child("sleep", SLEEP, os.environ)
    child.start(0.0)
    child.send(signal.SIGTERM)
    assert child.end(30.0)
    assert child.process
    assert child.process.returncode == -signal.SIGTERM


def test_a_child_that_does_not_end_is_killed() -> None:
    child = Child("sleep", SLEEP, os.environ)
    child.start(0.0)
    assert child.process
    assert child.end(0.01) is False
    assert child.process.returncode == -signal.SIGKILL


def test_a_signal_to_a_child_that_is_gone_does_nothing() -> None:
    child = Child("sleep", SLEEP, os.environ)
    dead(child, started_at=0.0)
    child.send(signal.SIGTERM)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the death signal")
def test_children_of_a_killed_owner_end(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from epochd.child import Child\n"
        f"child = Child('sleep', {SLEEP!r}, os.environ); child.start(0.0)\n"
        "print(child.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        child = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    ends = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < ends:
        time.sleep(0.02)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
