"""Arrays on disk that are filled piece by piece."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from core.datasets.samples import Array


def create_mapped(path: Path, *, dtype: Any, shape: tuple[int, ...]) -> Array:
    """Create a `.npy` file and map it, to be written to.

    Its space is taken at once. A mapped file without space ends the process that writes to it by SIGBUS, and no
    exception says that the disk is full.

    Raises:
        OSError: the disk is full.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
