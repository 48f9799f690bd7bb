"""Files: can they be written and read back, and how much space is left?"""

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from core.doctor.findings import Finding, error, ok, warning
from core.settings import GIB, Settings
from core.storage import Storage

PROBE = b"epochd doctor\n"
LOW_BYTES, FULL_BYTES = 5 * GIB, GIB
LOW_INODES, FULL_INODES = 0.05, 0.01
"""As shares of all."""


def look(settings: Settings) -> Iterator[Finding]:
    """Check the storage and every folder that this machine writes to."""
    yield _usable(settings)
    places = {"data": settings.home, "cache": settings.caches}
    artifacts = Storage(settings.storage_url).local_path("jobs")
    if artifacts is not None:
        places["artifacts"] = artifacts.parent
    for name, place in places.items():
        yield _space(name, place)


def _usable(settings: Settings) -> Finding:
    """Write a file, read it back, delete it."""
    key, began = f"doctor-probe-{uuid.uuid4().hex}", time.perf_counter()
    where = settings.storage_url
    try:
        storage = Storage(where)
        with tempfile.NamedTemporaryFile() as probe:
            probe.write(PROBE)
            probe.flush()
            storage.put_file(Path(probe.name), key)
        with storage.open(key) as file:
            content = file.read()
        storage.delete(key)
    except Exception as failure:  # noqa: BLE001 - every kind of store has errors of its own
        advice = "See that EPOCHD_ARTIFACTS_URL is right and that this user may write there: no job can end without it."
        return error("storage.usable", f"{where} cannot be used: {type(failure).__name__}: {failure}", advice)
    seconds = time.perf_counter() - began
    if content != PROBE:
        advice = "It is not what it was: look at the disk, or at what stands between."
        return error("storage.usable", f"{where} gave back {len(content)} other bytes than were written.", advice)
    return ok("storage.usable", f"{where}: written, read and deleted in {seconds * 1000:.0f} ms.", seconds=seconds)


def _space(name: str, place: Path) -> Finding:
    existing = next(one for one in (place, *place.parents) if one.is_dir())
    if not os.access(existing, os.W_OK | os.X_OK):
        advice = f"Let the user that runs epochd (uid {os.geteuid()}) write there."
        return error(f"space.{name}", f"{existing} cannot be written.", advice, folder=str(place))
    about = os.statvfs(existing)
    inodes = about.f_favail / about.f_files if about.f_files else 1.0
    return judged_space(name, place, about.f_bavail * about.f_frsize, inodes)


def judged_space(name: str, place: Path, free_bytes: int, free_inodes: float) -> Finding:
    """Judge what is left of a folder's disk.

    Args:
        name: `data`, `cache` or `artifacts`.
        place: the folder.
        free_bytes: for this user.
        free_inodes: share of the inodes; 1 where the file system does not count them.
    """
    check, numbers = f"space.{name}", {"folder": str(place), "free_bytes": free_bytes, "free_inodes": free_inodes}
    found = f"{place}: {free_bytes / GIB:.1f} GiB and {free_inodes:.0%} of the inodes are free."
    advice = "Make room: `epochd gc`, `epochd gc --older-than 90d`, or a larger disk."
    if free_bytes < FULL_BYTES or free_inodes < FULL_INODES:
        return error(check, found, advice, **numbers)
    if free_bytes < LOW_BYTES or free_inodes < LOW_INODES:
        return warning(check, found, advice, **numbers)
    return ok(check, found, **numbers)
