"""A log file that a chatty child can neither fill the disk with nor be blocked by."""

import os
import threading
from pathlib import Path

CHUNK_BYTES = 1 << 16
MARK = b"[... older output was left out ...]\n"


class CappedLog:
    """Copies a pipe into a file in a thread of its own; past the cap the older half is dropped."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._read_fd, self.write_fd = os.pipe()
        """`write_fd` is for the child; close it here once the child has it."""
        self._thread = threading.Thread(target=self._copy, name=f"log {path.name}", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until everything that was written stands in the file, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _copy(self) -> None:
        try:
            while chunk := os.read(self._read_fd, CHUNK_BYTES):
                self._write(chunk)
        finally:
            os.close(self._read_fd)
            self._file.close()

    def _write(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
            self._size += len(chunk)
            if self._size > self._max_bytes:
                self._drop_older()
        except OSError:  # a full disk costs log lines, never the training: go on reading
            self._size = self._file.tell()

    def _drop_older(self) -> None:
        tail = self.path.read_bytes()[-self._max_bytes // 2 :]
        replacement = self.path.with_name(f".{self.path.name}.new")
        replacement.write_bytes(MARK + tail)
        replacement.replace(self.path)
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
        self._size = len(MARK) + len(tail)
