"""JSON lines on a pair of pipes: what a child process and its owner say to each other."""

import contextlib
import json
import os
import select
import threading
import time
from collections import deque
from typing import Any

from pydantic import BaseModel

MAX_LINE_BYTES = 16 << 20
"""A longer line is a defect of its sender, and ends the conversation."""
CHUNK_BYTES = 1 << 18


class LineTooLongError(ValueError):
    """A peer sent more than `MAX_LINE_BYTES` without a line's end."""


def encode(message: BaseModel | dict[str, Any]) -> bytes:
    """Return one message as it stands on the pipe."""
    text = message.model_dump_json() if isinstance(message, BaseModel) else json.dumps(message)
    return text.encode() + b"\n"


class LineReader:
    """Reads JSON lines from a pipe without ever blocking longer than asked.

    Not thread-safe: one thread reads a pipe.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = bytearray()
        self._ready: deque[bytes] = deque()
        self._is_at_end = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    @property
    def is_at_end(self) -> bool:
        """Whether the writer is gone and everything it wrote was read."""
        return self._is_at_end and not self._ready

    def read(self, timeout: float | None = 0) -> dict[str, Any] | None:
        """Return the next message; None when none came within `timeout` seconds, or at the end.

        Args:
            timeout: seconds to wait for a whole line; 0: do not wait; None: wait until one comes or the end.

        Raises:
            LineTooLongError: the writer sent more than `MAX_LINE_BYTES` without a line's end.
            ValueError: a line is not a JSON object.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready and not self._is_at_end:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._poll.poll(None if left is None else left * 1000):
                return None
            self._fill()
        return _decode(self._ready.popleft()) if self._ready else None

    def _fill(self) -> None:
        chunk = os.read(self._fd, CHUNK_BYTES)
        if not chunk:
            self._is_at_end = True  # what is left over is half a line of a writer that died in it
            return
        *lines, rest = chunk.split(b"\n")
        for part in lines:
            self._ready.append(bytes(self._rest) + part)
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > MAX_LINE_BYTES:
            raise LineTooLongError(f"a line of more than {MAX_LINE_BYTES} bytes")


def _decode(text: bytes) -> dict[str, Any]:
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError(f"a JSON object was expected, not {text[:80]!r}")  # noqa: TRY004 - the bytes are wrong
    return message


class Channel:
    """A child's end of its two pipes. `send` may be called by any thread, `receive` by one."""

    def __init__(self, control_fd: int, messages_fd: int) -> None:
        self._reader = LineReader(control_fd)
        self._messages_fd = messages_fd
        self._lock = threading.Lock()
        self._is_broken = False
        self._pending: deque[dict[str, Any]] = deque()

    def send(self, message: BaseModel | dict[str, Any]) -> None:
        """Write one message; waits while the owner does not read.

        Raises:
            BrokenPipeError: the owner is gone.
        """
        data = memoryview(encode(message))
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._messages_fd, data) :]
            except BrokenPipeError:
                self._is_broken = True
                raise

    def receive(self, timeout: float | None = 0) -> dict[str, Any] | None:
        """Return the next message; None when none came within `timeout` seconds (None: wait), or at the end."""
        return self._pending.popleft() if self._pending else self._reader.read(timeout)

    @property
    def closed(self) -> bool:
        """Whether the owner is gone: exit then, nobody waits for an answer."""
        if not self._is_broken and not self._reader.is_at_end:
            message = self._reader.read(0)  # an end can only be seen by reading
            if message is not None:
                self._pending.append(message)
        return self._is_broken or (self._reader.is_at_end and not self._pending)

    def close(self) -> None:
        """Give the pipes back."""
        with contextlib.suppress(OSError):
            os.close(self._messages_fd)
