"""How the threads of an operator wait for the next one: spinning while the processors are theirs, else asleep.

To wake a sleeping thread takes longer than most operators of a small model; a thread that spins starts at once. But one
that spins where another wants to run keeps that one from working, and if that is the thread it waits for, both stand
still until the scheduler's turn ends: two trainers on the same two processors were 200 times as slow as asleep. So
threads sleep at first, spin once they never have to queue for a processor, and sleep again as soon as they do. Neither
changes how many threads there are or who computes what, so no bit depends on it (`docs/decisions/0018`).
"""

import ctypes
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

TASKS = Path("/proc/self/task")
LIBRARY = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
"""Its symbols are looked up in the libraries that it is linked to, too: there is more than one OpenMP in a process."""
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""What libgomp counted when it was loaded."""
UNTOLD = (OSError, LookupError, ValueError)
"""What is raised where the system does not tell who queues."""
LOOK_SECONDS = 0.02
MOST_OF_THE_TIME = 0.005
"""A look may take so much of the time between two."""
QUIET_SHARE = 0.1
"""Of a processor, for which threads have queued since the last look: below, they may spin."""
CROWDED_SHARE = 0.3
"""From here on they sleep. Alone on two processors the share is 0.03 at most, beside another trainer 0.25 to 0.9."""
CROWDED_LOOKS = 2
"""So many one after the other make them sleep: a checkpoint that is written beside the training is one such look."""
SHORT_SECONDS = 0.25
"""Whoever had to sleep again so soon waits twice as long before the next try."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0


class Brake:
    """Makes all threads of libgomp sleep while they wait, as it does where it has more threads than processors.

    It adds idle threads until that is so: a team that a thread beside the training once started and keeps. With any
    other OpenMP nothing happens, and `OMP_WAIT_POLICY` says how threads wait.
    """

    def __init__(self) -> None:
        self._parallel = ctypes.CDLL(str(LIBRARY)).GOMP_parallel
        self._nothing = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p)  # any function that harms nobody
        self._released = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def is_on(self) -> bool:
        """Whether threads sleep while they wait."""
        return self._keeper is not None

    def apply(self) -> None:
        """Have them sleep from now on; they go on as they are where no thread can be started any more."""
        if self._keeper is None:
            self._released, is_up = threading.Event(), threading.Event()
            keeper = threading.Thread(target=self._keep, args=(self._released, is_up), name="brake", daemon=True)
            with suppress(RuntimeError):
                keeper.start()
                is_up.wait()
                self._keeper = keeper

    def release(self) -> None:
        """Let them spin."""
        if self._keeper is not None:
            self._released.set()
            self._keeper.join()
            self._keeper = None

    def _keep(self, released: threading.Event, is_up: threading.Event) -> None:
        try:
            self._parallel(self._nothing, None, ctypes.c_uint(PROCESSORS + 1), ctypes.c_uint(0))
        finally:
            is_up.set()
        released.wait()  # the team ends with its thread


class Spinning:
    """Looks whether this process's threads have to queue for processors, and lets them spin or sleep by that.

    Once that cannot be told they sleep for good.

    Args:
        brake: makes them sleep; they do from here on.
        queued: returns the seconds that threads of this process have spent waiting for a processor, all together.
        clock: seconds that only rise.
    """

    def __init__(
        self, brake: Brake, queued: Callable[[], float], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.brake, self._queued, self._clock = brake, queued, clock
        self._pause = FIRST_PAUSE_SECONDS
        self._released_at = self._may_release_at = 0.0
        self._crowded = 0
        self.brake.apply()
        self._before, self._looked_at = queued(), clock()
        self._next = self._looked_at + LOOK_SECONDS

    def look(self) -> None:
        """Do what is due; between two looks it only reads the clock."""
        now = self._clock()
        if now < self._next:
            return
        try:
            queued = self._queued()
        except UNTOLD:
            self.brake.apply()
            self._next = math.inf
            return
        share = (queued - self._before) / (now - self._looked_at)
        self._before, self._looked_at = queued, now
        self._crowded = self._crowded + 1 if share > CROWDED_SHARE else 0
        if not self.brake.is_on:
            if self._crowded >= CROWDED_LOOKS:
                self._sleep(now)
        elif share < QUIET_SHARE and now >= self._may_release_at:
            self.brake.release()
            self._released_at = now
        self._next = now + max(LOOK_SECONDS, (self._clock() - now) / MOST_OF_THE_TIME)

    def close(self) -> None:
        """Leave the process as it was."""
        self.brake.release()

    def _sleep(self, now: float) -> None:
        self.brake.apply()
        was_short = now - self._released_at < SHORT_SECONDS
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS) if was_short else FIRST_PAUSE_SECONDS
        self._may_release_at = now + self._pause


def queued_seconds() -> float:
    """Return for how long the threads of this process that still live were ready to run, and did not, all together.

    Raises:
        OSError, LookupError, ValueError: this system does not tell.
    """
    own, nanoseconds = str(os.getpid()), 0
    for task in os.listdir(TASKS):  # noqa: PTH208 - fifty times a second
        try:
            with open(TASKS / task / "schedstat", "rb") as file:  # noqa: PTH123
                ran, waited, *_ = file.read().split()
        except (FileNotFoundError, ProcessLookupError):
            if task == own:
                raise
            continue  # it has just ended
        if task == own and int(ran) == 0:
            raise ValueError("the kernel counts no time of threads")
        nanoseconds += int(waited)
    return nanoseconds / 1e9


def begin(threads: int) -> Spinning | None:
    """Let this process's threads spin where that harms nobody, from the next looks on; None where they never will."""
    if threads == 1:
        return None
    try:
        return Spinning(Brake(), queued_seconds)
    except (*UNTOLD, AttributeError):  # no Linux, another OpenMP, a kernel that does not count
        return None
