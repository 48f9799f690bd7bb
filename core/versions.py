"""Versions of installed packages, read from disk once: a reading takes more than 10 ms, which every job would pay."""

import functools
from importlib import metadata


@functools.cache
def installed(name: str) -> str:
    """Return the version of an installed distribution, such as `scikit-learn`.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    return metadata.version(name)
