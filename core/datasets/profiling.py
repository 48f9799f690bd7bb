"""What an upload holds, in words and numbers for people: a profile, and its first rows."""

import math
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from core.datasets.formats import FORMATS, TABLES, Limits, UnreadableError
from core.datasets.samples import Array, Samples, in_parts

POINTER = "/file"
"""The part of the upload's form that errors point to."""


def profile(path: Path, format: str, limits: Limits | None = None, *, header: bool | None = None) -> dict[str, Any]:  # noqa: A002 - the wire's name
    """Read a whole upload once and return its profile.

    Returns:
        Tables: `{"kind": "table", "rows", "columns": [{"name", "dtype", "missing", "min", "max", "mean", "distinct",
        "values"}]}`. Images: `{"kind": "image", "samples", "channels", "height", "width", "dtype", "classes"}`.
        Sequences: `{"kind": "array", "holds": "ids" or "vectors", "lines", "length": {"min", "median", "max"}, "width",
        "largest_id", "target": {…}}`.
        Arrays: `{"kind", "samples", "sample_shape", "dtype", "min", "max", "mean", "missing", "target": {…}}`.

    Raises:
        DataInvalid: the file is not what `format` says; the issue names row, column or file in the archive.
    """
    limits = limits or Limits()
    try:
        if format in TABLES:
            return _table(path, format, limits, header=header)
        if format == "images":
            from core.datasets import images

            return images.check(path, limits).profile()
        if format == "jsonl":
            from core.datasets import sequences

            return sequences.scan(path, limits).profile()
        if format in FORMATS:
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".profile-") as scratch:
                return _arrays(_decoded(path, format, limits, Path(scratch)))
    except UnreadableError as error:
        raise error.as_invalid(POINTER) from error
    raise UnreadableError(
        "unknown_format", f"no format is called {format!r}", f"one of {', '.join(FORMATS)}"
    ).as_invalid("/format")


def preview(path: Path, format: str, limit: int = 20, *, header: bool | None = None) -> dict[str, Any]:  # noqa: A002
    """Return the first `limit` samples as `{"columns": [names], "rows": [[cell…]…]}`; a missing number is null.

    Images and arrays show their shape, dtype and label instead of their numbers, sequences how they begin.

    Raises:
        DataInvalid: as `profile`.
    """
    try:
        if format in TABLES:
            return _first_rows(path, format, limit, header=header)
        if format == "images":
            from core.datasets import images

            names, labels = images.listing(path, Limits())
            return {
                "columns": ["file", "class"],
                "rows": [list(row) for row in islice(zip(names, labels, strict=True), limit)],
            }
        if format == "jsonl":
            from core.datasets import sequences

            return sequences.first_lines(path, limit)
        with tempfile.TemporaryDirectory(prefix="epochd-preview-") as scratch:
            return _first_samples(_decoded(path, format, Limits(), Path(scratch)), limit)
    except UnreadableError as error:
        raise error.as_invalid(POINTER) from error


def _decoded(path: Path, format: str, limits: Limits, scratch: Path) -> Samples:  # noqa: A002
    from core.datasets import arrays

    decode = arrays.decode_npz if format == "npz" else arrays.decode_idx
    return decode(path, limits, scratch)


def _table(path: Path, format: str, limits: Limits, *, header: bool | None) -> dict[str, Any]:  # noqa: A002
    from core.datasets.tables import scan

    table = scan(path, format, limits, header=header)
    return {"kind": "table", "rows": table.rows, "columns": [column.profile() for column in table.columns.values()]}


def _arrays(samples: Samples) -> dict[str, Any]:
    facts = samples.facts()
    body: dict[str, Any] = {
        "kind": samples.kind,
        "samples": facts.samples,
        "sample_shape": list(facts.sample_shape),
        "dtype": facts.dtype,
        "missing": sum(facts.missing.values()),
        **_statistics(samples.inputs),
    }
    if samples.target is None:
        return body | {"target": None}
    target: dict[str, Any] = {"dtype": facts.target_dtype, "shape": list(facts.target_shape or ())}
    if facts.classes is not None and facts.class_counts is not None:
        target["classes"] = dict(zip(facts.classes, facts.class_counts, strict=True))
    return body | {"target": target | _statistics(samples.target)}


def _statistics(array: Array) -> dict[str, float | None]:
    least, most, total, count = math.inf, -math.inf, 0.0, 0
    for part in in_parts(array):
        known = part[~np.isnan(part)] if part.dtype.kind == "f" else part
        if known.size:
            least, most = min(least, float(known.min())), max(most, float(known.max()))
            total, count = total + float(known.sum(dtype=np.float64)), count + known.size
    if not count:
        return {"min": None, "max": None, "mean": None}
    return {"min": least, "max": most, "mean": total / count}


def _first_rows(path: Path, format: str, limit: int, *, header: bool | None) -> dict[str, Any]:  # noqa: A002
    from core.datasets.tables import batches

    rows: list[list[Any]] = []
    names: list[str] = []
    for batch in batches(path, format, header=header):
        names = names or list(batch)
        cells = [column.slice(0, limit - len(rows)).to_pylist() for column in batch.values()]
        rows += [[_cell(cell) for cell in row] for row in zip(*cells, strict=True)]
        if len(rows) >= limit:
            break
    return {"columns": names, "rows": rows}


def _cell(cell: Any) -> Any:
    """A JSON value: numbers that CSV has as text become numbers."""
    if isinstance(cell, str):
        try:
            number = float(cell)
        except ValueError:
            return cell
        return _finite(int(number) if number.is_integer() and "." not in cell else number, cell)
    return _finite(cell, None)


def _finite(number: Any, other: Any) -> Any:
    return number if not isinstance(number, float) or math.isfinite(number) else other


def _first_samples(samples: Samples, limit: int) -> dict[str, Any]:
    shape, dtype = "x".join(map(str, samples.inputs.shape[1:])), samples.inputs.dtype.name
    is_table = samples.kind == "table"
    rows: list[list[Any]] = []
    for index in range(min(limit, len(samples))):
        cells = [_finite(float(number), None) for number in samples.inputs[index]] if is_table else [shape, dtype]
        rows.append(cells + ([] if samples.target is None else [_label(samples, index)]))
    names = samples.feature_names if is_table else ["shape", "dtype"]
    return {"columns": names + ([] if samples.target is None else ["target"]), "rows": rows}


def _label(samples: Samples, index: int) -> Any:
    target = samples.target
    if target is None:
        return None
    return samples.classes[int(target[index])] if samples.classes is not None else target[index].tolist()
