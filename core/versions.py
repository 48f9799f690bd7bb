"""Versions of installed packages, read from disk once: a reading takes more than 10 ms, which every job would pay."""

import functools
from importlib import metadata

NOT_INSTALLED = "0.0.0"


@functools.cache
def installed(name: str) -> str:
    """Return the version of an installed distribution, such as `scikit-learn`.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    return metadata.version(name)


def installed_or_none(name: str) -> str | None:
    """Return the version of a distribution, None where it is not installed."""
    try:
        return installed(name)
    except metadata.PackageNotFoundError:
        return None


def own() -> str:
    """Return the version of this package; `0.0.0` in a checkout that was never installed."""
    return installed_or_none("epochd") or NOT_INSTALLED
