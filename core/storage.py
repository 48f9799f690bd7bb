"""Artifacts, checkpoints and uploads by key, in a folder or wherever fsspec reaches (`s3://…`, `memory://`).

A key looks like a relative path. In a folder a file appears whole or not at all: it is written beside its place, synced
and renamed. Object stores do the same by themselves.
"""

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from core import digests

CHUNK_BYTES = 1 << 20
KEY = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*(/[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*)*")
"""Parts of letters, digits and `._=@+-`, none beginning with a dot: no `..`, nothing absolute, no hidden files."""
MAX_KEY = 500


class Stored(NamedTuple):
    """A file as it was found."""

    key: str
    """Where it is; parts may begin with a dot, as those of half-written files do."""
    size_bytes: int
    modified_at: float | None
    """Seconds since 1970; None where the store does not say."""


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

    def put_file(self, path: Path, key: str, like: str | None = None) -> tuple[str, int]:
        """Store a copy of a file under a key, in place of what was there.

        Returns:
            Digest, by the algorithm of a recorded one (`core.digests`), and size in bytes of what was stored.

        Raises:
            DigestUnknown: a newer version recorded the digest.
        """
        place = self.local_path(key)
        with path.open("rb") as source:
            if place is not None:
                return write(source, place, like)
            with self._remote.open(self._at(key), "wb") as target:
                return _copy(source, target, like)

    def open(self, key: str) -> IO[bytes]:
        """Open a key's file to read it.

        Raises:
            FileNotFoundError: there is none.
        """
        place = self.local_path(key)
        return place.open("rb") if place is not None else cast("IO[bytes]", self._remote.open(self._at(key), "rb"))

    def fetch(self, key: str, path: Path, like: str | None = None) -> tuple[str, int]:
        """Copy a key's file to `path`, which appears whole or not at all.

        Returns:
            Digest, by the algorithm of a recorded one (`core.digests`), and size in bytes of what was copied.

        Raises:
            FileNotFoundError: there is none.
            DigestUnknown: a newer version recorded the digest.
        """
        with self.open(key) as source:
            return write(source, path, like)

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

    def names(self, prefix: str) -> list[str]:
        """Return the names directly below a prefix, folders and files."""
        place = self.local_path(prefix)
        if place is not None:
            return sorted(os.listdir(place)) if place.is_dir() else []  # noqa: PTH208 - names only, of many thousands
        self._remote.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            return sorted(
                path.rstrip("/").rpartition("/")[2] for path in self._remote.ls(self._at(prefix), detail=False)
            )
        return []

    def walk(self, prefix: str) -> Iterator[Stored]:
        """Yield every file below a prefix, half-written ones too."""
        place = self.local_path(prefix)
        if place is not None and self._folder is not None:
            yield from _walk(self._folder, place)
            return
        start = len(self._at(""))
        for path, about in self._remote.find(self._at(prefix), detail=True).items():
            yield Stored(path[start:], int(about["size"]), _modified_at(about))

    def remove(self, file: Stored) -> bool:
        """Remove a file that `walk` has found, unless it was written again since; return whether it is gone.

        In a folder it is moved aside before it is looked at once more, so that no writer can come in between.
        """
        if self._folder is None:
            self._remote.rm_file(self._at(file.key))
            return True
        place = self._folder / file.key
        aside = place.with_name(f".gone-{uuid.uuid4().hex}")
        try:
            place.rename(aside)
        except FileNotFoundError:
            return False
        if aside.lstat().st_mtime != file.modified_at and not place.exists():
            aside.rename(place)
            return False
        aside.unlink()
        return True

    def prune(self, prefix: str) -> None:
        """Remove the folders at and below a prefix that hold no file; object stores have none."""
        place = self.local_path(prefix)
        if place is None:
            return
        for folder, _, _ in os.walk(place, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(folder).rmdir()

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


def _walk(root: Path, place: Path) -> Iterator[Stored]:
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                about = path.lstat()
                yield Stored(path.relative_to(root).as_posix(), about.st_size, about.st_mtime)


def _modified_at(about: dict[str, Any]) -> float | None:
    """Return when an object was written; each kind of store has its own word for it."""
    moment = next((about[name] for name in ("LastModified", "mtime", "updated", "created") if about.get(name)), None)
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.timestamp() if isinstance(moment, datetime) else moment


def _check(key: str) -> None:
    if len(key) > MAX_KEY or KEY.fullmatch(key) is None:
        raise ValueError(
            f"{key!r} is no storage key: relative, of letters, digits and ._=@+-, no part beginning with a dot"
        )


def write(source: IO[bytes], place: Path, like: str | None = None) -> tuple[str, int]:
    """Write to a file that appears whole or not at all: beside its place, synced, renamed, its folder synced.

    Returns:
        Digest, by the algorithm of a recorded one (`core.digests`), and size in bytes of what was written.

    Raises:
        DigestUnknown: a newer version recorded the digest.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as target:
            written = _copy(source, target, like)
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


def _copy(source: IO[bytes], target: IO[bytes], like: str | None = None) -> tuple[str, int]:
    digest, size_bytes = digests.Running(like), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
        size_bytes += len(chunk)
    return digest.text(), size_bytes
