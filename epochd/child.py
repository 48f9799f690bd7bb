"""A child process that is started again when it dies, and that dies with this process."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
"""A child that lived so long starts again after the first pause, should it die."""
PR_SET_PDEATHSIG = 1
"""Linux, `prctl(2)`."""

_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def pause_before_start(deaths: int) -> float:
    """Return the seconds to wait after so many deaths in a row: 0.5 · 2^(deaths - 1), at most 30."""
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (min(deaths, 16) - 1))


@dataclass
class Child:
    """One process of the service, and how often it had to be started."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    """Not started before this instant of the monotonic clock."""
    deaths: int = 0
    """In a row, without a minute of health between them."""

    def start(self, now: float) -> None:
        """Start the process in a session of its own: Ctrl-C is for its owner, who drains it."""
        owner = os.getpid()
        self.started_at = now
        self.process = subprocess.Popen(
            self.command,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: _die_with(owner),  # noqa: PLW1509 - the owner has one thread
        )

    def look(self, now: float) -> int | None:
        """Return the exit status if the process has ended since the last look, and plan its next start."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self.process = None
        self.deaths = 1 if now - self.started_at >= HEALTHY_SECONDS else self.deaths + 1
        self.start_at = now + pause_before_start(self.deaths)
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, where it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def end(self, seconds: float) -> bool:
        """Wait so long for the end; kill what is left. Tell whether it ended by itself."""
        if self.process is None:
            return True
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        return True


def cause(status: int) -> str:
    """Say why a process ended."""
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _die_with(owner: int) -> None:
    """Ask the kernel for SIGTERM at the owner's death; the owner may have died before that was asked."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != owner:
            os._exit(1)
