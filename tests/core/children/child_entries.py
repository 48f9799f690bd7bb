"""What the children of test_process.py and test_spare.py run."""

import atexit
import gc
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.channel import Channel

WARM: list[bytearray] = []
"""What a spare took before its request came."""


def echo(channel: Channel, request: dict[str, Any]) -> None:
    channel.send({"echo": request})


def count(channel: Channel, request: dict[str, Any]) -> None:
    for number in range(request["n"]):
        channel.send({"number": number, "text": "x" * request["size"]})


def answer_until_closed(channel: Channel, request: dict[str, Any]) -> None:
    while not channel.closed:
        message = channel.receive(0.05)
        if message is not None:
            channel.send({"got": message})


def facts(channel: Channel, request: dict[str, Any]) -> None:
    status = Path("/proc/self/status").read_text()
    channel.send(
        {
            "pid": os.getpid(),
            "sid": os.getsid(0),
            "environ": dict(os.environ),
            "initial_environ": Path("/proc/self/environ").read_text(),
            "cwd": os.getcwd(),  # noqa: PTH109
            "threads": int(status.partition("Threads:")[2].split()[0]),
            "fds": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)),  # noqa: PTH115, PTH208
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "collects": gc.isenabled(),
            "frozen": gc.get_freeze_count(),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "sigterm_is_default": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        }
    )


def warm_up() -> Iterator[float]:
    WARM.append(bytearray(64 << 20))
    yield 0.0


def stumble() -> Iterator[float]:
    yield 0.0
    raise ValueError("this warm-up fails on purpose")


def never_warm() -> Iterator[float]:
    while True:
        time.sleep(0.01)
        yield 0.0


def rest_for_long() -> Iterator[float]:
    yield 0.0
    yield 3600.0


def origin(channel: Channel, request: dict[str, Any]) -> None:
    """Tell of the process, then stay until nobody listens."""
    name = Path("/proc/self/comm").read_text().strip()
    data = resource.getrlimit(resource.RLIMIT_DATA)
    channel.send({"pid": os.getpid(), "is_warm": bool(WARM), "name": name, "data": data})
    while not channel.closed:
        time.sleep(0.01)


def _is_open(fd: str) -> bool:
    try:
        os.fstat(int(fd))
    except OSError:
        return False
    return True


def fail(channel: Channel, request: dict[str, Any]) -> None:
    raise ValueError("this one fails on purpose")


def leave(channel: Channel, request: dict[str, Any]) -> None:
    sys.exit(request["code"])


def leave_with_handler(channel: Channel, request: dict[str, Any]) -> None:
    atexit.register(Path(request["path"]).touch)


def kill_itself(channel: Channel, request: dict[str, Any]) -> None:
    os.kill(os.getpid(), request["signal"])


def hang(channel: Channel, request: dict[str, Any]) -> None:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    channel.send({"pid": os.getpid(), "grandchild": grandchild.pid})
    time.sleep(600)


def sleep(channel: Channel, request: dict[str, Any]) -> None:
    time.sleep(600)


def print_much(channel: Channel, request: dict[str, Any]) -> None:
    for number in range(request["lines"]):
        sys.stdout.write(f"line {number} " + "." * 90 + "\n")
    channel.send({"done": True})


def take_memory(channel: Channel, request: dict[str, Any]) -> None:
    try:
        block = bytearray(request["bytes"])
    except MemoryError:
        channel.send({"refused": True})
    else:
        channel.send({"refused": False, "size": len(block)})


def write_file(channel: Channel, request: dict[str, Any]) -> None:
    try:
        Path("big").write_bytes(b"\0" * request["bytes"])
    except OSError as error:
        channel.send({"errno": error.errno})
    else:
        channel.send({"errno": None})
