"""Uploads on their way in: bytes to a temporary file under a limit, checked by reading all of them, or nothing left.

Imported by the API process: what reads the formats (pyarrow, Pillow, NumPy) is imported when an upload comes.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from core.datasets.formats import FORMATS, Limits, UnreadableError
from core.datasets.leftovers import sweep
from core.errors import TooLarge

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Upload:
    """A checked upload in a temporary file, which is gone at the end of the `with` block.

    Attributes:
        path: the file; move or copy it where it shall stay.
        format: what it is.
        sha256: digest of its bytes.
        size_bytes: their number.
        profile: what it holds, see `core.datasets.profile`.
    """

    path: Path
    format: str
    sha256: str
    size_bytes: int
    profile: dict[str, Any]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)


def receive(
    stream: IO[bytes] | Iterable[bytes],
    *,
    format: str,  # noqa: A002 - the wire's name
    folder: Path,
    limits: Limits | None = None,
    header: bool | None = None,
) -> Upload:
    """Write a stream to a temporary file in `folder` and check that it is what `format` says.

    Use it as a context manager: the file is removed at the end. Whatever fails, nothing stays on disk.

    Args:
        stream: a file, or pieces of bytes.
        format: `csv`, `parquet`, `npz`, `images` (a zip of class folders) or `idx`.
        folder: where temporary files lie; made where it is missing.
        limits: bytes as they come and unpacked.
        header: whether a CSV file's first row holds names; None: found out.

    Raises:
        TooLarge: more than `limits.max_bytes`.
        DataInvalid: not what `format` says; the issue names row, column or file in the archive.
    """
    from core.datasets.profiling import profile

    limits = limits or Limits()
    if format not in FORMATS:
        detail = f"no format is called {format!r}"
        raise UnreadableError("unknown_format", detail, f"one of {', '.join(FORMATS)}").as_invalid("/format")
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, ".upload-")
    handle, name = tempfile.mkstemp(prefix=".upload-", dir=folder)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            sha256, size_bytes = _write(stream, file, limits.max_bytes)
        return Upload(path, format, sha256, size_bytes, profile(path, format, limits, header=header))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write(stream: IO[bytes] | Iterable[bytes], file: IO[bytes], max_bytes: int) -> tuple[str, int]:
    sha256, size_bytes = hashlib.sha256(), 0
    for chunk in _chunks(stream):
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise TooLarge(f"the file is larger than the {max_bytes} bytes that this service takes")
        sha256.update(chunk)
        file.write(chunk)
    if not size_bytes:
        raise UnreadableError("empty", "the file is empty").as_invalid("/file")
    return sha256.hexdigest(), size_bytes


def _chunks(stream: IO[bytes] | Iterable[bytes]) -> Iterable[bytes]:
    read = getattr(stream, "read", None)
    return stream if read is None else iter(lambda: read(CHUNK_BYTES), b"")
