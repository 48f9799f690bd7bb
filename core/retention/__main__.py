"""`python -m core.retention`: what `epochd gc` starts. One JSON object on stdout: `{"rehearsal", "kinds": {…}}`."""

import argparse
import json
import sys
from typing import Any

from pydantic import ValidationError

from core.db import migrate
from core.db.engine import Database
from core.errors import EpochdError
from core.retention import expiry, local
from core.retention.bin import Bin
from core.retention.storage import StorageSweep, knows_nothing
from core.settings import Settings, load_settings
from core.storage import Storage

DAY_SECONDS = 86400.0
GRACE_SECONDS = 3600.0
CACHE_DAYS = 30.0


def collect(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Remove what nothing points to; return how much of each kind.

    Raises:
        EpochdError: it does not look as if database and storage belong together.
    """
    migrate.ensure_current(settings.sqlalchemy_url)  # an empty one would make everything garbage
    garbage = Bin(is_rehearsal=options.dry_run)
    database, storage = Database(settings.sqlalchemy_url), Storage(settings.storage_url)
    try:
        if not options.force and knows_nothing(database, storage):
            raise EpochdError(
                f"The database knows none of the jobs and uploads in {settings.storage_url}: is EPOCHD_DATABASE_URL "
                "the one of this deployment? Nothing was removed; --force removes all of them."
            )
        sweep = StorageSweep(database, storage, garbage, options.grace_seconds)
        jobs = keys = frozenset[str]()
        if options.older_than_seconds is not None:
            jobs = expiry.jobs(database, storage, garbage, options.older_than_seconds)
        if options.unused_datasets_seconds is not None:
            keys = expiry.versions(database, garbage, options.unused_datasets_seconds)
        sweep.jobs(jobs)
        sweep.uploads(keys)
        local.scratch(settings.caches, database, garbage, options.grace_seconds)
        local.caches(settings.caches, garbage, options.unused_cache_seconds)
        local.half_written(settings.caches, garbage)
    finally:
        database.dispose()
    kinds = {kind: {"entries": tally.entries, "bytes": tally.size_bytes} for kind, tally in garbage.found.items()}
    return {"rehearsal": garbage.is_rehearsal, "kinds": kinds}


def main() -> int:
    """Collect; the exit status is 1 where it was refused."""
    parser = argparse.ArgumentParser(prog="python -m core.retention", description="Started by `epochd gc`.")
    parser.add_argument("--dry-run", action="store_true", help="count only")
    parser.add_argument("--force", action="store_true", help="though the database knows nothing of the storage")
    parser.add_argument("--grace-seconds", type=float, default=GRACE_SECONDS)
    parser.add_argument("--unused-cache-seconds", type=float, default=CACHE_DAYS * DAY_SECONDS)
    parser.add_argument("--older-than-seconds", type=float)
    parser.add_argument("--unused-datasets-seconds", type=float)
    try:
        report = collect(load_settings(), parser.parse_args())
    except (EpochdError, ValidationError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
