"""`dataset`: an upload as a source.

Tables get their columns' roles here and are cut into windows where they are series; all others come as they are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from core.datasets import arrays, images, sequences
from core.datasets.columns import MAX_VALUES, Column, as_numbers, stripped
from core.datasets.formats import TABLES, Limits, UnreadableError
from core.datasets.mapping import create_mapped
from core.datasets.roles import MAX_CATEGORIES, Roles, groups_of, roles_of, too_many_categories
from core.datasets.samples import Array, Samples
from core.datasets.tables import Table, scan
from core.datasets.windows import Window, cut
from core.errors import DataInvalid, Issue
from core.messages import DatasetFile
from core.spec.job import Columns

pc: Any = compute  # its functions are made at import, so type checkers do not see them

CHECKED = Limits(max_unpacked_bytes=1 << 50, max_entries=1 << 40, max_ratio=float("inf"))
"""The operator's limits were kept when the file came."""
FLOAT32_INTEGERS = 1 << 24
"""Beyond this not every integer is a float32."""


class Uploaded:
    """An upload whose file lies on this machine."""

    def __init__(
        self, file: DatasetFile, columns: Columns | None, arguments: Mapping[str, Any], *, pointer: str
    ) -> None:
        self.file = file
        self.columns = columns
        self.header: bool | None = arguments.get("header")
        self.length: int | None = arguments.get("length")
        self.window: Mapping[str, Any] | None = arguments.get("window")
        self.pointer = pointer
        self.takes_columns = file.format in TABLES

    def identity(self) -> dict[str, Any]:
        """Return what decides the decoded bytes: the file's digest and the columns' roles."""
        roles = None if self.columns is None or not self.takes_columns else self.columns.model_dump(mode="json")
        own = {"length": self.length, "window": None if self.window is None else dict(self.window)}
        return {
            "upload": self.file.sha256, "format": self.file.format, "columns": roles, "header": self.header,
            **{name: value for name, value in own.items() if value is not None},
        }  # fmt: skip

    def decode(self, scratch: Path) -> Samples:
        """Decode the file.

        Raises:
            DataInvalid: it is not what it claims, or the columns that the spec names are not there.
        """
        path, limits = Path(self.file.path), CHECKED
        if not path.is_file():  # the readers would each say so in their own words
            detail = "the uploaded file is not there any more"
            raise DataInvalid(detail, issues=[Issue(self.pointer, "dataset_missing", detail, "upload it again")])
        try:
            self._check_arguments()
            if self.takes_columns:
                return self._table(scan(path, self.file.format, limits, header=self.header), scratch)
            if self.file.format == "jsonl":
                return sequences.decode(path, limits, scratch, length=self.length, pointer=self.pointer)
            decode = {"npz": arrays.decode_npz, "idx": arrays.decode_idx, "images": images.decode}[self.file.format]
            return decode(path, limits, scratch)
        except UnreadableError as error:
            raise error.as_invalid(self.pointer) from error

    def _table(self, table: Table, scratch: Path) -> Samples:
        """Read a table, whole or as windows."""
        if self.window is None:
            return read(table, roles_of(list(table.columns), self.columns), scratch / "inputs.npy")
        window = Window.of(self.window, f"{self.pointer}/window")
        roles = roles_of(list(table.columns), self.columns, may_know_past=window.horizon > 0)
        if roles.order_by is None:
            detail = "windows need the column that says what comes after what"
            raise UnreadableError("no_order", detail, "name it in data.columns.order_by", at="/data/columns/order_by")
        place = scratch / "rows.npy"
        try:
            return cut(read(table, roles, place), window, scratch, pointer=f"{self.pointer}/window")
        finally:
            place.unlink(missing_ok=True)

    def _check_arguments(self) -> None:
        wanted = {"length": ("jsonl",), "window": TABLES}
        for name, formats in wanted.items():
            if getattr(self, name) is not None and self.file.format not in formats:
                detail = f"`{name}` is for {' and '.join(formats)}; this upload is {self.file.format}"
                at = f"{self.pointer}/{name}"
                raise UnreadableError("other_format", detail, at=at, fix={"op": "remove", "path": at})


def uploaded(
    arguments: Mapping[str, Any], uploads: Mapping[str, DatasetFile], columns: Columns | None, pointer: str
) -> Uploaded:
    """Find the file that a source's `id` and `version` mean; without a version the newest there is.

    Raises:
        DataInvalid: no such upload.
    """
    name, version = str(arguments.get("id", "")), arguments.get("version")
    versions = {key: file for key, file in uploads.items() if key.partition("@")[0] == name}
    key = max(versions, key=_version, default="") if version is None else f"{name}@{version}"
    if key not in versions:
        detail = f"there is no data set {name!r}" + (f" with version {version}" if version is not None else "")
        hint = "GET /v1/datasets lists what was uploaded"
        raise DataInvalid(detail, issues=[Issue(f"{pointer}/id", "dataset_missing", detail, hint)])
    return Uploaded(versions[key], columns, arguments, pointer=pointer)


def _version(key: str) -> int:
    return int(key.partition("@")[2] or 0)


