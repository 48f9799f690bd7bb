"""`torchvision.*`: data sets in the operator's folder, laid out as torchvision lays them (IDX files may be gzipped)."""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from core.datasets import idx
from core.datasets.samples import Array, Samples
from core.errors import DataInvalid, Issue

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
NAMES = ("MNIST", "FashionMNIST", "CIFAR10")
CIFAR_SIDE = 32


class Folder:
    """MNIST, FashionMNIST or CIFAR10; `train` chooses between the two sets that each consists of."""

    takes_columns = False

    def __init__(self, name: str, arguments: Mapping[str, Any], *, root: Path, pointer: str) -> None:
        self.name = name
        self.is_train = bool(arguments.get("train", True))
        self.root = root
        self.pointer = pointer

    def identity(self) -> dict[str, Any]:
        """Return what decides the decoded bytes: the files' digests."""
        digests: list[str] = []
        for path in self._files():
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        return {"torchvision": self.name, "train": self.is_train, "files": digests}

    def decode(self, _scratch: Path) -> Samples:
        """Read images uint8 [N, C, H, W] and labels int64 [N]."""
        if self.name == "CIFAR10":
            images, target, classes = self._cifar()
        else:
            images, target = self._mnist()
            classes = FASHION if self.name == "FashionMNIST" else [str(digit) for digit in range(10)]
        if len(target) and not 0 <= target.min() <= target.max() < len(classes):
            raise self._invalid(f"{self.name} has labels {target.min()}…{target.max()}, not 0…{len(classes) - 1}")
        return Samples(images, target, [], ["target"], classes, "image")

    def _files(self) -> list[Path]:
        if self.name == "CIFAR10":
            batches = [f"data_batch_{number}" for number in range(1, 6)] if self.is_train else ["test_batch"]
            return [self._find("cifar-10-batches-py", name) for name in [*batches, "batches.meta"]]
        prefix = "train" if self.is_train else "t10k"
        names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
        return [self._find(f"{self.name}/raw", name) for name in names]

    def _find(self, folder: str, name: str) -> Path:
        for candidate in (name, f"{name}.gz"):
            path = self.root / folder / candidate
            if path.is_file():
                return path
        raise self._invalid(
            f"{self.name} is not in this service's datasets folder: {folder}/{name} is missing",
            code="dataset_missing",
            hint=f"the operator puts torchvision's files into {self.root / folder} (EPOCHD_DATASETS_DIR)",
        )

    def _mnist(self) -> tuple[Array, Array]:
        arrays: list[Array] = []
        for path, rank in zip(self._files(), (3, 1), strict=True):
            try:
                array = idx.read(path)
            except idx.IdxError as error:
                raise self._invalid(f"{path.name} is no IDX file: {error}") from error
            if array.ndim != rank or array.dtype != np.uint8:
                raise self._invalid(f"{path.name} holds {array.dtype} of {array.ndim} dimensions, not uint8 of {rank}")
            arrays.append(array)
        images, labels = arrays
        if len(images) != len(labels):
            raise self._invalid(f"{self.name} has {len(images)} images and {len(labels)} labels")
        return images[:, None], labels.astype(np.int64)

    def _cifar(self) -> tuple[Array, Array, list[str]]:
        *batches, meta = self._files()
        parts = [self._unpickle(path, "data", "labels") for path in batches]
        (names,) = self._unpickle(meta, "label_names")
        try:
            images = np.concatenate([np.asarray(data, dtype=np.uint8) for data, _ in parts])
            target = np.concatenate([np.asarray(labels, dtype=np.int64) for _, labels in parts])
            return images.reshape(len(target), 3, CIFAR_SIDE, CIFAR_SIDE), target, [str(name) for name in names]
        except (ValueError, TypeError) as error:
            raise self._invalid(f"CIFAR10's batches do not hold 3x32x32 images with a label each: {error}") from error

    def _unpickle(self, path: Path, *keys: str) -> list[Any]:
        try:
            body = ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
            return [body[key] for key in keys]
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._invalid(f"{path.name} is not a CIFAR10 batch as torchvision lays it out: {error}") from error

    def _invalid(self, detail: str, *, code: str = "data_invalid", hint: str | None = None) -> DataInvalid:
        return DataInvalid(detail, issues=[Issue(f"{self.pointer}/type", code, detail, hint)])


class ArraysOnly(pickle.Unpickler):
    """Reads pickles of plain containers, strings, numbers and NumPy arrays; anything else they ask for is refused."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    @override
    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed global; refuse every other one."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data does not need")
        if name == "_reconstruct":
            return _reconstruct
        return super().find_class(module, name)


def _reconstruct(kind: type, shape: tuple[int, ...], code: Any) -> Array:
    """Do what NumPy's own function of this name does, for plain arrays only."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"it asks for an array of type {kind!r}")
    return np.ndarray(shape, dtype=code)
