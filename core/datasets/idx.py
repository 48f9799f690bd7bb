"""IDX, the format of MNIST: two zero bytes, a type, the number of dimensions, their sizes, the numbers (big-endian)."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from core.datasets.samples import Array

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"


class IdxError(ValueError):
    """The file is not what an IDX file is; the message says in what way."""


def read(path: Path, *, max_bytes: int = 1 << 40) -> Array:
    """Read an IDX file, gzipped or not, into an array of native byte order.

    Raises:
        IdxError: wrong magic, or fewer or more bytes than its header says, or more than `max_bytes`.
    """
    with path.open("rb") as file:
        return read_file(file, max_bytes=max_bytes)


def read_file(file: IO[bytes], *, max_bytes: int) -> Array:
    """Read the IDX array that an open file holds, gzipped or not; see `read`."""
    is_gzip = file.read(2) == GZIP_MAGIC
    file.seek(0)
    if not is_gzip:
        return read_stream(file, max_bytes=max_bytes)
    try:
        with gzip.open(file) as unpacked:
            return read_stream(cast("IO[bytes]", unpacked), max_bytes=max_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise IdxError(f"the gzip stream is damaged ({error})") from error


def read_stream(file: IO[bytes], *, max_bytes: int) -> Array:
    """Read the IDX array that a stream of plain bytes holds; see `read`."""
    dtype, shape = read_header(file)
    expected = math.prod(shape) * dtype.itemsize
    if expected > max_bytes:
        raise IdxError(f"its header announces {expected} bytes, more than the {max_bytes} allowed")
    content = file.read(expected)
    if len(content) < expected:
        raise IdxError(f"it is cut off: its header says {expected} bytes of numbers, it has {len(content)}")
    if file.read(1):
        raise IdxError(f"it has bytes after the {expected} that its header says")
    return np.frombuffer(content, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_header(file: IO[bytes]) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
    """Read magic and sizes; return dtype and shape."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not 1 <= magic[3] <= 8:
        raise IdxError(f"it begins with {magic.hex(' ') or 'nothing'} instead of an IDX magic such as 00 00 08 03")
    count = magic[3]
    sizes = file.read(4 * count)
    if len(sizes) < 4 * count:
        raise IdxError("it ends within its header")
    return np.dtype(DTYPES[magic[2]]), struct.unpack(f">{count}I", sizes)
