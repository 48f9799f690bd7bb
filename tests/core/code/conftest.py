"""One warm process for all scripts."""

from collections.abc import Iterator

import pytest

from tests.core.code.scripts import Runner


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """Runs scripts in forks of a process that has imported what they may need."""
    with Runner() as running:
        yield running
