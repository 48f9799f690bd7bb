"""A child process as its owner sees it."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from core.capped_log import CappedLog
from core.channel import LineReader, encode
from core.errors import ChildFailed

SEND_SECONDS = 5.0
"""A child that does not read its pipe for so long is broken."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use."""

    memory_bytes: int | None = None
    """Private memory on top of what the template has (RLIMIT_DATA), mapped files not counted; none: no limit."""
    open_files: int | None = 4096
    file_bytes: int | None = None
    """Largest file that it may write; beyond it writes fail with EFBIG."""
    log_bytes: int = 4 << 20
    """Cap of the log file; older output is dropped."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: with an exit code or by a signal."""

    code: int | None
    signal: int | None
    max_rss_bytes: int | None


class Child:
    """A running child, as its owner sees it. Its pipes belong to one thread; `kill` and `wait` to any."""

    def __init__(self, pid: int, control_fd: int, messages_fd: int, log: CappedLog | None) -> None:
        self.pid = pid
        self._control_fd: int | None = control_fd
        self._messages_fd: int | None = messages_fd
        self._reader = LineReader(messages_fd)
        self._log = log
        self._lock = threading.Lock()
        self._exit: Exit | None = None
        self._has_ended = threading.Event()
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:  # ended and reaped before its owner heard of it
            self._pidfd = None

    @property
    def is_silent(self) -> bool:
        """Whether the child has closed its pipe and every message was read."""
        return self._reader.is_at_end

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._exit

    def receive(self, timeout: float | None = 0) -> dict[str, Any] | None:
        """Return the next message; None when none came within `timeout` seconds, or when the child is silent.

        Raises:
            ChildFailed: what came is not a line of JSON.
        """
        try:
            return self._reader.read(timeout)
        except ValueError as error:
            raise ChildFailed(f"process {self.pid} sent something that is not a message: {error}") from error

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield every message until the child closes its pipe."""
        while not self.is_silent:
            message = self.receive(None)
            if message is not None:
                yield message

    def send(self, message: BaseModel | dict[str, Any]) -> None:
        """Write one message to the child; one to a child that has ended is dropped.

        Raises:
            ChildFailed: the child did not read its pipe for some seconds.
        """
        data = memoryview(encode(message))
        poll = select.poll()
        with self._lock:
            if self._control_fd is None:
                return
            poll.register(self._control_fd, select.POLLOUT)
            try:
                while data:
                    if not poll.poll(SEND_SECONDS * 1000):
                        raise ChildFailed(f"process {self.pid} does not read its messages")
                    data = data[os.write(self._control_fd, data) :]
            except BrokenPipeError:
                return

    def kill(self) -> None:
        """Send SIGKILL to the child and to everything in its process group."""
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._pidfd is None or self._exit is not None:
                return
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # fails where the number may be another's by now
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> Exit | None:
        """Return how the child ended; None where it still runs after `timeout` seconds."""
        if not self._has_ended.wait(timeout):
            return None
        if self._log is not None:
            self._log.join(1.0)
        return self._exit

    def close(self) -> None:
        """Kill the child where it still runs, and give its pipes back."""
        self.kill()
        with self._lock:
            for fd in (self._control_fd, self._messages_fd, self._pidfd):
                if fd is not None:
                    os.close(fd)
            self._control_fd = self._messages_fd = self._pidfd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def end(self, how: Exit) -> None:
        """Note how it ended: the template's word, the first one counts."""
        self._exit = self._exit or how
        self._has_ended.set()


def describe(how: Exit | None) -> str:
    """Say in words how a child ended."""
    if how is None:
        return "still running"
    if how.signal is not None:
        return f"signal {signal.Signals(how.signal).name}"
    return f"exit code {how.code}"
