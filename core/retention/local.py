"""What lies on this machine and is not needed: caches that nobody used, work folders and half-written files."""

from pathlib import Path

from core.datasets.leftovers import OLD_SECONDS
from core.db import references
from core.db.engine import Database
from core.db.references import BATCH
from core.retention.bin import ASIDE, Bin, batches, children, used_at

CACHES = ("data", "uploads", "inductor")
HALF_WRITTEN = {
    "data": (".tmp-", ASIDE),
    "uploads": (".tmp-", ASIDE),
    "inductor": (ASIDE,),
    "incoming": (".upload-", ".profile-"),
}
"""By folder of the cache: how names begin while something is written."""
ATTEMPTS = "attempts"


def caches(folder: Path, garbage: Bin, unused_seconds: float) -> None:
    """Remove what was not used for so long; who has it mapped keeps it, who wants it again makes it again."""
    for name in CACHES:
        for path in children(folder / name):
            if not path.name.startswith(".") and garbage.is_older(used_at(path), unused_seconds):
                garbage.take_local("caches", path)


def half_written(folder: Path, garbage: Bin) -> None:
    """Remove what processes that died have left; nobody writes to one such file for a day."""
    for name, prefixes in HALF_WRITTEN.items():
        for path in children(folder / name):
            if path.name.startswith(prefixes) and garbage.is_older(used_at(path), OLD_SECONDS):
                garbage.take_local("temporary", path)


def scratch(folder: Path, database: Database, garbage: Bin, grace_seconds: float) -> None:
    """Remove work folders (of a storage elsewhere) whose attempt is over."""
    for jobs in batches(children(folder / ATTEMPTS), BATCH):
        with database.session_scope(write=False) as session:
            kept = references.kept(session, [path.name for path in jobs])
        for job in jobs:
            found = kept.get(job.name)
            for attempt in children(job):
                fence = attempt.name.removeprefix(ASIDE)
                is_over = found is None or (fence.isdecimal() and int(fence) < found.fence)
                if is_over and garbage.is_older(used_at(attempt), grace_seconds):
                    garbage.take_local("scratch", attempt)
            if (found is None or found.is_over) and not garbage.is_rehearsal and not children(job):
                job.rmdir()
