"""Zip archives from strangers: names and sizes are checked first, and nothing is ever unpacked to disk."""

import stat
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from core.datasets.formats import Limits, UnreadableError

JUNK_FOLDERS = ("__MACOSX",)
JUNK_FILES = ("thumbs.db", "desktop.ini")
ENCRYPTED = 0x1


class Archive:
    """The files of a checked zip archive, without folders and without what operating systems add."""

    def __init__(self, file: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
        self._file = file
        self.entries = {entry.filename: entry for entry in entries}

    @property
    def names(self) -> list[str]:
        """Names of the files, sorted."""
        return sorted(self.entries)

    @contextmanager
    def open(self, name: str) -> Generator[IO[bytes]]:
        """Open a file to read it; it gives no more bytes than the archive's table says.

        Raises:
            UnreadableError: the file is damaged.
        """
        try:
            with self._file.open(self.entries[name]) as stream:
                yield stream
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise UnreadableError("damaged_archive", f"{name!r} in the zip is damaged: {error}") from error
        except Exception as error:
            if type(error).__name__ != "error":  # zlib.error and lzma's are no subclasses of anything
                raise
            raise UnreadableError("damaged_archive", f"{name!r} in the zip is damaged: {error}") from error


@contextmanager
def open_archive(path: Path, limits: Limits) -> Generator[Archive]:
    """Open a zip archive whose names and sizes are harmless.

    Raises:
        UnreadableError: no zip; a path that leaves the archive; a link; encrypted; too many files; too large unpacked.
    """
    try:
        with zipfile.ZipFile(path) as file:
            yield Archive(file, _checked(file.infolist(), path.stat().st_size, limits))
    except zipfile.BadZipFile as error:
        raise UnreadableError("not_a_zip", f"the file is no zip archive: {error}") from error


def _checked(entries: list[zipfile.ZipInfo], packed_bytes: int, limits: Limits) -> list[zipfile.ZipInfo]:
    if len(entries) > limits.max_entries:
        raise UnreadableError("too_many_files", f"the zip holds {len(entries)} files; {limits.max_entries} are allowed")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > limits.max_unpacked_bytes:
        detail = f"the zip unpacks to {unpacked} bytes; {limits.max_unpacked_bytes} are allowed"
        raise UnreadableError("unpacks_too_large", detail, "split the data set, or store smaller images")
    if unpacked > limits.ratio_free_bytes and unpacked > limits.max_ratio * packed_bytes:
        detail = f"the zip grows from {packed_bytes} to {unpacked} bytes, more than {limits.max_ratio:g} times"
        raise UnreadableError("unpacks_too_large", detail, "data does not shrink so far; is this a zip bomb?")
    for entry in entries:
        _check_entry(entry)
    files = [entry for entry in entries if not entry.is_dir() and not _is_junk(entry.filename)]
    if not files:
        raise UnreadableError("empty", "the zip holds no files")
    if len({entry.filename for entry in files}) < len(files):
        raise UnreadableError("damaged_archive", "the zip holds two files of the same name")
    return files


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":" or "\0" in name:
        detail = f"the zip holds a file named {entry.orig_filename!r}, which lies outside of it"
        raise UnreadableError("unsafe_path", detail, "pack the folder itself, with relative paths")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise UnreadableError("unsafe_path", f"{name!r} in the zip is a link", "pack the files that links point to")
    if entry.flag_bits & ENCRYPTED:
        raise UnreadableError("encrypted", f"{name!r} in the zip is encrypted", "pack it without a password")


def _is_junk(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts[0] in JUNK_FOLDERS or path.name.startswith(".") or path.name.lower() in JUNK_FILES
