"""What is removed only when somebody asks for it: jobs that ended long ago, versions of data sets that no job names."""

from core.db import references
from core.db.engine import Database
from core.retention.bin import Bin, batches
from core.retention.storage import JOBS
from core.storage import Storage

TOGETHER = 100  # jobs of one transaction


def jobs(database: Database, storage: Storage, garbage: Bin, older_than_seconds: float) -> frozenset[str]:
    """Delete jobs that ended so long ago: their rows first, so that no row ever names a file that is gone.

    Returns:
        Their ids.
    """
    with database.session_scope(write=False) as session:
        found = references.expired(session, older_than_seconds)
    for some in batches(found, TOGETHER):
        gone = some
        if not garbage.is_rehearsal:
            with database.session_scope() as session:
                gone = references.delete_expired(session, older_than_seconds, some)
        for job_id in gone:
            prefix = f"{JOBS}/{job_id}"
            garbage.count("expired_jobs", sum(file.size_bytes for file in storage.walk(prefix)))
            if not garbage.is_rehearsal:
                storage.delete_prefix(prefix)
    return frozenset(found)


def versions(database: Database, garbage: Bin, older_than_seconds: float) -> frozenset[str]:
    """Delete versions of data sets, uploaded so long ago, that no job names.

    Returns:
        Keys of their files, which may go unless they are uploaded again meanwhile.
    """
    with database.session_scope(write=not garbage.is_rehearsal) as session:
        found = references.unused_versions(session, older_than_seconds)
        keys = references.version_keys(session, found)
        if not garbage.is_rehearsal:
            references.delete_versions(session, found)
    return keys
