"""The sets as batches on the device, with what is done to every batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.datasets.room import room_bytes
from core.spec.job import Component, JobSpec
from core.train import build
from core.train.data import EvalBatches, Split, TrainBatches, Transform
from core.train.sets import Sets


@dataclass(frozen=True, slots=True)
class Feed:
    """The sets as batches, and the shape in which a sample reaches the model."""

    train: TrainBatches
    val: EvalBatches | None
    test: EvalBatches | None
    train_eval: EvalBatches | None
    """The training set to be judged on, where that is asked for."""
    sample_shape: tuple[int, ...]
    some: Callable[[int], Tensor]
    """Return so many training samples, as they reach the model in evaluation."""


def feed(spec: JobSpec, sets: Sets, *, seed: int, device: torch.device) -> Feed:
    """Put the sets where they are read from, with what is done to every batch."""
    transforms = spec.data.transforms
    train_transform, train = _placed(transforms.train if transforms else (), sets.train, device)
    eval_transform, _ = _transform(transforms.eval if transforms else (), sets.train)
    sample, _ = sets.train.gather(torch.zeros(1, dtype=torch.int64))
    shape = tuple((sample if eval_transform is None else eval_transform(sample)).shape[1:])
    batch_size = len(train) if spec.batch_size == "full" else spec.batch_size

    def judged(split: Split | None) -> EvalBatches | None:
        if split is None:
            return None
        transform, placed = _placed(transforms.eval if transforms else (), split, device)
        return EvalBatches(placed, batch_size=batch_size, device=device, transform=transform)

    batches = TrainBatches(
        train,
        batch_size=batch_size,
        seed=seed,
        shuffle=spec.shuffle,
        drop_last=spec.drop_last,
        device=device,
        transform=train_transform,
    )
    train_eval = judged(sets.train) if spec.evaluate_at_start or spec.swa else None

    def some(count: int) -> Tensor:
        inputs, _ = sets.train.gather(torch.arange(min(count, len(sets.train))))
        return (inputs if eval_transform is None else eval_transform(inputs)).to(device)

    return Feed(batches, judged(sets.val), judged(sets.test), train_eval, shape, some)


def _transform(components: tuple[Component, ...], split: Split) -> tuple[Transform | None, bool]:
    """Return what is done to a batch of inputs, and whether it draws random numbers."""
    if components:
        transform = build.transforms(list(components))
        return transform, transform.is_random
    return (Tensor.float if split.inputs.dtype == torch.uint8 else None), False


def _placed(components: tuple[Component, ...], split: Split, device: torch.device) -> tuple[Transform | None, Split]:
    """Apply what draws nothing once, and move the set to the device, where there is room for that."""
    transform, is_random = _transform(components, split)
    if transform is not None and not is_random:
        one = transform(split.gather(torch.zeros(1, dtype=torch.int64))[0])
        if one.nbytes * len(split) <= room_bytes():
            transform, split = None, split.map(transform)
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if split.inputs.nbytes < free_bytes // 4:
            split = split.to(device)
    return transform, split
