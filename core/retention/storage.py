"""What lies in the storage and belongs to nobody: of attempts, of deleted jobs, of uploads."""

from collections.abc import Callable, Collection, Iterator, Sequence

from core.datasets.leftovers import OLD_SECONDS
from core.db import references
from core.db.engine import Database
from core.db.references import BATCH, Kept
from core.retention.bin import Bin, batches
from core.storage import Storage, Stored

LOG = "trainer.log"
JOBS, UPLOADS = "jobs", "datasets"


class StorageSweep:
    """Compares the storage with the rows.

    Args:
        database: whose rows name files.
        storage: of artifacts, checkpoints and uploads.
        garbage: takes what is found.
        grace_seconds: nothing younger is touched.
    """

    def __init__(self, database: Database, storage: Storage, garbage: Bin, grace_seconds: float) -> None:
        self._database = database
        self._storage = storage
        self._garbage = garbage
        self._grace_seconds = grace_seconds

    def jobs(self, expired: Collection[str] = ()) -> None:
        """Remove files of attempts that no row names, and all files of jobs that are not there.

        Args:
            expired: jobs that are counted already.
        """
        for job_ids in batches(self._storage.names(JOBS), BATCH):  # listed before their rows are looked for
            with self._database.session_scope(write=False) as session:
                kept = references.kept(session, job_ids)
            for job_id in (one for one in job_ids if one not in expired):
                self._job(job_id, kept.get(job_id))

    def _job(self, job_id: str, kept: Kept | None) -> None:
        prefix = f"{JOBS}/{job_id}"
        for file in self._old(prefix):
            if kept is None:
                self._garbage.take("deleted_jobs", self._storage, file)
            elif is_garbage(file.key, kept):
                self._garbage.take("attempts", self._storage, file)
        if self._garbage.is_rehearsal:
            return
        if kept is None:
            self._storage.prune(prefix)
            return
        for fence in self._storage.names(prefix):
            if fence.isdecimal() and int(fence) < kept.fence:
                self._storage.prune(f"{prefix}/{fence}")

    def uploads(self, expired: Collection[str] = ()) -> None:
        """Remove uploaded files that no version names; what is just being uploaded is young.

        Args:
            expired: keys whose version was (in a rehearsal: would be) deleted on request.
        """
        for files in batches(self._old(UPLOADS), BATCH):
            with self._database.session_scope(write=False) as session:
                named = references.uploads(session, [file.key for file in files])
            for file in files:
                if _is_hidden(file):
                    self._half_written(file)
                elif file.key not in named or (self._garbage.is_rehearsal and file.key in expired):
                    self._garbage.take("datasets" if file.key in expired else "uploads", self._storage, file)

    def _half_written(self, file: Stored) -> None:
        if self._garbage.is_older(file.modified_at, OLD_SECONDS):
            self._garbage.take("temporary", self._storage, file)

    def _old(self, prefix: str) -> Iterator[Stored]:
        for file in self._storage.walk(prefix):
            if self._garbage.is_older(file.modified_at, self._grace_seconds):
                yield file


def is_garbage(key: str, kept: Kept) -> bool:
    """Tell whether a file of a job is not named by a row, and cannot be any more. Logs stay with their job."""
    _, _, fence, *path = key.split("/")
    is_log = path == [LOG]
    return bool(path) and fence.isdecimal() and int(fence) < kept.fence and key not in kept.keys and not is_log


def knows_nothing(database: Database, storage: Storage) -> bool:
    """Tell whether the storage has files of jobs or uploads and the database knows none of them: the wrong database?"""
    names = storage.names(JOBS)
    keys = [file.key for file in storage.walk(UPLOADS) if not _is_hidden(file)]
    if not names and not keys:
        return False
    with database.session_scope(write=False) as session:
        knows_jobs = _any(names, lambda some: bool(references.kept(session, some)))
        return not knows_jobs and not _any(keys, lambda some: bool(references.uploads(session, some)))


def _any(items: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> bool:
    return any(holds(some) for some in batches(items, BATCH))


def _is_hidden(file: Stored) -> bool:
    return file.key.rpartition("/")[2].startswith(".")
