"""Artifacts, checkpoints and uploads by key, in a folder or wherever fsspec reaches (`s3://…`, `memory://`).

A key looks like a relative path. In a folder a file appears whole or not at all: it is written beside its place, synced
and renamed. Object stores do the same by themselves.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any, cast

CHUNK_BYTES = 1 << 20
KEY = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*(/[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*)*")
"""Parts of letters, digits and `._=@+-`, none beginning with a dot: no `..`, nothing absolute, no hidden files."""
MAX_KEY = 500


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_full(error: BaseException) -> bool:
    """Say whether an error means that a disk, or somebody's share of it, is full."""
    if not isinstance(error, OSError):
        return False
    says_how_much = error.errno is None and re.fullmatch(r"\d+ requested and \d+ written", str(error)) is not None
    return says_how_much or error.errno in (errno.ENOSPC, errno.EDQUOT)  # NumPy's writer drops the number


class Storage:
    """Files by key below a URL or folder."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder: Path | None = None
        self._remote: Any = None
        if "://" not in url or url.startswith("file://"):
            self._folder = Path(url.removeprefix("file://")).expanduser().absolute()
            return
        from fsspec.core import url_to_fs

        self._remote, self._root = url_to_fs(url)

    def local_path(self, key: str) -> Path | None:
        """Return the path of a key's file where the storage is a folder on this machine, whether it is there or not."""
        _check(key)
        return None if self._folder is None else self._folder / key

    def put_file(self, path: Path, key: str) -> tuple[str, int]:
        """Store a copy of a file under a key, in place of what was there.

        Returns:
            SHA-256 in hex and size in bytes of what was stored.
        """
        place = self.local_path(key)
        if place is not None:
            return _put(path, place)
        with path.open("rb") as source, self._remote.open(self._at(key), "wb") as target:
            return _copy(source, target)

    def open(self, key: str) -> IO[bytes]:
        """Open a key's file to read it.

        Raises:
            FileNotFoundError: there is none.
        """
        place = self.local_path(key)
        return place.open("rb") if place is not None else cast("IO[bytes]", self._remote.open(self._at(key), "rb"))

    def fetch(self, key: str, path: Path) -> tuple[str, int]:
        """Copy a key's file to `path`, which appears whole or not at all.

        Returns:
            SHA-256 in hex and size in bytes of what was copied.

        Raises:
            FileNotFoundError: there is none.
        """
        with self.open(key) as source:
            return _write(source, path)

    def exists(self, key: str) -> bool:
        """Say whether a key has a file."""
        place = self.local_path(key)
        return place.is_file() if place is not None else bool(self._remote.isfile(self._at(key)))

    def delete(self, key: str) -> None:
        """Remove a key's file; one that is not there is no error."""
        place = self.local_path(key)
        if place is not None:
            place.unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError):
            self._remote.rm_file(self._at(key))

    def delete_prefix(self, prefix: str) -> None:
        """Remove everything whose key begins with `prefix` + `/`."""
        place = self.local_path(prefix.rstrip("/"))
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
            return
        with contextlib.suppress(FileNotFoundError):
            self._remote.rm(self._at(prefix.rstrip("/")), recursive=True)

    def _at(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"


def _check(key: str) -> None:
    if len(key) > MAX_KEY or KEY.fullmatch(key) is None:
        raise ValueError(
            f"{key!r} is no storage key: relative, of letters, digits and ._=@+-, no part beginning with a dot"
        )


def _put(path: Path, place: Path) -> tuple[str, int]:
    with path.open("rb") as source:
        return _write(source, place)


def _write(source: IO[bytes], place: Path) -> tuple[str, int]:
    """Write beside the place, sync, rename, sync the folder."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as target:
            written = _copy(source, target)
            target.flush()
            os.fsync(target.fileno())
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return written


def _copy(source: IO[bytes], target: IO[bytes]) -> tuple[str, int]:
    sha256, size_bytes = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        sha256.update(chunk)
        target.write(chunk)
        size_bytes += len(chunk)
    return sha256.hexdigest(), size_bytes
