"""What goes past the page cache is what was written, whatever a file system allows."""

import errno
import mmap
import os
from pathlib import Path

import pytest

from core.train import pages
from core.train.pages import Pages, write_past_cache

PAGE = mmap.PAGESIZE
SIZES = [0, 1, PAGE - 1, PAGE, PAGE + 1, pages.PIECE_BYTES + 3, 2 * pages.PIECE_BYTES + 5 * PAGE + 7]


def bytes_of(count: int) -> bytes:
    return os.urandom(PAGE + 13) * (count // (PAGE + 13) + 1)


def made(count: int) -> tuple[Pages, bytes]:
    """Return pages after a longer content was written before, and what they hold."""
    content, memory = bytes_of(count)[:count], Pages()
    memory.write(b"x" * (2 * count + 1))
    memory.clear()
    for at in range(0, count, 1 << 20):
        assert memory.write(content[at : at + (1 << 20)]) == len(content[at : at + (1 << 20)])
    return memory, content


def write(path: Path, data: bytes | memoryview) -> None:
    with path.open("wb") as file:
        write_past_cache(file.fileno(), data)


@pytest.mark.parametrize("count", SIZES)
def test_file_holds_what_was_written(count: int, tmp_path: Path) -> None:
    memory, content = made(count)
    with memory.getbuffer() as data:
        assert bytes(data) == content
        write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == content


def test_memory_that_begins_anywhere_is_written_too(tmp_path: Path) -> None:
    memory, content = made(3 * PAGE)
    with memory.getbuffer() as data:
        write(tmp_path / "file", data[5:])
    assert (tmp_path / "file").read_bytes() == content[5:]


def test_file_system_that_knows_no_other_way_gets_the_bytes_as_any(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_descriptor: int, command: int, _flags: int = 0) -> int:
        if command == pages.fcntl.F_SETFL:
            raise OSError(errno.EINVAL, "Invalid argument")
        return os.O_WRONLY

    memory, content = made(2 * PAGE + 1)
    monkeypatch.setattr(pages.fcntl, "fcntl", refuse)
    with memory.getbuffer() as data:
        write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == content


def test_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(_descriptor: int, _data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    memory, _ = made(2 * PAGE)
    monkeypatch.setattr(pages.os, "write", full)
    with memory.getbuffer() as data, pytest.raises(OSError, match="No space"):
        write(tmp_path / "file", data)


def test_disk_that_takes_a_part_gets_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = os.write

    def a_part(descriptor: int, data: memoryview) -> int:
        return real(descriptor, data[: max(1, len(data) // 3)])

    memory, content = made(5 * PAGE + 77)
    monkeypatch.setattr(pages.os, "write", a_part)
    with memory.getbuffer() as data:
        write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == content
