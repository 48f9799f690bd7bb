"""A child that is forked before its request comes, so that nobody waits for the fork and for what it makes slow.

    the template                          the spare, a process of its own
    fork ───────────────────────────────► take a step of the warm-up, look whether a request came, and so on
    a request came: hand it over ───────► say that it is taken, become the child that was asked for
    no answer: kill it, fork another

It takes its limits, variables, folder and output from the request, as a child that is forked for it does.
"""

import ctypes
import select
import signal
import socket
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress

NAME = b"epochd-spare"
"""What `ps` shows from the fork until it takes a request."""
TAKEN = b"taken"
TAKE_SECONDS = 2.0
"""A spare that does not take its request for so long hangs, or stands still; a step takes some milliseconds."""
DEATH_SECONDS = 1.0
MAX_REQUEST_BYTES = 1 << 16
MAX_FDS = 8
PR_SET_NAME = 15
PR_GET_NAME = 16
NAME_BYTES = 16
_libc = ctypes.CDLL(None, use_errno=True)

WarmUp = Callable[[], Iterable[float]]
"""Touches what a request will touch, in steps of some milliseconds, and leaves nothing that a request could see.

After each step it says for how many seconds to wait for a request before the next one.
"""


class Spare:
    """The template's end of it."""

    def __init__(self, pid: int, pidfd: int, line: socket.socket) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._line = line

    def hand_over(self, data: bytes, fds: list[int]) -> bool:
        """Give it a request; return whether it took it. One that did not is killed, and never will.

        It is not reaped here.
        """
        with suppress(OSError):  # it is gone: nobody reads the socket
            socket.send_fds(self._line, [data], fds)
            if _is_ready(self._line.fileno(), TAKE_SECONDS):
                return self._has_taken()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        _is_ready(self.pidfd, DEATH_SECONDS)
        return self._has_taken()  # in the last moment: its end is the end of the child that was asked for

    def close(self) -> None:
        """Give the socket back."""
        self._line.close()

    def _has_taken(self) -> bool:
        with suppress(OSError):
            return self._line.recv(len(TAKEN), socket.MSG_DONTWAIT) == TAKEN
        return False


def rename(name: bytes) -> bytes:
    """Call this process otherwise, as `ps` shows it, and with it those that it forks; return its name until now."""
    old = ctypes.create_string_buffer(NAME_BYTES)
    _libc.prctl(PR_GET_NAME, old)
    _libc.prctl(PR_SET_NAME, name)
    return old.value


def wait(line: socket.socket, warm_up: WarmUp, name: bytes) -> tuple[bytes, list[int]] | None:
    """Warm up and wait, as the spare; return the request and its file descriptors, None where none will come.

    Args:
        line: to the template.
        warm_up: what to do meanwhile.
        name: what the process is called from its request on.
    """
    _warm(line, warm_up)
    data, fds, _, _ = socket.recv_fds(line, MAX_REQUEST_BYTES, MAX_FDS)
    if not data:
        return None
    rename(name)
    with line:
        line.send(TAKEN)
    return data, fds


def _warm(line: socket.socket, warm_up: WarmUp) -> None:
    try:
        for seconds in warm_up():
            if _is_ready(line.fileno(), seconds):
                return
    except Exception:  # noqa: BLE001 - a cold child is a child too
        traceback.print_exc()


def _is_ready(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
