"""Checkpoints as files that survive a crash: temporary name, fsync, rename, fsync of the folder, SHA-256."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from core.faults import hit
from core.messages import CheckpointRef

FORMAT = 1
KEPT = 2
"""A checkpoint that turns out bad falls back to the one before."""


class CheckpointInvalid(Exception):
    """No checkpoint that was published can be read."""


def write_durably(path: Path, data: bytes | memoryview) -> str:
    """Write `data` to `path` so that it is there whole or not at all, and return its SHA-256."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
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
    return hashlib.sha256(data).hexdigest()


class FolderStore:
    """Checkpoints in the attempt's own folder; the last two are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []

    def save(self, state: dict[str, Any], *, epoch: int, step: int) -> CheckpointRef:
        """Write `state` and forget the third last checkpoint."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        data = buffer.getbuffer()
        path = self.folder / f"checkpoint-{epoch}-{step}.pt"
        sha256 = write_durably(path, data)
        self.written = [other for other in self.written if other != path] + [path]
        for old in self.written[:-KEPT]:
            old.unlink(missing_ok=True)
        del self.written[:-KEPT]
        return CheckpointRef(name=path.name, sha256=sha256, size_bytes=len(data), epoch=epoch, step=step)


def load(path: Path, sha256: str, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint whose digest is known.

    Raises:
        CheckpointInvalid: it is gone, damaged, or of another format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointInvalid(f"{path.name} cannot be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise CheckpointInvalid(f"{path.name} has digest {found}, not {sha256} as published")
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    if state["format"] != FORMAT:
        raise CheckpointInvalid(f"{path.name} has format {state['format']}; this version reads {FORMAT}")
    return state


def load_first(paths: list[str], digests: list[str], device: torch.device) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the first of the two best choices that is sound.

    Returns:
        The state (None when there is nothing to resume from), and what was wrong with those passed over.

    Raises:
        CheckpointInvalid: two were tried and neither is sound.
    """
    problems: list[str] = []
    for path, digest in list(zip(paths, digests, strict=True))[:KEPT]:
        try:
            return load(Path(path), digest, device), problems
        except CheckpointInvalid as invalid:
            problems.append(str(invalid))
    if len(problems) == KEPT:
        raise CheckpointInvalid("; ".join(problems))
    return None, problems