def read(table: Table, roles: Roles, place: Path) -> Samples:
    """Read a table's cells into arrays: features into a file at `place`, categories as positions.

    Raises:
        UnreadableError: a target that is missing in some row, or a category column of too many values.
    """
    columns = table.columns
    coded = {name for name in roles.features if columns[name].kind == "text" or name in roles.categorical}
    categories = {name: _categories(columns[name]) for name in roles.features if name in coded}
    _check_roles(columns, roles)
    dtype = np.float64 if any(_needs_float64(columns[name]) for name in roles.features) else np.float32
    shape = (table.rows, len(roles.features))
    inputs = create_mapped(place, dtype=dtype, shape=shape)
    others = _fill(inputs, table, roles, categories)
    return Samples(
        inputs,
        _target([others[name] for name in roles.target], [columns[name] for name in roles.target]),
        roles.features,
        roles.target,
        _classes(columns[roles.target[0]]) if len(roles.target) == 1 else None,
        "table",
        categories=categories,
        groups=None if roles.group_by is None else groups_of(others[roles.group_by]),
        order=None if roles.order_by is None else others[roles.order_by],
    )


def _fill(inputs: Array, table: Table, roles: Roles, categories: Mapping[str, list[str]]) -> dict[str, Array]:
    """Put the features into `inputs`, batch by batch, and return the columns of the other roles as float64 [N]."""
    columns = table.columns
    kept: dict[str, list[Array]] = {name: [] for name in (*roles.target, roles.group_by, roles.order_by) if name}
    words = {name: columns[name].labels() if _is_worded(columns[name]) else None for name in kept}
    start = 0
    for batch in table.batches():
        stop = start + len(next(iter(batch.values())))
        for position, name in enumerate(roles.features):
            inputs[start:stop, position] = _numbers(columns[name], batch[name], categories.get(name))
        for name, parts in kept.items():
            parts.append(_numbers(columns[name], batch[name], words[name]))
        start = stop
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def _is_worded(column: Column) -> bool:
    return column.kind in ("text", "boolean")


def _categories(column: Column) -> list[str]:
    labels = column.labels()
    if labels is None or len(labels) > MAX_CATEGORIES:
        raise too_many_categories(column.name)
    return labels


def _check_roles(columns: Mapping[str, Column], roles: Roles) -> None:
    for name in roles.target:
        _check_target(columns[name], is_alone=len(roles.target) == 1)
    for role, name in (("group_by", roles.group_by), ("order_by", roles.order_by)):
        if name is not None and columns[name].kind == "text" and columns[name].labels() is None:
            detail = f"column {name!r} has more than {MAX_VALUES} different texts, too many to {role.replace('_', ' ')}"
            raise UnreadableError("too_many_values", detail, "write numbers instead", at=f"/data/columns/{role}")
        if name is not None and columns[name].missing:
            detail = (
                f"column {name!r} has {columns[name].missing} missing values, so it cannot {role.replace('_', ' ')}"
            )
            raise UnreadableError("missing_values", detail, at=f"/data/columns/{role}")


def _check_target(column: Column, *, is_alone: bool) -> None:
    if column.missing:
        row = (column.first_missing or 0) + 1
        detail = f"the target {column.name!r} has {column.missing} missing values, the first in row {row}"
        raise UnreadableError("missing_target", detail, "leave out rows without a target", at="/data/columns/target")
    if _is_worded(column) and column.kind == "text" and not is_alone:
        detail = f"the target {column.name!r} holds text; several targets must be numbers"
        raise UnreadableError("text_target", detail, at="/data/columns/target")
    if column.kind == "text" and column.labels() is None:
        raise UnreadableError(
            "too_many_classes", f"the target {column.name!r} has too many different texts for classes"
        )


def _classes(column: Column) -> list[str] | None:
    """Names in label order for text, booleans, and integers that are exactly 0…K-1."""
    labels = column.labels()
    if _is_worded(column) or labels is None or column.kind != "integer":
        return labels if _is_worded(column) else None
    return labels if len(labels) > 1 and labels == [str(label) for label in range(len(labels))] else None


def _target(parts: list[Array], columns: list[Column]) -> Array:
    if len(parts) > 1:
        return np.stack(parts, axis=1).astype(np.float32)
    is_label = _is_worded(columns[0]) or columns[0].kind == "integer"
    return parts[0].astype(np.int64 if is_label else np.float32)


def _needs_float64(column: Column) -> bool:
    return column.kind in ("integer", "number") and max(abs(column.min), abs(column.max)) > FLOAT32_INTEGERS


def _numbers(column: Column, cells: pa.Array, categories: list[str] | None) -> Array:
    """Float64 of a batch's cells, NaN where there is none; positions in `categories` where those are given."""
    if pa.types.is_string(cells.type):
        cells = stripped(cells)
    if column.kind == "boolean":
        cells, categories = pc.utf8_lower(cells), ["false", "true"]
    if categories is not None and pa.types.is_string(cells.type) and _is_worded(column):
        codes = pc.index_in(cells, pa.array(categories, pa.string()))
        return np.asarray(codes.cast(pa.float64()).to_numpy(zero_copy_only=False))
    numbers = as_numbers(cells, pc.is_valid(cells)) if pa.types.is_string(cells.type) else cells
    if categories is not None:
        known = pa.array([float(value) for value in categories], pa.float64())
        numbers = pc.index_in(numbers, known).cast(pa.float64())
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
