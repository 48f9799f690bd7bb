"""From the spec's `data` to tensors: load, split, fit the preprocessing on train, keep compact."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.datasets import Preprocessor, Samples, align, load, split
from core.datasets.preprocess import fills_missing
from core.datasets.samples import Array
from core.datasets.splitting import Split as Parts
from core.messages import DatasetFile
from core.spec.job import Component, Data, DataSplit
from core.train.data import Split
from core.train.task import Task


@dataclass(frozen=True, slots=True)
class Places:
    """Where data is found on this machine."""

    datasets_dir: Path
    cache_dir: Path
    uploads: Mapping[str, DatasetFile]


@dataclass(frozen=True, slots=True)
class Sets:
    """The sets of a job, and what must be known to feed the model later."""

    train: Split
    val: Split | None
    test: Split | None
    source: Samples
    """The set that train was taken from."""
    preprocessor: Preprocessor
    split_sha256: str

    def for_task(self, task: Task) -> "Sets":
        """Return the sets with targets as the loss sees them: ``[N, *task.target_shape]`` of `task.target_dtype`."""

        def shaped(part: Split | None) -> Split | None:
            return None if part is None else _shaped(part, task)

        return replace(self, train=_shaped(self.train, task), val=shaped(self.val), test=shaped(self.test))


def _shaped(part: Split, task: Task) -> Split:
    target = part.target.to(task.target_dtype).reshape(len(part.target), *task.target_shape)
    return replace(part, target=target)


def prepare(data: Data, *, seed: int, places: Places) -> Sets:
    """Load what `data` names, split it, and fit the preprocessing on the training samples.

    Raises:
        DataInvalid: the data is not there, or not what the spec says it is.
    """
    source = load_part(data, data.train, "train", places)
    parts = divide(data, source, seed)
    preprocessor = Preprocessor.fit(data.preprocess, source, parts.train)
    whole = _tensors(source, preprocessor)

    def other(part: DataSplit | Component | None, name: str, rows: Array | None) -> Split | None:
        if isinstance(part, Component):
            own = align(load_part(data, part, name, places), source, pointer=f"/data/{name}")
            return _tensors(own, preprocessor)
        return None if rows is None else _rows(whole, rows)

    return Sets(
        train=whole if len(parts.train) == len(source) else _rows(whole, parts.train),
        val=other(data.val, "val", parts.val),
        test=other(data.test, "test", parts.test),
        source=source,
        preprocessor=preprocessor,
        split_sha256=parts.sha256,
    )


def divide(data: Data, source: Samples, seed: int) -> Parts:
    """Divide the source of train into the parts that `data` takes from it.

    Raises:
        DataInvalid: too few samples, or no classes to stratify by.
    """
    val, test = (part if isinstance(part, DataSplit) else None for part in (data.val, data.test))
    return split(
        len(source),
        source.target,
        val=val.fraction if val else None,
        test=test.fraction if test else None,
        seed=seed,
        stratify=any(part.stratify for part in (val, test) if part),
        groups=source.groups,
        order=source.order,
    )


def load_part(data: Data, source: Component, name: str, places: Places) -> Samples:
    """Load the source that stands at `data.<name>`.

    Raises:
        DataInvalid: the data is not there, or not what the spec says it is.
    """
    return load(
        source,
        datasets_dir=places.datasets_dir,
        cache_dir=places.cache_dir,
        uploads=places.uploads,
        columns=data.columns,
        max_samples=data.max_samples,
        allow_missing=fills_missing(data.preprocess),
        pointer=f"/data/{name}",
    )


def _tensors(samples: Samples, preprocessor: Preprocessor) -> Split:
    target = np.zeros(0) if samples.target is None else preprocessor.transform_target(samples.target)
    inputs = as_tensor(preprocessor.transform(samples.inputs))
    return Split(inputs.float() if inputs.dtype == torch.float64 else inputs, as_tensor(target))


def _rows(whole: Split, rows: Array) -> Split:
    return Split(whole.inputs, whole.target, as_tensor(rows))


def as_tensor(array: Array) -> Tensor:
    """Return the array's memory as a tensor; one that is mapped read-only is never written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))
