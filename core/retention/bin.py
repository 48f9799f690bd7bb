"""Where garbage goes: removed, or in a rehearsal only counted."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar, get_args

from core.storage import Storage, Stored

Kind = Literal[
    "attempts", "deleted_jobs", "uploads", "scratch", "caches", "temporary", "expired_jobs", "datasets"
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
ASIDE = ".old-"

T = TypeVar("T")


@dataclass
class Tally:
    """How much of one kind was removed."""

    entries: int = 0
    """Files; of caches and work folders, folders; of expired jobs, jobs."""
    size_bytes: int = 0


@dataclass
class Bin:
    """Takes what is garbage.

    Args:
        is_rehearsal: count only.
        clock: seconds since 1970, as files have them.
    """

    is_rehearsal: bool = False
    clock: Callable[[], float] = time.time
    found: dict[Kind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in KINDS})

    def count(self, kind: Kind, size_bytes: int, entries: int = 1) -> None:
        """Note what is gone."""
        self.found[kind].entries += entries
        self.found[kind].size_bytes += size_bytes

    def take(self, kind: Kind, storage: Storage, file: Stored) -> None:
        """Remove a stored file."""
        if self.is_rehearsal or storage.remove(file):
            self.count(kind, file.size_bytes)

    def take_local(self, kind: Kind, path: Path) -> None:
        """Remove a file or folder of this machine; a folder is moved aside first, so that it goes all at once."""
        size_bytes = _size_bytes(path)
        if self.is_rehearsal or _removed(path):
            self.count(kind, size_bytes)

    def is_older(self, moment: float | None, seconds: float) -> bool:
        """Tell whether something was last touched so long ago; not where that is unknown."""
        return moment is not None and self.clock() - moment >= seconds


def used_at(path: Path) -> float:
    """Return when a file, or the newest of a folder, was last read or written, as far as the file system notes it."""
    moments = [0.0]
    for one in _entries(path):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            about = one.lstat()
            moments.append(about.st_mtime if one.is_dir() else max(about.st_atime, about.st_mtime))
    return max(moments)


def children(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing where it is not there."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items, so many at once."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def _entries(path: Path) -> list[Path]:
    return [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]


def _size_bytes(path: Path) -> int:
    size_bytes = 0
    for one in _entries(path):
        with contextlib.suppress(FileNotFoundError):
            size_bytes += 0 if one.is_dir() else one.lstat().st_size
    return size_bytes


def _removed(path: Path) -> bool:
    aside = path.with_name(f"{ASIDE}{path.name.removeprefix(ASIDE)}")
    try:
        path.rename(aside)
    except OSError:  # somebody else was quicker, or it is not ours to touch
        return False
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)
    return True
