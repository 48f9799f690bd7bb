"""The C library's heap: what glibc keeps for itself of what a process has freed. Elsewhere nothing happens."""

import ctypes

M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
"""glibc's numbers, see mallopt(3)."""
LARGE_BLOCK_BYTES = 128 << 10


def give_back_blocks() -> None:
    """Have the C library give every large block back as soon as it is free, from now on.

    glibc keeps freed blocks in its heap once it has seen some. A training leaves a few bytes there after every batch
    (its loss and outputs, until the epoch's end), between which the next batch finds no room: the heap would grow by
    the whole set. It costs page faults, so it is for sets that are read from their file.
    """
    _mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def share_one_arena() -> None:
    """Have all threads share one heap; call it before the first of them starts.

    glibc gives up to eight threads per core a heap (arena) each. What one of them frees there, another cannot use, and
    in a pool any thread may be the next to render a large answer: each heap grows to the size of the largest.
    """
    _mallopt(M_ARENA_MAX, 1)


def _mallopt(option: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(option, value)
