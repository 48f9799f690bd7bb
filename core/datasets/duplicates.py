"""Samples that stand in train and in val or test as well: judged on them, a model looks better than it is."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from core.datasets.samples import PART_BYTES, Array

MAX_SAMPLES = 1_000_000
MAX_BYTES = 512 << 20
"""Sets that are larger together are not compared: it would take longer than a second or so."""

Part = tuple[Array, Array | None]
"""Inputs [M, …], and the indices of the samples among them; None: all."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How many samples of a part are in train too, by the bytes of their inputs."""

    part: str
    count: int
    samples: int
    """Of the part."""

    @property
    def detail(self) -> str:
        """One sentence for people."""
        share = 100 * self.count / self.samples
        words = f"{self.count} of the {self.samples} samples of {self.part} ({share:.3g} %) are in train as well"
        return f"{words}: metrics of {self.part} look better than they are"


def duplicates(train: Part, others: Mapping[str, Part]) -> Iterator[Duplicates]:
    """Yield the parts that share samples with train; nothing where the sets are too large to be compared quickly.

    Args:
        train: the training samples, as they are before preprocessing.
        others: val and test by name.
    """
    parts = [train, *others.values()]
    if not others or sum(map(_count, parts)) > MAX_SAMPLES or sum(map(_bytes, parts)) > MAX_BYTES:
        return
    known = {name: Counter(_digests(part)) for name, part in others.items()}
    found: dict[str, set[bytes]] = {name: set() for name in known}
    for digest in _digests(train):
        for name, counts in known.items():
            if digest in counts:
                found[name].add(digest)
    for name, counts in known.items():
        if found[name]:
            yield Duplicates(name, sum(counts[digest] for digest in found[name]), counts.total())


def _count(part: Part) -> int:
    inputs, rows = part
    return len(inputs) if rows is None else len(rows)


def _bytes(part: Part) -> int:
    return _count(part) * part[0][:1].nbytes


def _digests(part: Part) -> Iterator[bytes]:
    inputs, rows = part
    step = max(1, PART_BYTES // max(1, inputs[:1].nbytes))
    for start in range(0, _count(part), step):
        piece = inputs[start : start + step] if rows is None else inputs[rows[start : start + step]]
        for sample in np.ascontiguousarray(piece).reshape(len(piece), -1).view(np.uint8):
            yield hashlib.blake2b(sample.data, digest_size=16).digest()
