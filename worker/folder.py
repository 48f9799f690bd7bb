"""The folder of one attempt, and what of it is kept in the storage.

    jobs/<job>/<fence>/trainer.log           stays with the job
    jobs/<job>/<fence>/checkpoint-3-120.pt   the trainer's own; it deletes all but its last two
    jobs/<job>/<fence>/kept/…                the published ones: the last two and the best
    jobs/<job>/<fence>/model.safetensors …   artifacts, at the end

Where the storage is a folder on this machine the attempt works in its place there; else in a scratch folder, and
files are stored before the database names them.
"""

import contextlib
import os
import shutil
from pathlib import Path

from core import digests
from core.messages import CheckpointRef, FileRef
from core.storage import Storage

LOG = "trainer.log"


class AttemptFolder:
    """Where one attempt writes.

    Args:
        storage: of artifacts and checkpoints.
        scratch: a local folder for attempts whose storage is elsewhere.
        job_id: the job.
        fence: the attempt's fence; no two attempts share a folder.
    """

    def __init__(self, storage: Storage, scratch: Path, job_id: str, fence: int) -> None:
        self._storage = storage
        self._prefix = f"jobs/{job_id}/{fence}"
        place = storage.local_path(self._prefix)
        self.is_in_storage = place is not None
        self.path = place if place is not None else scratch / job_id / str(fence)
        self._kept: list[CheckpointRef] = []

    def make(self) -> None:
        """Create the folder.

        Raises:
            OSError: the disk is full, or not to be written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        """The trainer's log."""
        return self.path / LOG

    def key(self, name: str) -> str:
        """Return the storage key of one of the attempt's files."""
        return f"{self._prefix}/{name}"

    def checkpoint_key(self, checkpoint: CheckpointRef) -> str:
        """Return the storage key under which a checkpoint is published."""
        return self.key(f"kept/{checkpoint.name}")

    def hold(self, checkpoint: CheckpointRef) -> bool:
        """Give a new checkpoint a second name, so that the trainer's tidying does not take it away.

        Returns:
            Whether it was still there; a supervisor that was away for long finds old ones gone.
        """
        kept = self.path / "kept"
        kept.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            try:
                os.link(self.path / checkpoint.name, kept / checkpoint.name)
            except FileNotFoundError:
                return False
            _sync(kept)
        return True

    def store(self, checkpoint: CheckpointRef) -> None:
        """Bring a held checkpoint into the storage, where it is not there already."""
        if not self.is_in_storage:
            kept = self.path / "kept" / checkpoint.name
            self._storage.put_file(kept, self.checkpoint_key(checkpoint), checkpoint.digest)

    def drop(self, checkpoint: CheckpointRef) -> None:
        """Remove a checkpoint that nothing points to."""
        (self.path / "kept" / checkpoint.name).unlink(missing_ok=True)
        self._storage.delete(self.checkpoint_key(checkpoint))

    def published(self, checkpoint: CheckpointRef, best_epoch: int | None) -> None:
        """Note what the database points to now, and remove all but the last two and the best."""
        self._kept.append(checkpoint)
        for old in self._kept[:-2]:
            if old.epoch != best_epoch:
                self.drop(old)
        self._kept = [one for one in self._kept[:-2] if one.epoch == best_epoch] + self._kept[-2:]

    @property
    def kept_keys(self) -> list[str]:
        """Keys of the checkpoints that are published and kept."""
        return [self.checkpoint_key(one) for one in self._kept]

    def store_artifact(self, file: FileRef) -> str:
        """Check a finished file against its digest, bring it into the storage, return its key.

        Raises:
            ValueError: the file is not the one that the trainer named.
        """
        path = self.path / file.name
        found = digests.of_file(path) if path.is_file() else None
        if found != file.sha256:
            raise ValueError(f"{file.name} has digest {found}, not {file.sha256} as the trainer said")
        key = self.key(file.name)
        if not self.is_in_storage:
            self._storage.put_file(path, key)
        return key

    def store_log(self) -> None:
        """Bring the log into the storage, where it is not there already."""
        if not self.is_in_storage and self.log.is_file():
            self._storage.put_file(self.log, self.key(LOG))

    def leave(self) -> None:
        """Remove what only this machine has: the scratch folder, or half-written files."""
        if not self.is_in_storage:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for leftover in self.path.glob(".*"):
            leftover.unlink(missing_ok=True)


def sweep(storage: Storage, job_id: str, fences: range, keep: frozenset[str]) -> None:
    """Remove what nothing points to once a job has ended; logs stay.

    Args:
        storage: of artifacts and checkpoints.
        job_id: a job in a terminal state.
        fences: those that its attempts may have had.
        keep: keys that the database names: artifacts, the last two checkpoints.
    """
    for fence in fences:
        prefix = f"jobs/{job_id}/{fence}"
        place = storage.local_path(prefix)
        if place is not None:
            _sweep_folder(place, prefix, keep)
        elif not any(key.startswith(f"{prefix}/kept/") for key in keep):
            storage.delete_prefix(f"{prefix}/kept")


def _sweep_folder(place: Path, prefix: str, keep: frozenset[str]) -> None:
    for path in sorted(place.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        if path.is_dir():
            with contextlib.suppress(OSError):  # not empty: something in it is kept
                path.rmdir()
        elif path.name != LOG and f"{prefix}/{path.relative_to(place).as_posix()}" not in keep:
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
