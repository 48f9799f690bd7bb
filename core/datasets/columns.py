"""One pass over a table's cells: what each column holds, in bounded memory.

A column is made of numbers or of text. Numbers with a few texts among them are an error that names the first one.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
from pyarrow import compute

from core.datasets.formats import UnreadableError

pc: Any = compute  # its functions are made at import, so type checkers do not see them

MAX_VALUES = 10_000
"""Different values of a column that are counted; with more of them none is."""
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
INTEGER = r"^[+-]?\d+$"
BOOLEAN = {"true", "false"}

ColumnKind = Literal["integer", "number", "boolean", "text", "empty"]


@dataclass
class Column:
    """What one column holds, so far."""

    name: str
    rows: int = 0
    missing: int = 0
    first_missing: int | None = None
    numbers: int = 0
    integers: int = 0
    texts: int = 0
    first_number: tuple[int, str] | None = None
    first_text: tuple[int, str] | None = None
    infinite_at: int | None = None
    min: float = float("inf")
    max: float = float("-inf")
    total: float = 0.0
    values: Counter[str | float] | None = field(default_factory=Counter[str | float])

    def add(self, cells: pa.Array, *, is_text: bool = False) -> None:
        """Look at the next cells: strings as a CSV file has them, or with `is_text` as they are; or numbers.

        Args:
            cells: string or double array.
            is_text: strings are text, even where they look like numbers.
        """
        if pa.types.is_string(cells.type) and not is_text:
            cells = stripped(cells)
            are_numbers = pc.fill_null(pc.match_substring_regex(cells, NUMBER), fill_value=False)
            self._add_numbers(cells, are_numbers)
            are_texts = pc.and_(pc.is_valid(cells), pc.invert(are_numbers))
            self._add_texts(cells, are_texts)
        elif pa.types.is_string(cells.type):
            self._add_texts(cells, pc.is_valid(cells))
        else:
            self._add_floats(cells, pc.is_valid(cells))
        nulls = cells.null_count
        if nulls and self.first_missing is None:
            self.first_missing = self.rows + _first(pc.is_null(cells))
        self.missing += nulls
        self.rows += len(cells)

    def _add_numbers(self, cells: pa.Array, chosen: pa.Array) -> None:
        count = int(pc.sum(chosen).as_py() or 0)
        if not count:
            return
        if self.first_number is None:
            at = _first(chosen)
            self.first_number = (self.rows + at, cells[at].as_py())
        texts = cells.filter(chosen)
        self.integers += int(pc.sum(pc.match_substring_regex(texts, INTEGER)).as_py())
        floats = as_numbers(cells, chosen)
        integers = self.integers
        self._add_floats(floats, chosen)
        self.integers = integers

    def _add_floats(self, cells: pa.Array, chosen: pa.Array) -> None:
        numbers = cells.filter(chosen)
        if not len(numbers):
            return
        infinite = pc.fill_null(pc.is_inf(cells), fill_value=False)
        if self.infinite_at is None and pc.any(infinite).as_py():
            self.infinite_at = self.rows + _first(infinite)
        self.numbers += len(numbers)
        self.integers += int(pc.sum(pc.equal(pc.trunc(numbers), numbers)).as_py() or 0)
        extremes = pc.min_max(numbers)
        self.min = min(self.min, extremes["min"].as_py())
        self.max = max(self.max, extremes["max"].as_py())
        self.total += pc.sum(numbers).as_py()
        self._count(numbers)

    def _add_texts(self, cells: pa.Array, chosen: pa.Array) -> None:
        texts = cells.filter(chosen)
        if not len(texts):
            return
        if self.first_text is None:
            at = _first(chosen)
            self.first_text = (self.rows + at, cells[at].as_py())
        self.texts += len(texts)
        self._count(texts)

    def _count(self, cells: pa.Array) -> None:
        if self.values is None:
            return
        counts = pc.value_counts(cells)
        if len(counts) + len(self.values) > 2 * MAX_VALUES:
            self.values = None
            return
        self.values.update({item["values"]: item["counts"] for item in counts.to_pylist()})
        if len(self.values) > MAX_VALUES:
            self.values = None

    @property
    def kind(self) -> ColumnKind:
        """What the column is made of."""
        if not self.texts:
            if not self.numbers:
                return "empty"
            return "integer" if self.integers == self.numbers else "number"
        if self.values is not None and {str(value).lower() for value in self.values} <= BOOLEAN:
            return "boolean"
        return "text"

    def check(self) -> None:
        """Refuse what is neither numbers nor text.

        Raises:
            UnreadableError: names the first text among numbers, or the first infinite number.
        """
        if self.infinite_at is not None:
            detail = f"row {self.infinite_at + 1}, column {self.name!r}: the number is infinite"
            raise UnreadableError("not_finite", detail, "leave the cell empty for a missing value")
        if self.first_text and self.numbers >= self.texts:
            row, text = self.first_text
            others = f" ({self.texts} such cells in all)" if self.texts > 1 else ""
            detail = f"row {row + 1}, column {self.name!r}: {text[:80]!r} is text in a column of numbers{others}"
            hint = "mend the cell, or leave it empty for a missing value; for categories make every value a word"
            raise UnreadableError("text_in_numbers", detail, hint)

    def labels(self) -> list[str] | None:
        """The different values in label order: text sorted, numbers by size; None where there are too many."""
        if self.values is None:
            return None
        if self.kind == "boolean":
            return sorted({str(value).lower() for value in self.values})
        if self.kind == "text":
            return sorted({_label(value) for value in self.values})
        return [_label(value) for value in sorted(value for value in self.values if not isinstance(value, str))]

    def profile(self) -> dict[str, Any]:
        """Return what people want to know first."""
        body: dict[str, Any] = {"name": self.name, "dtype": self.kind, "missing": self.missing}
        if self.kind in ("integer", "number"):
            body |= {"min": self.min, "max": self.max, "mean": self.total / self.numbers}
        if self.values is not None:
            body["distinct"] = len(self.values)
            if self.kind in ("text", "boolean", "integer") and len(self.values) <= 100:
                body["values"] = {_label(value): self.values[value] for value in sorted(self.values, key=_order)}
        return body


def stripped(cells: pa.Array) -> pa.Array:
    """Strings without blanks around them; what is empty then is missing."""
    bare = pc.utf8_trim_whitespace(cells)
    return pc.if_else(pc.equal(bare, ""), pa.scalar(None, pa.string()), bare)


def as_numbers(cells: pa.Array, chosen: pa.Array) -> pa.Array:
    """Doubles of the chosen strings, null elsewhere."""
    digits = pc.replace_substring_regex(pc.if_else(chosen, cells, pa.scalar(None, pa.string())), r"^\+", "")
    return digits.cast(pa.float64())


def _first(mask: pa.Array) -> int:
    return int(pc.index(mask, True).as_py())


def _label(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else repr(value)


def _order(value: str | float) -> tuple[int, str | float]:
    return (1, value) if isinstance(value, str) else (0, value)
