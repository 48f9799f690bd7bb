"""The C library's heap: what glibc keeps for itself of what a process has freed. Elsewhere nothing happens."""

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
"""glibc's numbers, see mallopt(3)."""
LARGE_BLOCK_BYTES = 128 << 10
KEPT_BYTES = 1 << 30


def keep_blocks() -> None:
    """Have the C library keep freed blocks for whoever asks next, up to 1 GiB in one piece, from now on.

    Every update of a training frees what the one before had and asks for as much again. By itself glibc gives memory
    back to the system at the top of its heap and in blocks above 32 MiB, and the system fills each new page with zeros:
    22,000 page faults in an update of a resnet18 with 64 images, a quarter of its time.
    """
    _mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    _mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


def give_back_blocks() -> None:
    """Have the C library give every large block back as soon as it is free, from now on.

    glibc keeps freed blocks in its heap once it has seen some. A training leaves a few bytes there after every batch
    (its loss and outputs, until the epoch's end), between which the next batch finds no room: the heap would grow by
    the whole set. It costs page faults, so it is for sets that are read from their file. For such blocks it undoes
    `keep_blocks`.
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
