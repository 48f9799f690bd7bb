"""From the spec's `data` to tensors: load, split, fit the preprocessing on train, keep compact.

What is too large for the memory stays in a mapped file of the cache, and is read batch by batch.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.datasets import Preprocessor, Samples, align, load, split
from core.datasets.cache import Cache
from core.datasets.duplicates import Duplicates, duplicates
from core.datasets.mapping import create_mapped
from core.datasets.preprocess import fills_missing
from core.datasets.room import room_bytes
from core.datasets.samples import Array, in_parts
from core.datasets.splitting import Split as Parts
from core.heap import give_back_blocks
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
    duplicates: tuple[Duplicates, ...] = ()
    """Samples of val and test that train holds as well, where they were looked for."""

    def for_task(self, task: Task) -> "Sets":
        """Return the sets with targets as the loss sees them: ``[N, *task.target_shape]`` of `task.target_dtype`."""

        def shaped(part: Split | None) -> Split | None:
            return None if part is None else _shaped(part, task)

        return replace(self, train=_shaped(self.train, task), val=shaped(self.val), test=shaped(self.test))


def _shaped(part: Split, task: Task) -> Split:
    target = part.target.to(task.target_dtype).reshape(len(part.target), *task.target_shape)
    return replace(part, target=target)


def prepare(data: Data, *, seed: int, places: Places, look_for_duplicates: bool = False) -> Sets:
    """Load what `data` names, split it, and fit the preprocessing on the training samples.

    Args:
        data: the spec's.
        seed: of the split.
        places: where data is found.
        look_for_duplicates: compare val and test with train, where that is quick.

    Raises:
        DataInvalid: the data is not there, or not what the spec says it is.
    """
    source = load_part(data, data.train, "train", places)
    if source.inputs.nbytes > room_bytes():
        give_back_blocks()
    parts = divide(data, source, seed)
    preprocessor = Preprocessor.fit(data.preprocess, source, parts.train)
    whole = _tensors(source, preprocessor, places)
    judged: dict[str, tuple[Array, Array | None]] = {}

    def other(part: DataSplit | Component | None, name: str, rows: Array | None) -> Split | None:
        if isinstance(part, Component):
            own = align(load_part(data, part, name, places), source, pointer=f"/data/{name}")
            judged[name] = (own.inputs, None)
            return _tensors(own, preprocessor, places)
        if rows is None:
            return None
        judged[name] = (source.inputs, rows)
        return _rows(whole, rows)

    val, test = other(data.val, "val", parts.val), other(data.test, "test", parts.test)
    return Sets(
        train=whole if len(parts.train) == len(source) else _rows(whole, parts.train),
        val=val,
        test=test,
        source=source,
        preprocessor=preprocessor,
        split_sha256=parts.sha256,
        duplicates=tuple(duplicates((source.inputs, parts.train), judged)) if look_for_duplicates else (),
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
        spans=source.spans,
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


def _tensors(samples: Samples, preprocessor: Preprocessor, places: Places) -> Split:
    target = np.zeros(0) if samples.target is None else preprocessor.transform_target(samples.target)
    if not preprocessor.steps and samples.inputs.dtype != np.float64:
        return Split(as_tensor(samples.inputs), as_tensor(target))
    if 4 * math.prod(preprocessor.shape_of(samples.inputs)) > room_bytes():
        return Split(as_tensor(_on_disk(samples, preprocessor, places)), as_tensor(target))
    return Split(as_tensor(preprocessor.transform(samples.inputs)).float(), as_tensor(target))


def _on_disk(samples: Samples, preprocessor: Preprocessor, places: Places) -> Array:
    """Return what preprocessing makes of the inputs as a mapped file, which the next job uses too."""

    def write(scratch: Path) -> Samples:
        shape = preprocessor.shape_of(samples.inputs)
        made = create_mapped(scratch / "inputs.npy", dtype=np.float32, shape=shape)
        if preprocessor.steps:
            preprocessor.transform(samples.inputs, out=made)
        else:
            at = 0
            for part in in_parts(samples.inputs):
                made[at : at + len(part)] = part
                at += len(part)
        return Samples(made, None, kind="array")

    identity = {"of": samples.digest, "samples": len(samples), "preprocess": preprocessor.to_json()}
    return Cache(places.cache_dir).entry(identity, write)[0].inputs


def _rows(whole: Split, rows: Array) -> Split:
    return Split(whole.inputs, whole.target, as_tensor(rows))


def as_tensor(array: Array) -> Tensor:
    """Return the array's memory as a tensor; one that is mapped read-only is never written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))
