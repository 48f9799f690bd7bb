from dataclasses import replace
from pathlib import Path

from core.messages import TrainOrder
from tests.worker.conftest import Desk
from worker.order import make_order


def order_of(desk: Desk, folder: Path, first_threads: int | None) -> TrainOrder:
    """Return the order of an attempt whose job was begun with so many threads; none: it is the first."""
    desk.submit(epochs=1)
    claim = desk.claim()
    assert claim is not None
    numerics = None if first_threads is None else {"device": "cpu", "threads": first_threads}
    claim = replace(claim, numerics=numerics)
    settings = desk.site.settings.model_copy(update={"threads": 2})
    with desk.site.devices.assigned("cpu") as assignment:
        return make_order(claim, (), settings=settings, storage=desk.site.storage, folder=folder, assignment=assignment)


def test_first_attempt_computes_with_the_operators_threads(desk: Desk, tmp_path: Path) -> None:
    assert order_of(desk, tmp_path, None).threads == 2


def test_later_attempts_compute_with_the_threads_of_the_first(desk: Desk, tmp_path: Path) -> None:
    assert order_of(desk, tmp_path, 3).threads == 3
