from pathlib import Path

import numpy as np

from core.datasets.mapping import create_mapped


def test_array_is_a_file_that_numpy_reads(tmp_path: Path) -> None:
    array = create_mapped(tmp_path / "a.npy", dtype=np.float32, shape=(3, 2))
    array[:] = 7
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.full((3, 2), 7, np.float32))


def test_space_is_taken_before_it_is_written_to(tmp_path: Path) -> None:
    create_mapped(tmp_path / "a.npy", dtype=np.uint8, shape=(1 << 20,))
    status = (tmp_path / "a.npy").stat()
    assert status.st_blocks * 512 >= status.st_size > 1 << 20
