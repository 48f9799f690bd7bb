"""How much of a set may be held in memory beside its file: the rest is read from the mapped file, batch by batch."""

import os
import resource
from pathlib import Path

MOST_BYTES = 1 << 30
SHARE = 8
"""Train, val, test and what is made of them may each take an eighth of the memory."""
CGROUP = Path("/sys/fs/cgroup/memory.max")
STATUS = Path("/proc/self/statm")


def room_bytes() -> int:
    """Return how large an array may be that is kept in memory: an eighth of the process's limit, at most 1 GiB."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_of_process(), *_of_container()]
    return max(0, min(MOST_BYTES, min(limits) // SHARE))


def _of_process() -> list[int]:
    """What is left below RLIMIT_DATA, which counts private memory but no mapped files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY:
        return []
    try:
        used = int(STATUS.read_text().split()[5]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        used = 0
    return [max(0, soft - used)]


def _of_container() -> list[int]:
    try:
        text = CGROUP.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() else []
