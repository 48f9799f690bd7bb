"""Named crash points: where a fault test makes this process end, raise, sleep or wait.

    hit("checkpoint.renamed")      nothing happens, unless EPOCHD_FAULTS names a folder
    <folder>/checkpoint.renamed    arms the point with the first line of the file:

        exit               end at once, as a power cut would: no handler runs, nothing is flushed
        exit 0             the same with this exit code
        raise              raise `FaultInjected`
        raise ENOSPC       raise OSError with that number
        signal SEGV        send that signal to this process
        sleep 2.5          go on after so many seconds
        wait               go on when <folder>/checkpoint.renamed.go is there

The first process that comes by takes the file (it becomes `checkpoint.renamed.fired`, with the pid), so a point fires
once each time it is armed, in one process only. `every exit` and so on stays armed.
"""

import errno
import functools
import os
import signal
import time
from pathlib import Path
from typing import Literal, get_args

VARIABLE = "EPOCHD_FAULTS"
"""Environment variable that names the folder; never set outside of tests."""
EXIT_CODE = 86
WAIT_SECONDS = 120.0

Point = Literal[
    # the API accepts a job
    "post.written",
    "post.committed",
    "post.rung",
    # the doorbell
    "ring.sending",
    "ring.sent",
    # a worker takes a job and starts its trainer
    "claim.written",
    "claim.committed",
    "child.starting",
    "child.started",
    "start.written",
    "start.committed",
    "heartbeat.written",
    "heartbeat.committed",
    # the trainer
    "trainer.entered",
    "trainer.loaded",
    "epoch.finished",
    "checkpoint.written",
    "checkpoint.synced",
    "checkpoint.renamed",
    "checkpoint.told",
    "trainer.done",
    # the worker makes epochs visible
    "publish.held",
    "publish.stored",
    "publish.written",
    "publish.committed",
    # the worker lets go of the job
    "artifacts.stored",
    "finish.written",
    "finish.committed",
    "requeue.written",
    "requeue.committed",
    "pause.written",
    "pause.committed",
    # any worker takes a job away from a silent one
    "reap.written",
    "reap.committed",
]
"""`written`: in the transaction, before its commit; `committed`: right after it."""
POINTS: tuple[Point, ...] = get_args(Point)


class FaultInjected(RuntimeError):
    """A fault test made this line fail."""


def hit(point: Point) -> None:
    """Pass a crash point."""
    folder = _folder()
    if folder is not None:
        _pass(folder, point)


@functools.cache
def _folder() -> Path | None:
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def _pass(folder: Path, point: Point) -> None:
    armed = folder / point
    try:
        words = armed.read_text().split()
        if words[:1] == ["every"]:
            words = words[1:]
        else:
            fired = folder / f"{point}.fired"
            armed.rename(fired)  # only one process succeeds
            fired.write_text(str(os.getpid()))
    except FileNotFoundError:
        return
    _act(words, folder / f"{point}.go")


def _act(words: list[str], go: Path) -> None:
    match words:
        case ["exit"]:
            os._exit(EXIT_CODE)
        case ["exit", code]:
            os._exit(int(code))
        case ["raise"]:
            raise FaultInjected(go.stem)
        case ["raise", name]:
            number = getattr(errno, name)
            raise OSError(number, os.strerror(number))
        case ["signal", name]:
            os.kill(os.getpid(), signal.Signals[f"SIG{name}"])
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["wait"]:
            _wait_for(go)
        case _:
            raise ValueError(f"{go.stem}: no fault is called {' '.join(words)!r}")


def _wait_for(go: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not go.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{go} did not come")
        time.sleep(0.005)
