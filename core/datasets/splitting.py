"""Train, validation and test parts as indices: disjoint, together everything, the same for the same seed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.datasets.samples import Array
from core.errors import DataInvalid, Issue

SPLIT_STREAM = 0x73706C6974  # "split": keeps these random numbers apart from others of the same seed


@dataclass(frozen=True, slots=True)
class Split:
    """Rising indices int64 of each part, and one digest of them all.

    Also reads like a mapping: `split["val"]`.
    """

    train: Array
    val: Array | None
    test: Array | None
    sha256: str

    def __getitem__(self, name: str) -> Array | None:
        if name not in ("train", "val", "test"):
            raise KeyError(name)
        part: Array | None = getattr(self, name)
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(("train", "val", "test"))


def split(
    n: int,
    target: Array | None = None,
    *,
    val: float | None = None,
    test: float | None = None,
    seed: int,
    stratify: bool = False,
    groups: Array | None = None,
    order: Array | None = None,
    spans: Array | None = None,
) -> Split:
    """Divide 0…n-1 into train, val and test.

    A part of fraction f has floor(f·n + ½) samples, but at least one; train has the rest, at least one. Test is
    drawn before val, so that it stays the same when val is added or left out.

    Args:
        n: number of samples.
        target: labels int64 [n], needed to stratify.
        val: fraction for validation, or None.
        test: fraction for the test, or None.
        seed: of the draw.
        stratify: keep every class's share: class quotas f·n_c are rounded by largest remainder so that the part has
            exactly its size; every class keeps at least one sample in train.
        groups: samples with equal numbers stay together; parts then hold whole groups, as many as reach their size.
        order: split along these values instead of at random: the largest go to test, those before them to val.
        spans: the first and last row that each sample takes, int64 [n, 2]; what shares a row with a part that was taken
            before it belongs to no part.

    Raises:
        DataInvalid: too few samples, or no classes to stratify by.
    """
    sizes = {
        name: size_of_part(n, fraction) for name, fraction in (("test", test), ("val", val)) if fraction is not None
    }
    if sum(sizes.values()) >= n:
        parts = " and ".join(f"{size} for {name}" for name, size in sizes.items()) or "none"
        raise _invalid("too_few_samples", f"{n} samples cannot be split: {parts} leaves nothing to train on")
    queue = _queue(n, seed, groups, order)
    if stratify:
        _check_stratify(target, groups, order)
    taken: dict[str, Array] = {}
    for name, size in sizes.items():
        if spans is not None:
            taken[name], queue = _windows(queue, size, spans, name)
            continue
        if len(queue) < 2:
            raise _invalid("too_few_groups", f"the groups are too large to be split: none is left for {name} and train")
        if stratify and target is not None:
            positions = _stratified(target[queue], size)
        else:
            positions = np.arange(_whole_groups(queue, size, groups))
        taken[name] = np.sort(queue[positions])
        queue = np.delete(queue, positions)
    if not len(queue):
        raise _invalid("too_few_groups", "the groups are too large to be split: none is left for train")
    parts = (np.sort(queue), taken.get("val"), taken.get("test"))
    return Split(*parts, _digest(parts))


def size_of_part(n: int, fraction: float) -> int:
    """Return how many of `n` samples a part has: floor(fraction·n + ½), but at least one."""
    return max(1, int(fraction * n + 0.5))


def _queue(n: int, seed: int, groups: Array | None, order: Array | None) -> Array:
    """Indices in the order in which parts are served: at random, by whole groups, or the largest `order` first."""
    if order is not None:
        return np.argsort(order, kind="stable")[::-1]
    # Raw bits of a bit generator never change between NumPy versions; `Generator.permutation` may.
    bits = np.random.PCG64([SPLIT_STREAM, seed])
    if groups is None:
        return np.argsort(bits.random_raw(n), kind="stable")
    members, inverse = np.unique(groups, return_inverse=True)
    return np.argsort(bits.random_raw(len(members))[inverse], kind="stable")


def _whole_groups(queue: Array, size: int, groups: Array | None) -> int:
    """Grow `size` to the end of the group that it cuts."""
    if groups is None:
        return size
    along = groups[queue]
    size = min(size, len(along))
    while size < len(along) and along[size] == along[size - 1]:
        size += 1
    return size


def _windows(queue: Array, size: int, spans: Array, name: str) -> tuple[Array, Array]:
    """Take the first `size` windows; return them, rising, and those of the others that share no row with them."""
    taken, queue = np.sort(queue[:size]), queue[size:]
    queue = queue[~_touching(spans[queue], spans[taken])]
    if not len(queue):
        detail = (
            f"windows that share a row with {name} are left out of what comes before it, and none is left to train on"
        )
        raise _invalid("too_few_windows", f"{detail}: take shorter windows, smaller fractions or a longer series")
    return taken, queue


def _touching(spans: Array, taken: Array) -> Array:
    """Whether each of `spans` shares a row with one of `taken`, bool [len(spans)]."""
    steps = np.zeros(max(int(spans[:, 1].max(initial=0)), int(taken[:, 1].max())) + 2, dtype=np.int64)
    np.add.at(steps, taken[:, 0], 1)
    np.add.at(steps, taken[:, 1] + 1, -1)
    before = np.concatenate([[0], np.cumsum(np.cumsum(steps) > 0)])  # taken rows before each row
    found: Array = before[spans[:, 1] + 1] > before[spans[:, 0]]
    return found


def _stratified(labels: Array, size: int) -> Array:
    """Positions of `size` labels, as many of each class as largest remainders say, the first of each class."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if size > len(labels) - len(counts):
        raise _invalid(
            "too_few_per_class",
            f"{len(labels)} samples of {len(counts)} classes cannot give {size} and keep one of each class to train on",
        )
    quota = counts * (size / len(labels))
    take = np.minimum(np.floor(quota).astype(np.int64), counts - 1)
    while take.sum() < size:
        remainder = np.where(take < counts - 1, quota - take, -np.inf)
        take[np.argmax(remainder)] += 1
    return np.sort(np.concatenate([np.flatnonzero(inverse == label)[:n] for label, n in enumerate(take)]))


def _check_stratify(target: Array | None, groups: Array | None, order: Array | None) -> None:
    if target is None or target.ndim != 1 or target.dtype.kind not in "iu":
        raise _invalid("not_classes", "stratify needs a target of classes; this one has numbers")
    if groups is not None or order is not None:
        raise _invalid("stratify_conflict", "stratify cannot be kept together with columns.group_by or order_by")


def _digest(parts: tuple[Array | None, ...]) -> str:
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(b"none" if part is None else len(part).to_bytes(8, "little") + part.astype("<i8").tobytes())
    return sha256.hexdigest()


def _invalid(code: str, detail: str) -> DataInvalid:
    return DataInvalid(detail, issues=[Issue("/data", code, detail)])
