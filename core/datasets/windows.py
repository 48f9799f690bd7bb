"""Windows over a table: each is so many rows that follow each other in time, its target stands some rows later."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from core.datasets.formats import UnreadableError
from core.datasets.mapping import create_mapped
from core.datasets.samples import Array, Samples
from core.datasets.sequences import MAX_BYTES

CHUNK_BYTES = 4 << 20
KEYS = ("length", "stride", "horizon")


@dataclass(frozen=True, slots=True)
class Window:
    """How a series is cut.

    Attributes:
        length: rows of a window, T.
        stride: rows from the first of one window to the first of the next.
        horizon: the target stands so many rows after the window's last; 0: in that row itself.
    """

    length: int
    stride: int = 1
    horizon: int = 1

    @classmethod
    def of(cls, given: Mapping[str, Any], pointer: str) -> Self:
        """Read the source's `window`, whose numbers the catalog has checked.

        Raises:
            UnreadableError: a key that a window does not have.
        """
        unknown = [name for name in given if name not in KEYS]
        if unknown:
            at = f"{pointer}/{unknown[0]}"
            detail = f"a window has no {unknown[0]!r}"
            raise UnreadableError("unknown_argument", detail, f"there are {', '.join(KEYS)}", at=at)
        return cls(**given)

    @property
    def reach(self) -> int:
        """Rows from a window's first to its target's."""
        return self.length + self.horizon


def cut(rows: Samples, window: Window, scratch: Path, *, pointer: str) -> Samples:
    """Return the windows of a table, series by series (`rows.groups`), along time (`rows.order`).

    Args:
        rows: the table, its order known.
        window: how it is cut.
        scratch: where `inputs.npy` is made, [N, T, F].
        pointer: where the window stands in the spec.

    Returns:
        Windows with the target's place in time as `order`, and their rows, in the order of series and time, as `spans`.

    Raises:
        UnreadableError: no series is long enough, or the windows are too large.
    """
    along, starts = _starts(rows, window, pointer)
    features = rows.inputs.shape[1]
    row_bytes = window.length * features * rows.inputs.itemsize
    if len(starts) * row_bytes > MAX_BYTES:
        detail = f"{len(starts)} windows of {window.length} rows take more than {MAX_BYTES} bytes"
        hint = "take a larger stride, shorter windows or fewer features"
        raise UnreadableError("windows_too_large", detail, hint, at=f"{pointer}/stride")
    shape = (len(starts), window.length, features)
    inputs = create_mapped(scratch / "inputs.npy", dtype=rows.inputs.dtype, shape=shape)
    step, steps = max(1, CHUNK_BYTES // row_bytes), np.arange(window.length)
    for at in range(0, len(starts), step):
        inputs[at : at + step] = rows.inputs[along[starts[at : at + step, None] + steps]]
    ends = starts + window.reach - 1
    last = along[ends]
    return replace(
        rows,
        inputs=inputs,
        target=None if rows.target is None else rows.target[last],
        kind="array",
        groups=None,
        order=None if rows.order is None else rows.order[last],
        spans=np.stack([starts, ends], axis=1),
    )


def _starts(rows: Samples, window: Window, pointer: str) -> tuple[Array, Array]:
    """The rows in the order of series and time, and the places in it at which windows begin."""
    order = np.arange(len(rows)) if rows.order is None else rows.order
    groups = np.zeros(len(rows), dtype=np.int64) if rows.groups is None else rows.groups
    along = np.lexsort((order, groups))
    firsts = np.flatnonzero(np.diff(groups[along], prepend=-1))
    sizes = np.diff(np.append(firsts, len(rows)))
    longest = int(sizes.max())
    if longest < window.reach:
        words = f"{window.length} rows and a target {window.horizon} later"
        detail = f"the longest series has {longest} rows; a window of {words} needs {window.reach}"
        at = f"{pointer}/length"
        fitting = longest - window.horizon
        fix = {"op": "replace", "path": at, "value": fitting} if fitting >= 1 else None
        raise UnreadableError("series_too_short", detail, "take shorter windows, or a smaller horizon", at=at, fix=fix)
    parts = [
        np.arange(first, first + size - window.reach + 1, window.stride)
        for first, size in zip(firsts, sizes, strict=True)
        if size >= window.reach
    ]
    return along, np.concatenate(parts)
