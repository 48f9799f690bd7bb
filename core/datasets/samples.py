"""What a source holds once it is decoded: arrays (`Samples`) and what can be known without them (`Facts`)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kind = Literal["table", "image", "array"]
"""`table`: named columns [N, F]; `image`: uint8 [N, C, H, W]; `array`: any other numbers [N, …], such as sequences."""
PART_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """What preflight needs to know of a set.

    Attributes:
        kind: table, image or array.
        samples: N.
        sample_shape: shape of one sample, without N.
        dtype: of the inputs, in NumPy's spelling.
        target_shape: shape of one target, `()` for a single number; None without a target.
        target_dtype: `int64` for labels, `float32` for numbers; None without a target.
        classes: names in label order, where the target holds labels of known classes.
        class_counts: samples per class, in label order.
        label_min: smallest label of an integer target.
        label_max: largest label of an integer target.
        feature_names: names of the columns of a table.
        target_names: names of the target columns.
        categories: categorical feature → its values; the column holds their positions.
        missing: feature → number of samples without a value (NaN in the inputs).
        digest: SHA-256 of the content.
        input_min: smallest input of an array of integers, such as ids.
        input_max: largest one.
        target_min: smallest number of a target of numbers.
        target_max: largest one.
    """

    kind: Kind
    samples: int
    sample_shape: tuple[int, ...]
    dtype: str
    target_shape: tuple[int, ...] | None
    target_dtype: str | None
    classes: list[str] | None
    class_counts: list[int] | None
    label_min: int | None
    label_max: int | None
    feature_names: list[str]
    target_names: list[str]
    categories: dict[str, list[str]]
    missing: dict[str, int]
    digest: str
    input_min: int | None = None
    input_max: int | None = None
    target_min: float | None = None
    target_max: float | None = None

    @property
    def class_count(self) -> int | None:
        """The number of classes, where they are known."""
        return None if self.classes is None else len(self.classes)

    def to_json(self) -> str:
        """Return the facts as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        body = json.loads(text)
        body["sample_shape"] = tuple(body["sample_shape"])
        body["target_shape"] = None if body["target_shape"] is None else tuple(body["target_shape"])
        return cls(**body)


@dataclass(frozen=True, slots=True)
class Samples:
    """A decoded set. Arrays may be mapped from disk and read-only.

    Attributes:
        inputs: table float32 or float64 [N, F], image uint8 [N, C, H, W], or array [N, …].
        target: labels int64 [N], numbers float32 [N] or [N, K], or None.
        feature_names: names of a table's columns, else empty.
        target_names: names of the target columns.
        classes: class names in label order, where the target holds labels.
        kind: table, image or array.
        digest: SHA-256 of the whole source's content, also where only a part of it is held.
        categories: categorical feature → its values; the column holds their positions.
        groups: int64 [N], equal where samples must stay in the same split.
        order: float64 [N], to split along.
        spans: int64 [N, 2], the first and last row that a window of a series takes; no two series share a row.
    """

    inputs: Array
    target: Array | None
    feature_names: list[str] = field(default_factory=list[str])
    target_names: list[str] = field(default_factory=list[str])
    classes: list[str] | None = None
    kind: Kind = "table"
    digest: str = ""
    categories: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    groups: Array | None = None
    order: Array | None = None
    spans: Array | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Sequence[int] | Array) -> Self:
        """Return a copy that holds the samples at `indices` only, in that order."""
        at = np.asarray(indices, dtype=np.int64)
        parts = {name: getattr(self, name) for name in ("target", "groups", "order", "spans")}
        chosen = {name: None if part is None else part[at] for name, part in parts.items()}
        return replace(self, inputs=self.inputs[at], **chosen)

    def facts(self) -> Facts:
        """Look at the arrays and return what they hold."""
        target = self.target
        labels = target if target is not None and target.dtype.kind == "i" and target.size else None
        numbers = target if target is not None and target.dtype.kind == "f" and target.size else None
        counts = None if labels is None or self.classes is None else np.bincount(labels, minlength=len(self.classes))
        return Facts(
            kind=self.kind,
            samples=len(self),
            sample_shape=tuple(self.inputs.shape[1:]),
            dtype=self.inputs.dtype.name,
            target_shape=None if target is None else tuple(target.shape[1:]),
            target_dtype=None if target is None else target.dtype.name,
            classes=self.classes,
            class_counts=None if counts is None else [int(count) for count in counts],
            label_min=None if labels is None else int(labels.min()),
            label_max=None if labels is None else int(labels.max()),
            feature_names=self.feature_names,
            target_names=self.target_names,
            categories=self.categories,
            missing=self._missing(),
            digest=self.digest,
            input_min=self._extreme("min"),
            input_max=self._extreme("max"),
            target_min=None if numbers is None else float(numbers.min()),
            target_max=None if numbers is None else float(numbers.max()),
        )

    def _extreme(self, which: Literal["min", "max"]) -> int | None:
        if self.kind != "array" or self.inputs.dtype.kind not in "iu" or not self.inputs.size:
            return None
        return int(getattr(self.inputs, which)())

    def _missing(self) -> dict[str, int]:
        if self.inputs.dtype.kind != "f":
            return {}
        if not self.feature_names:
            count = sum(int(np.isnan(part).sum()) for part in in_parts(self.inputs))
            return {"inputs": count} if count else {}
        counts = np.zeros(len(self.feature_names), dtype=np.int64)
        for part in in_parts(self.inputs):
            counts += np.isnan(part).reshape(-1, len(counts)).sum(axis=0)
        return {name: int(count) for name, count in zip(self.feature_names, counts, strict=True) if count}


def in_parts(array: Array) -> Iterator[Array]:
    """Yield an array's samples in pieces of a few MiB: a mapped file may be larger than the memory."""
    step = max(1, PART_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), step):
        yield array[start : start + step]
