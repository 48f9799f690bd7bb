"""Samples, batches and updates, counted as the splits and the loop will."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.datasets.splitting import size_of_part
from core.errors import Issue
from core.spec.job import Component, DataSplit, JobSpec
from core.spec.pointer import join
from core.train.preflight.data import Described


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples of each part, and what follows from them."""

    train: int
    val: int | None
    test: int | None
    batch_size: int
    batches: int
    """Of an epoch."""
    last_batch: int
    """Samples of an epoch's last batch."""
    updates: int
    """Optimizer updates of an epoch."""


def count(spec: JobSpec, sets: Described) -> Counts:
    """Count what an epoch will have."""
    whole = sets.train.samples
    val = _size(spec.data.val, whole, sets.val.samples if sets.val else None)
    test = _size(spec.data.test, whole, sets.test.samples if sets.test else None)
    taken = sum(
        size or 0 for part, size in ((spec.data.val, val), (spec.data.test, test)) if isinstance(part, DataSplit)
    )
    train = max(0, whole - taken - sets.left_out)
    batch_size = max(1, train) if spec.batch_size == "full" else spec.batch_size
    rest = train % batch_size
    full = train // batch_size
    batches = full + (rest > 0 and not spec.drop_last)
    last = batch_size if not rest or spec.drop_last else rest
    return Counts(train, val, test, batch_size, batches, last, -(-batches // spec.accumulate_grad_batches))


def _size(part: DataSplit | Component | None, whole: int, own: int | None) -> int | None:
    return size_of_part(whole, part.fraction) if isinstance(part, DataSplit) else own


def findings(spec: JobSpec, counts: Counts) -> Iterator[Issue]:
    """Say which part is empty."""
    if counts.train == 0:
        name = "val" if isinstance(spec.data.val, DataSplit) else "test"
        pointer = join("/data", name, "fraction") if isinstance(getattr(spec.data, name), DataSplit) else "/data/train"
        detail = f"{(counts.val or 0) + (counts.test or 0)} samples for val and test leave nothing to train on."
        yield Issue(pointer, "too_few_samples", detail)
    elif counts.batches == 0:
        detail = f"{counts.train} samples fill no batch of {counts.batch_size}, and drop_last drops the rest."
        fix = ({"op": "replace", "path": "/batch_size", "value": counts.train},)
        yield Issue("/batch_size", "no_batches", detail, f"At most {counts.train}, or without drop_last.", fix)


def batch_norm(counts: Counts, model: nn.Module) -> Iterator[Issue]:
    """Say that a batch of one sample reaches BatchNorm, which has no variance to divide by then."""
    if counts.last_batch != 1 or not any(isinstance(part, _BatchNorm) for part in model.modules()):
        return
    if counts.batch_size == 1 or counts.batches == 1:
        detail = "Every batch has one sample, which BatchNorm cannot train on."
        yield Issue("/batch_size", "batch_norm_of_one", detail, "Take at least 2, or GroupNorm or LayerNorm.")
        return
    detail = (
        f"{counts.train} samples in batches of {counts.batch_size} leave a last batch of one, "
        "which BatchNorm cannot train on."
    )
    fix = ({"op": "add", "path": "/drop_last", "value": True},)
    yield Issue("/batch_size", "batch_norm_of_one", detail, 'Set "drop_last": true, or another batch_size.', fix)
