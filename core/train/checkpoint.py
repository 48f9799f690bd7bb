"""Checkpoints as files that survive a crash: temporary name, fsync, rename, fsync of the folder, digest.

A file is a line of text, the header, and behind it what `torch.save` wrote::

    epochd-checkpoint {"format": 3, "torch": "2.15.0", "version": "0.1.0"}

The header can be read by every later and earlier version, before anything is unpickled. Files of format 1 have none.

Only damage makes a resume fall back to the checkpoint before: the file is gone, or its bytes are not those that were
published. A sound file that this version cannot read (a newer version wrote it, it holds code, it does not fit the
job) ends the attempt with `checkpoint_invalid` instead. Neither is such a file changed nor are epochs computed again
without a word: the version that wrote it can still go on from it.

    CheckpointInvalid          it cannot be resumed from
    └── CheckpointDamaged      its bytes are not those that were published
"""

import io
import json
import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import torch

from core import digests, versions
from core.errors import DigestUnknown
from core.faults import hit
from core.messages import CheckpointRef
from core.train.pages import Pages, write_past_cache

FORMAT = 3
"""Of the files that are written here. Whoever raises it adds to `UPGRADES` and runs tests/fixtures/make_checkpoint."""
MAGIC = b"epochd-checkpoint "
MAX_HEADER_BYTES = 4096
ZIP_MAGIC = b"PK\x03\x04"
"""What `torch.save` writes begins with it, and so do files of format 1."""
LARGE_BYTES = 1 << 20
"""From here on a file is hashed while the disk takes it from memory: neither waits for the other."""
KEPT = 2
"""A checkpoint that turns out damaged falls back to the one before."""
OPEN = frozenset({"model", "optimizer", "scheduler", "val_metrics", "metrics", "weights", "last_check"})
"""Parts of a state whose keys follow from what was trained so far; who loads them checks them."""

State = dict[str, Any]


class CheckpointInvalid(Exception):
    """The job cannot be resumed from a checkpoint."""


class CheckpointDamaged(CheckpointInvalid):
    """The file is gone, or its bytes are not those that were published."""


def write_durably(path: Path, data: bytes | memoryview) -> str:
    """Write `data` to `path` so that it is there whole or not at all, and return its digest."""
    if len(data) < LARGE_BYTES:
        _write(path, data)
        return digests.of_checkpoint(data)
    with ThreadPoolExecutor(1) as beside:
        digest = beside.submit(digests.of_checkpoint, data)
        _write(path, data)
        return digest.result()


def _write(path: Path, data: bytes | memoryview) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            if len(data) < LARGE_BYTES:
                file.write(data)
                file.flush()
            else:
                write_past_cache(file.fileno(), data)
            hit("checkpoint.written")
            os.fsync(file.fileno())
        hit("checkpoint.synced")
        temporary.replace(path)
        hit("checkpoint.renamed")
    except OSError:
        temporary.unlink(missing_ok=True)  # half a file on a full disk helps nobody
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _no_crc() -> Iterator[None]:
    """Leave out the checksums within torch's archive: the file has a digest, and they took half of the saving."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


class FolderStore:
    """Checkpoints in the attempt's own folder; the last two are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []
        self._taken = Pages()
        """Kept for the next one: most of the time that a copy takes goes into memory that is new to the process."""

    def take(self, state: dict[str, Any], *, epoch: int, step: int) -> Callable[[], CheckpointRef]:
        """Copy `state` as it is now, as bytes; the result writes them and forgets the third last checkpoint."""
        self._taken.clear()
        self._taken.write(header())
        with _no_crc():
            torch.save(
                state, cast("IO[bytes]", self._taken)
            )  # never into a file: on a full disk torch ends the process
        return partial(self._write, epoch=epoch, step=step)

    def save(self, state: dict[str, Any], *, epoch: int, step: int) -> CheckpointRef:
        """Take `state` and write it at once."""
        return self.take(state, epoch=epoch, step=step)()

    def _write(self, *, epoch: int, step: int) -> CheckpointRef:
        path = self._free_path(f"checkpoint-{epoch}-{step}")
        with self._taken.getbuffer() as data:
            digest = write_durably(path, data)
            size_bytes = len(data)
        self.written.append(path)
        for old in self.written[:-KEPT]:
            old.unlink(missing_ok=True)
        del self.written[:-KEPT]
        return CheckpointRef(name=path.name, digest=digest, size_bytes=size_bytes, epoch=epoch, step=step)

    def _free_path(self, name: str) -> Path:
        """Return a path that no kept checkpoint has: a published file is never written over."""
        path, number = self.folder / f"{name}.pt", 1
        while path in self.written:
            number += 1
            path = self.folder / f"{name}-{number}.pt"
        return path


def header() -> bytes:
    """Return the first line of a checkpoint that is written now."""
    about = {"format": FORMAT, "version": versions.own(), "torch": torch.__version__}
    return MAGIC + json.dumps(about, sort_keys=True).encode() + b"\n"


def from_format_1(state: State) -> State:
    """Return the state of format 1, which had the format's number among its parts and knew no diagnoses."""
    if state.get("format") != 1:
        raise CheckpointInvalid(f"it says format {state.get('format')} where a file without a header has format 1")
    unseen: State = {"said": [], "losses": [], "least_norm": None, "gradients": [], "vanished": 0}
    return {**{name: part for name, part in state.items() if name != "format"}, "diagnoser": unseen}


