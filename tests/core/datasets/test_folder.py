import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.datasets import Samples
from core.errors import DataInvalid

Load = Callable[..., Samples]
RNG = np.random.default_rng(11)
REAL = Path(os.environ.get("EPOCHD_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def lay_out(root: Path, name: str = "MNIST", **changed: bytes) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 20), ("t10k", 10)):
        files = {
            f"{prefix}-images-idx3-ubyte": idx(RNG.integers(0, 256, (count, 28, 28), np.uint8)),
            f"{prefix}-labels-idx1-ubyte": idx((np.arange(count) % 10).astype(np.uint8)),
        }
        for file, content in files.items():
            (raw / file).write_bytes(changed.get(file.replace("-", "_"), content))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
@pytest.mark.parametrize("train", [True, False])
def test_idx_files_read_as_torchvision_reads_them(name: str, train: bool, read: Load, tmp_path: Path) -> None:
    vision = pytest.importorskip("torchvision.datasets")
    lay_out(tmp_path, name)
    oracle = getattr(vision, name)(tmp_path, train=train)
    samples = read({"type": f"torchvision.{name}", "train": train}, datasets_dir=tmp_path)
    assert np.array_equal(samples.inputs[:, 0], oracle.data.numpy())
    assert samples.target is not None
    assert np.array_equal(samples.target, oracle.targets.numpy())
    assert len(samples.classes or ()) == len(oracle.classes)


def test_gzipped_files_give_the_same_samples(read: Load, tmp_path: Path) -> None:
    lay_out(tmp_path / "plain")
    raw, packed = tmp_path / "plain" / "MNIST" / "raw", tmp_path / "packed" / "MNIST" / "raw"
    packed.mkdir(parents=True)
    for file in raw.iterdir():
        (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    plain, unpacked = (
        read({"type": "torchvision.MNIST"}, datasets_dir=tmp_path / name) for name in ("plain", "packed")
    )
    assert plain.digest == unpacked.digest


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no idx", "is no IDX file"),
        (idx(np.zeros((20, 28, 28), np.uint8))[:-5], "cut off"),
        (idx(np.zeros((19, 28, 28), np.uint8)), "19 images and 20 labels"),
        (idx(np.zeros(20, np.uint8)), "1 dimensions, not uint8 of 3"),
    ],
)
def test_damaged_images_are_named(content: bytes, says: str, read: Load, tmp_path: Path) -> None:
    lay_out(tmp_path, train_images_idx3_ubyte=content)
    with pytest.raises(DataInvalid, match=says):
        read({"type": "torchvision.MNIST"}, datasets_dir=tmp_path)


def test_labels_beyond_the_classes_are_refused(read: Load, tmp_path: Path) -> None:
    lay_out(tmp_path, train_labels_idx1_ubyte=idx(np.full(20, 10, np.uint8)))
    with pytest.raises(DataInvalid, match="labels 10…10, not 0…9"):
        read({"type": "torchvision.MNIST"}, datasets_dir=tmp_path)


def test_changed_file_is_read_anew(read: Load, tmp_path: Path) -> None:
    lay_out(tmp_path)
    before = read({"type": "torchvision.MNIST"}, datasets_dir=tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(idx(np.ones((20, 28, 28), np.uint8)))
    after = read({"type": "torchvision.MNIST"}, datasets_dir=tmp_path)
    assert after.inputs.max() == 1
    assert before.digest != after.digest


class TestCifar:
    def lay_out(self, root: Path, train: dict[str, Any] | None = None) -> dict[str, Any]:
        folder = root / "cifar-10-batches-py"
        folder.mkdir()
        batch = {"data": RNG.integers(0, 256, (4, 3072), np.uint8), "labels": [0, 9, 3, 1], "batch_label": "x"}
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            (folder / name).write_bytes(pickle.dumps(batch if train is None else train, protocol=2))
        names = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))
        return batch

    @pytest.mark.parametrize(("train", "count"), [(True, 20), (False, 4)])
    def test_batches_are_read_as_torchvision_reads_them(
        self, train: bool, count: int, read: Load, tmp_path: Path
    ) -> None:
        batch = self.lay_out(tmp_path)
        samples = read({"type": "torchvision.CIFAR10", "train": train}, datasets_dir=tmp_path)
        assert samples.target is not None
        assert samples.inputs.shape == (count, 3, 32, 32)
        assert np.array_equal(samples.inputs[:4], batch["data"].reshape(-1, 3, 32, 32))
        assert samples.target[:4].tolist() == batch["labels"]
        assert (samples.classes or [])[9] == "truck"

    def test_pickle_that_asks_for_code_is_refused_unrun(self, read: Load, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return (os.mkdir, (str(tmp_path / "trapped"),))

        self.lay_out(tmp_path, {"data": Trap(), "labels": []})
        with pytest.raises(DataInvalid, match=r"it asks for posix.mkdir"):
            read({"type": "torchvision.CIFAR10"}, datasets_dir=tmp_path)
        assert not (tmp_path / "trapped").exists()

    def test_batch_without_labels_is_refused(self, read: Load, tmp_path: Path) -> None:
        self.lay_out(tmp_path, {"data": np.zeros((1, 3072), np.uint8)})
        with pytest.raises(DataInvalid, match="is not a CIFAR10 batch"):
            read({"type": "torchvision.CIFAR10"}, datasets_dir=tmp_path)


@pytest.mark.skipif(not (REAL / "MNIST").is_dir(), reason="no real MNIST (set EPOCHD_TEST_DATA)")
def test_real_mnist_has_its_known_counts(read: Load) -> None:
    samples = read({"type": "torchvision.MNIST", "train": False}, datasets_dir=REAL)
    assert samples.facts().class_counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
