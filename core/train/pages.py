"""Bytes that go from memory to the disk by themselves: nobody copies them into the page cache on the way.

That copy takes most of the processor time of writing, and it puts out of the cache what others read. A disk takes whole
blocks from memory that begins at one, so the memory here begins at a page.
"""

import errno
import fcntl
import mmap
import os
from contextlib import suppress

O_DIRECT: int = getattr(os, "O_DIRECT", 0)
"""0 where the system has no such way."""
PIECE_BYTES = 8 << 20
"""Written with one call: long enough for a disk, short enough to notice a full one."""
GROWTH = 1.5


class Pages:
    """A file in memory that is written from its beginning, again and again; memory that it has it keeps."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._size = 0

    def clear(self) -> None:
        """Begin again."""
        self._size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append `data`; return how many bytes that are."""
        count = memoryview(data).nbytes
        end = self._size + count
        if end > len(self._map):
            self._map.resize(-(-int(max(end, GROWTH * len(self._map))) // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._map[self._size : end] = data
        self._size = end
        return count

    def flush(self) -> None:
        """There is nothing behind it; who writes archives asks."""

    def getbuffer(self) -> memoryview:
        """Return what was written, without a copy; until that is released nothing can be written."""
        return memoryview(self._map)[: self._size]


def write_past_cache(descriptor: int, data: bytes | memoryview) -> None:
    """Write `data` into a new file, past the page cache where its file system and the place of `data` allow it.

    Raises:
        OSError: as from writing.
    """
    with memoryview(data) as view:
        written = 0
        if _go_past_cache(descriptor, is_wanted=True):
            written = _write_blocks(descriptor, view)
            _go_past_cache(descriptor, is_wanted=False)
        while written < len(view):
            written += os.write(descriptor, view[written : written + PIECE_BYTES])


def _write_blocks(descriptor: int, view: memoryview) -> int:
    """Write whole pages, as many as can be; return how many bytes they are."""
    written, whole = 0, len(view) - len(view) % mmap.PAGESIZE
    try:
        while written < whole:
            written += os.write(descriptor, view[written : min(whole, written + PIECE_BYTES)])
    except OSError as error:
        if error.errno != errno.EINVAL:  # the memory, or the place in the file, does not begin where a block does
            raise
    return written


def _go_past_cache(descriptor: int, *, is_wanted: bool) -> bool:
    """Say whether writes go past the cache from now on, as wanted; a file system may refuse."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~O_DIRECT
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | (O_DIRECT if is_wanted else 0))
        return is_wanted and O_DIRECT != 0
    return False
