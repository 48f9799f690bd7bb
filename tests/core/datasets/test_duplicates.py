import numpy as np
import pytest

from core.datasets import duplicates as module
from core.datasets.duplicates import Duplicates, duplicates


def test_samples_of_val_that_train_holds_are_counted() -> None:
    table = np.arange(40, dtype=np.float32).reshape(20, 2)
    table[15] = table[3]
    table[16] = table[3]
    table[1] = table[0]  # within train: no concern of val
    found = list(duplicates((table, np.arange(10)), {"val": (table, np.arange(10, 20)), "test": (table[12:15], None)}))
    assert found == [Duplicates("val", 2, 10)]
    assert "2 of the 10 samples of val (20 %)" in found[0].detail


def test_images_are_compared_whole() -> None:
    images = np.zeros((6, 1, 4, 4), dtype=np.uint8)
    images[:, 0, 3, 3] = [1, 2, 3, 4, 5, 1]
    found = list(duplicates((images, np.arange(5)), {"test": (images, np.arange(5, 6))}))
    assert found == [Duplicates("test", 1, 1)]


@pytest.mark.parametrize("limit", ["MAX_SAMPLES", "MAX_BYTES"])
def test_sets_beyond_the_limits_are_not_compared(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.zeros((20, 2), dtype=np.float32)
    parts = (table, np.arange(10)), {"val": (table, np.arange(10, 20))}
    assert list(duplicates(*parts)) == [Duplicates("val", 10, 10)]
    monkeypatch.setattr(module, limit, 19)
    assert list(duplicates(*parts)) == []