def from_format_2(state: State) -> State:
    """Return the state of format 2, which kept the best weights only, and not when they were judged."""
    judge = state["judge"]
    best = {**judge["best"], "step": None}
    return {**state, "judge": {**judge, "best": best, "shelf": {"next_best": [], "latest": []}}}


UPGRADES: Mapping[int, Callable[[State], State]] = {1: from_format_1, 2: from_format_2}
"""From each older format to the one after it."""


def load(path: Path, digest: str) -> State:
    """Read a checkpoint whose digest is known, of this format or an older one; its tensors are on the CPU.

    Raises:
        CheckpointDamaged: it is gone, or not what was published.
        CheckpointInvalid: a newer version wrote it, or it holds what is no state of a training.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointDamaged(f"{path.name} cannot be read: {error}") from error
    try:
        found = digests.of(data, digest)
        if found == digest:
            return _parsed(data)
    except (CheckpointInvalid, DigestUnknown) as invalid:
        raise CheckpointInvalid(f"{path.name} cannot be resumed from: {invalid}") from invalid
    raise CheckpointDamaged(f"{path.name} has digest {found}, not {digest} as published")


def _parsed(data: bytes) -> State:
    about, size = read_header(data)
    number = about["format"]
    if number > FORMAT:
        raise CheckpointInvalid(
            f"it has format {number}, written by version {about.get('version', 'unknown')}; this version reads up to "
            f"format {FORMAT}. Nothing of it was changed: run the job on the version that wrote it, or start anew"
        )
    with fitting("what is in it does not fit together"):
        state = _unpickled(data, size)
        for older in range(number, FORMAT):
            state = UPGRADES[older](state)
    return state


def read_header(data: bytes) -> tuple[dict[str, Any], int]:
    """Return what the header says (at least `format`), and how many bytes it takes.

    Raises:
        CheckpointInvalid: there is none, or not in words that can be understood.
    """
    if data.startswith(ZIP_MAGIC):
        return {"format": 1}, 0
    end = data.find(b"\n", 0, MAX_HEADER_BYTES)
    if not data.startswith(MAGIC) or end < 0:
        raise CheckpointInvalid("it does not begin as a checkpoint does")
    try:
        about = json.loads(data[len(MAGIC) : end])
    except ValueError as error:
        raise CheckpointInvalid(f"its header is not JSON: {error}") from error
    number = about.get("format") if isinstance(about, dict) else None
    if type(number) is not int or number < 1:
        raise CheckpointInvalid("its header names no format")
    return about, end + 1


def _unpickled(data: bytes, start: int) -> State:
    file = io.BytesIO(data)
    file.seek(start)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointInvalid(
            f"it holds more than tensors and plain values ({name[1] if name else 'foreign objects'}), which might run "
            "code, so nothing of it was loaded. Find out who can write to the artifact store"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointInvalid(f"it holds a {type(state).__name__}, not the state of a training")
    return state


def load_first(paths: list[str], digests: list[str]) -> tuple[State | None, list[str]]:
    """Read the first of the two best choices that is not damaged.

    Returns:
        The state (None when there is nothing to resume from), and what was wrong with those passed over.

    Raises:
        CheckpointDamaged: two were tried and both are damaged.
        CheckpointInvalid: one is sound, but cannot be resumed from here; an older one is not tried.
    """
    problems: list[str] = []
    for path, digest in list(zip(paths, digests, strict=True))[:KEPT]:
        try:
            return load(Path(path), digest), problems
        except CheckpointDamaged as damaged:
            problems.append(str(damaged))
    if len(problems) == KEPT:
        raise CheckpointDamaged(f"{'; '.join(problems)}. Check the artifact store")
    return None, problems


@contextmanager
def fitting(what: str) -> Iterator[None]:
    """Turn the ways in which a state can be other than expected into one error that says `what` is wrong.

    Raises:
        CheckpointInvalid: something within was other than expected.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, EOFError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise
        raise CheckpointInvalid(f"{what}: {type(error).__name__}: {error}") from error


def check_keys(state: State, expected: State) -> None:
    """Compare a state with that of the trainer that is to load it, part by part.

    Raises:
        CheckpointInvalid: parts are missing, or nobody knows them.
    """
    misfits = list(_misfits(state, expected, ""))
    if misfits:
        raise CheckpointInvalid(f"the checkpoint does not fit the job: {'; '.join(misfits)}")


def _misfits(found: Any, expected: Any, at: str) -> Iterator[str]:
    if not isinstance(found, dict) or not isinstance(expected, dict):
        if isinstance(found, dict) or isinstance(expected, dict):
            yield f"{at} is {'unknown' if isinstance(found, dict) else 'missing'}"
        return
    yield from (f"{at}{'.' if at else ''}{name} is missing" for name in expected if name not in found)
    yield from (f"{at}{'.' if at else ''}{name} is unknown" for name in found if name not in expected)
    for name in expected:
        if name in found and name not in OPEN:
            yield from _misfits(found[name], expected[name], f"{at}{'.' if at else ''}{name}")
