"""Samples as compact tensors, and the batches of an epoch as a pure function of (seed, epoch)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.train.seeds import derive, generator

GATHER_BYTES = 1 << 20
"""Inputs gathered by one `index_select`, then cut into batches: many small batches cost one call."""
EVAL_ELEMENTS = 1 << 20
"""Evaluation keeps no gradients, so its batches may be larger: up to so many input values."""
EVAL_SAMPLES = 4096
ALIGNMENT = 64
"""Bytes; torch's own allocations begin at a multiple of it."""

Transform = Callable[[Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a data set: `rows` of tensors that other parts may share.

    Attributes:
        inputs: ``inputs[M, ...]``, as compact as the source (uint8 stays uint8).
        target: ``target[M, ...]``.
        rows: ``rows[N]``, int64; None for all.
    """

    inputs: Tensor
    target: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target) if self.rows is None else len(self.rows)

    def gather(self, order: Tensor) -> Batch:
        """Return the samples at places `order` of this part."""
        at = order if self.rows is None else self.rows[order]
        return self.inputs.index_select(0, at), self.target.index_select(0, at)

    def map(self, transform: Transform) -> "Split":
        """Return this part with `transform` applied to its inputs, once and for all, in blocks."""
        made: Tensor | None = None
        step = self.block_size
        for start in range(0, len(self), step):
            order = torch.arange(start, min(start + step, len(self))).to(self.target.device)
            part = transform(self.gather(order)[0])
            made = part.new_empty((len(self), *part.shape[1:])) if made is None else made
            made[start : start + len(part)] = part
        target = self.target if self.rows is None else self.target.index_select(0, self.rows)
        return Split(self.inputs[:0] if made is None else made, target)

    @property
    def block_size(self) -> int:
        """How many samples are looked at together where nothing is learned from them."""
        return max(1, min(EVAL_SAMPLES, EVAL_ELEMENTS // max(1, self.inputs[:1].numel())))

    def to(self, device: torch.device) -> "Split":
        """Return this part with its tensors on `device`."""
        rows = None if self.rows is None else self.rows.to(device)
        return Split(self.inputs.to(device), self.target.to(device), rows)


class TrainBatches:
    """The training set in batches; the order of an epoch depends on (seed, epoch) alone."""

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        device: torch.device,
        transform: Transform | None = None,
    ) -> None:
        self.split, self.seed, self.shuffle, self.device, self.transform = split, seed, shuffle, device, transform
        self.batch_size = min(batch_size, len(split))
        self.samples = len(split) - len(split) % self.batch_size if drop_last else len(split)
        self.count = -(-self.samples // self.batch_size)
        sample_bytes = max(1, split.inputs[:1].nbytes)
        self.gathered = self.batch_size * max(1, GATHER_BYTES // (sample_bytes * self.batch_size))

    def order(self, epoch: int) -> Tensor:
        """Return the places of the epoch's samples in the order in which they come, ``order[samples]``."""
        if not self.shuffle:
            return torch.arange(self.samples)
        return torch.randperm(len(self.split), generator=generator(self.seed, "samples", epoch))[: self.samples]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from number `start` on."""
        if start >= self.count:
            return  # splitting nothing would give one empty block
        batch = start
        order = self.order(epoch)[start * self.batch_size :].to(self.split.target.device)
        for block in order.split(self.gathered):
            inputs, target = self.split.gather(block)
            for batch_inputs, batch_target in zip(
                inputs.split(self.batch_size), target.split(self.batch_size), strict=True
            ):
                yield self._finish(aligned(batch_inputs), batch_target, epoch, batch)
                batch += 1

    def _finish(self, inputs: Tensor, target: Tensor, epoch: int, batch: int) -> Batch:
        if inputs.device != self.device:
            inputs, target = inputs.to(self.device), target.to(self.device)
        if self.transform is not None:
            inputs = seeded(self.transform, inputs, derive(self.seed, "transforms", epoch, batch))
        return inputs, target


def aligned(inputs: Tensor) -> Tensor:
    """Return a batch in memory that begins where a tensor of its own would.

    A matrix product may give other last bits for the same numbers elsewhere: without this they would depend on where
    in a gathered block a batch stands, and so on where training was resumed.
    """
    return inputs if inputs.data_ptr() % ALIGNMENT == 0 else inputs.clone()


def seeded(transform: Transform, inputs: Tensor, seed: int) -> Tensor:
    """Apply `transform` with torch's global generators set to `seed`, and put the generators back.

    torchvision's transforms draw from the global generators only; dropout draws from them too and must not notice.
    (`torch.manual_seed` would seed all devices that there are, and takes longer than many a transform.)
    """
    drawn_from = [torch.default_generator]
    if inputs.device.type == "cuda":
        drawn_from.append(torch.cuda.default_generators[inputs.device.index or 0])
    before = [one.get_state() for one in drawn_from]
    for one in drawn_from:
        one.manual_seed(seed)
    try:
        return transform(inputs)
    finally:
        for one, state in zip(drawn_from, before, strict=True):
            one.set_state(state)


class EvalBatches:
    """A set to be judged on, in order."""

    def __init__(
        self, split: Split, *, batch_size: int, device: torch.device, transform: Transform | None = None
    ) -> None:
        self.split, self.device, self.transform = split, device, transform
        self.batch_size = max(batch_size, split.block_size)

    def __iter__(self) -> Iterator[Batch]:
        for block in torch.arange(len(self.split)).to(self.split.target.device).split(self.batch_size):
            inputs, target = self.split.gather(block)
            if inputs.device != self.device:
                inputs, target = inputs.to(self.device), target.to(self.device)
            yield inputs if self.transform is None else self.transform(inputs), target
