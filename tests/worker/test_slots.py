"""The claim loop of an embedded worker, between two looks; the trainers are doubles."""

from collections.abc import Callable, Iterator

import pytest

from tests.service import eventually
from tests.worker.conftest import Desk
from worker.slots import ClaimLoop, Slots


@pytest.fixture
def idle(make_desk: Callable[..., Desk]) -> Iterator[Desk]:
    """A worker that would look again in an hour."""
    desk = make_desk(poll_seconds=3600.0)
    loop = ClaimLoop(desk.site, Slots(desk.site))
    loop.start()
    yield desk
    desk.site.shutdown.ask()
    assert loop.join(10.0)


def test_what_is_written_to_sqlite_is_seen_long_before_the_next_look(idle: Desk) -> None:
    for _ in range(3):
        job_id = idle.submit(epochs=1)
        assert eventually(lambda job_id=job_id: idle.job(job_id).state == "succeeded")
