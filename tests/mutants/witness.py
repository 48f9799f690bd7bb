"""A plugin of pytest for runs in a copy: such a run counts only if all code of ours came from that copy."""

import sys
from pathlib import Path

import pytest

OURS = ("api", "bench", "core", "epochd", "migrations", "tests", "worker")
ELSEWHERE = 99
"""Exit status of a run that imported code from somewhere else."""


def strangers(root: Path) -> list[str]:
    """Return the modules of ours that were not imported from below `root`."""
    files = {
        name: module.__file__
        for name, module in sys.modules.items()
        if name.partition(".")[0] in OURS and getattr(module, "__file__", None)
    }
    return sorted(name for name, file in files.items() if file and not Path(file).resolve().is_relative_to(root))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give the run another exit status where it has tested other code."""
    root = session.config.rootpath.resolve()
    found = strangers(root)
    if found:
        sys.stderr.write(f"imported from outside of {root}: {', '.join(found)}\n")
        session.exitstatus = ELSEWHERE
