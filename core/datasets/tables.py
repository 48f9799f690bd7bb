"""CSV and Parquet as a stream of batches of cells, and what a pass over them finds."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute, parquet
from pyarrow import csv as arrow_csv

from core.datasets.columns import NUMBER, Column
from core.datasets.formats import Limits, UnreadableError

pc: Any = compute  # its functions are made at import, so type checkers do not see them

BLOCK_BYTES = 4 << 20
BATCH_ROWS = 1 << 16
CELL_BYTES = 4  # of a number as it is kept
HEAD_BYTES = 256 << 10
MAX_COLUMNS = 20_000
DELIMITERS = ",;\t|"
MISSING = ["", "NA", "N/A", "#N/A", "NaN", "nan", "-nan", "-NaN", "NULL", "null", "None", "<NA>", "?"]
"""Cells that say that there is no value."""

Batch = dict[str, pa.Array]
"""Cells by column: strings, or doubles where the file knows that they are numbers."""


@dataclass(frozen=True)
class Table:
    """A checked file of rows and columns."""

    path: Path
    format: str
    header: bool | None
    columns: dict[str, Column]

    @property
    def rows(self) -> int:
        """The number of samples."""
        return next(iter(self.columns.values())).rows

    def batches(self) -> Iterator[Batch]:
        """Read the cells once more."""
        return batches(self.path, self.format, header=self.header)


def scan(path: Path, format: str, limits: Limits, *, header: bool | None = None) -> Table:  # noqa: A002 - the wire's name
    """Pass over every cell once and return what the columns hold.

    Args:
        path: the file.
        format: `csv` or `parquet`.
        limits: unpacked cells may cost so much.
        header: whether the first row of a CSV file holds names; None: it does unless a number stands in it.

    Raises:
        UnreadableError: names the row and column that cannot be read.
    """
    if format == "parquet":
        _check_parquet(path, limits)
    columns: dict[str, Column] = {}
    unpacked = 0
    for batch in batches(path, format, header=header):
        for name, cells in batch.items():
            columns.setdefault(name, Column(name)).add(cells, is_text=format == "parquet")
            unpacked += cells.nbytes
        if unpacked > limits.max_unpacked_bytes:
            raise UnreadableError("unpacks_too_large", f"the table holds more than {limits.max_unpacked_bytes} bytes")
    if not columns or not next(iter(columns.values())).rows:
        raise UnreadableError("empty", "the table has no rows")
    for column in columns.values():
        column.check()
    return Table(path, format, header, columns)


def batches(path: Path, format: str, *, header: bool | None) -> Iterator[Batch]:  # noqa: A002 - the wire's name
    """Yield the cells of a CSV or Parquet file, a few thousand rows at a time.

    Raises:
        UnreadableError: the file is damaged, or not of this format.
    """
    try:
        yield from _csv(path, header=header) if format == "csv" else _parquet(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnreadableError(f"not_{format}", f"the file cannot be read as {format}: {first_line}") from error


def _csv(path: Path, *, header: bool | None) -> Iterator[Batch]:
    names, delimiter, has_header = _head(path, header=header)
    wrong: list[arrow_csv.InvalidRow] = []

    def stop(row: arrow_csv.InvalidRow) -> str:
        wrong.append(row)
        return "error"

    try:
        reader = arrow_csv.open_csv(
            path,
            arrow_csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, column_names=names, skip_rows=int(has_header)
            ),
            arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=stop),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=MISSING
            ),
        )
        for batch in reader:
            yield dict(zip(names, batch.columns, strict=True))
    except pa.ArrowInvalid as error:
        if not wrong:
            if "Empty CSV" in str(error):
                raise UnreadableError("empty", "the table has no rows") from error
            raise
        row = wrong[0]
        detail = (
            f"line {row.number} has {row.actual_columns} cells instead of {row.expected_columns}: {row.text[:80]!r}"
        )
        raise UnreadableError("ragged_row", detail, "give every row the same number of cells") from error


def _head(path: Path, *, header: bool | None) -> tuple[list[str], str, bool]:
    """Column names, delimiter, and whether the first row held the names."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if b"\0" in head:
        raise UnreadableError("not_csv", "the file is binary, not text of rows and commas")
    try:
        text = head.decode("utf-8-sig", errors="strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError as error:
        detail = f"the text is not UTF-8 (byte {error.start})"
        raise UnreadableError("not_csv", detail, "save the file as UTF-8") from error
    first_line = text.lstrip("\r\n").partition("\n")[0]
    if not first_line.strip():
        raise UnreadableError("empty", "the file holds no rows")
    delimiter = max(DELIMITERS, key=first_line.count)
    cells = [cell.strip() for cell in next(csv.reader(io.StringIO(text.lstrip("\r\n")), delimiter=delimiter))]
    if len(cells) > MAX_COLUMNS:
        raise UnreadableError("too_many_columns", f"the first row has {len(cells)} cells; {MAX_COLUMNS} are allowed")
    has_header = not _holds_number(cells) if header is None else header
    names = [f"column_{number}" for number in range(1, len(cells) + 1)]
    if has_header:
        names = [cell or name for cell, name in zip(cells, names, strict=True)]
    _refuse_doubles(names)
    return names, delimiter, has_header


def _holds_number(cells: list[str]) -> bool:
    return bool(pc.any(pc.match_substring_regex(pa.array(cells, pa.string()), NUMBER)).as_py())


def _refuse_doubles(names: list[str]) -> None:
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles:
        raise UnreadableError("double_column", f"two columns are called {doubles[0]!r}", "give each a name of its own")


def _check_parquet(path: Path, limits: Limits) -> None:
    """Refuse by its own figures a file whose few bytes stand for very many cells."""
    try:
        about = parquet.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableError("not_parquet", f"the file cannot be read as parquet: {error}") from error
    unpacked = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    unpacked = max(unpacked, about.num_rows * about.num_columns * CELL_BYTES)
    if unpacked > limits.max_unpacked_bytes:
        detail = f"{about.num_rows} rows of {about.num_columns} columns unpack to {unpacked} bytes"
        raise UnreadableError("unpacks_too_large", f"{detail}; {limits.max_unpacked_bytes} are allowed")


def _parquet(path: Path) -> Iterator[Batch]:
    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        _refuse_doubles(schema.names)
        if len(schema.names) > MAX_COLUMNS:
            raise UnreadableError("too_many_columns", f"{len(schema.names)} columns; {MAX_COLUMNS} are allowed")
        for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            yield {name: _cells(name, column) for name, column in zip(schema.names, batch.columns, strict=True)}


def _cells(name: str, column: pa.Array) -> pa.Array:
    """Strings or doubles of a typed column; NaN is missing, instants are seconds since 1970."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _cells(name, column.dictionary_decode())
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return pc.divide(column.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.float64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64(), safe=False)
        return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    raise UnreadableError("bad_dtype", f"column {name!r} is {kind}; numbers, text, booleans and instants can be read")
