"""What processes that were killed left behind: temporary files and folders that nobody will finish."""

import shutil
import time
from pathlib import Path

OLD_SECONDS = 24 * 3600.0
"""Nobody writes to one temporary file for so long."""


def sweep(folder: Path, prefix: str, *, now: float | None = None) -> None:
    """Remove entries of `folder` whose name begins with `prefix` and that were not touched for a day."""
    limit = (time.time() if now is None else now) - OLD_SECONDS
    for path in folder.glob(f"{prefix}*"):
        try:
            if path.stat().st_mtime >= limit:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        except FileNotFoundError:
            continue  # another process was quicker
