from dataclasses import replace
from pathlib import Path
from typing import Any

from core.db.leases import Checkpoint
from core.messages import TrainOrder
from tests.worker.conftest import Desk
from worker.order import make_order


def order_of(desk: Desk, folder: Path, **fields: Any) -> TrainOrder:
    """Return the order of an attempt whose claim has these fields."""
    desk.submit(epochs=1)
    claim = desk.claim()
    assert claim is not None
    claim = replace(claim, **fields)
    settings = desk.site.settings.model_copy(update={"threads": 2})
    with desk.site.devices.assigned("cpu") as assignment:
        return make_order(claim, (), settings=settings, storage=desk.site.storage, folder=folder, assignment=assignment)


def test_first_attempt_computes_with_the_operators_threads(desk: Desk, tmp_path: Path) -> None:
    assert order_of(desk, tmp_path).threads == 2


def test_later_attempts_compute_with_the_threads_of_the_first(desk: Desk, tmp_path: Path) -> None:
    assert order_of(desk, tmp_path, numerics={"device": "cpu", "threads": 3}).threads == 3


def test_checkpoint_before_the_newest_is_ordered_too(desk: Desk, tmp_path: Path) -> None:
    newest, before = (Checkpoint(key=f"jobs/{name}.pt", digest=name * 64, epoch=1) for name in "ab")
    order = order_of(desk, tmp_path, checkpoint=newest, previous_checkpoint=before)
    assert [Path(path).name for path in order.checkpoints] == ["a.pt", "b.pt"]
    assert order.checkpoint_digests == ["a" * 64, "b" * 64]
