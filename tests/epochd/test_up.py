"""`epochd up` as people run it: real processes, found and stopped by their pids."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.service import ROOT, WITH_US, free_port, wait_until


class Up:
    """One `epochd up`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.log = folder / "up.log"
        self.data = folder / "data"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
        command = [*WITH_US, sys.executable, "-m", "epochd", "up", "--data-dir", str(self.data), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def url(self) -> str:
        ready = wait_until(lambda: re.search(r"^epochd is ready at (\S+)", self.said, re.MULTILINE))
        return str(ready[1])

    def child(self, module: str) -> psutil.Process | None:
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it died between two looks
                if child.cmdline()[1:] == ["-m", module]:
                    return child
        return None

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Up]:
    running = Up(folder, *options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("up"), "--port", "0") as running:
        yield running


def test_it_says_where_it_is_and_that_the_worker_is_there(one: Up) -> None:
    assert answers(one.url())
    wait_until(lambda: "1 worker ready" in one.said)
    (worker,) = httpx2.get(one.url() + "/v1/workers", trust_env=False).json()["data"]
    child = one.child("worker")
    assert child
    assert worker["pid"] == child.pid


@pytest.mark.fault
@pytest.mark.parametrize("module", ["api", "worker"])
def test_a_killed_child_is_started_again(one: Up, module: str) -> None:
    one.url()
    before = wait_until(lambda: one.child(module))
    before.kill()
    wait_until(lambda: (now := one.child(module)) and now.pid != before.pid)
    wait_until(lambda: re.search(rf"^{module}.* ended \(SIGKILL\); starting it again in", one.said, re.MULTILINE))


def test_a_second_one_on_the_same_folder_says_who_serves_it(one: Up, tmp_path: Path) -> None:
    with up(tmp_path, "--port", "0", "--data-dir", str(one.data)) as second:
        assert second.process.wait(60) == 2
    assert f"served already (pid {one.process.pid} at http://127.0.0.1:" in second.said
    assert one.process.poll() is None


def test_a_port_that_is_taken_is_told(one: Up, tmp_path: Path) -> None:
    url = one.url()
    wait_until(lambda: answers(url))
    port = url.rpartition(":")[2]
    with up(tmp_path, "--port", port) as second:
        assert second.process.wait(60) == 2
    assert f"port {port} is taken" in second.said


def test_an_address_open_to_others_is_refused_without_a_key(tmp_path: Path) -> None:
    with up(tmp_path, "--host", "0.0.0.0", "--port", str(free_port())) as refused:
        assert refused.process.wait(60) == 2
    assert "EPOCHD_API_KEY" in refused.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path, "--port", "0") as running:
        running.url()
        wait_until(lambda: "1 worker ready" in running.said)
        family = psutil.Process(running.process.pid).children(recursive=True)
        running.process.send_signal(number)
        assert running.process.wait(90) == 0
    wait_until(lambda: not any(is_alive(process) for process in family))
    assert "was killed" not in running.said


@pytest.mark.fault
def test_children_end_with_a_killed_up(tmp_path: Path) -> None:
    with up(tmp_path, "--port", "0") as running:
        running.url()
        wait_until(lambda: "1 worker ready" in running.said)
        family = psutil.Process(running.process.pid).children(recursive=True)
        assert family
        running.process.kill()
        running.process.wait()
    wait_until(lambda: not any(is_alive(process) for process in family))


def answers(url: str) -> bool:
    try:
        return httpx2.get(url + "/readyz", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
