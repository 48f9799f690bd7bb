"""JSONL uploads: one sequence a line, of ids (text in tokens) or of vectors, with its target.

    {"ids": [3, 17, 5], "target": "pos"}
    {"vectors": [[0.1, 2.0], [0.3, 1.5]], "target": 1.5}

Ids become int64 [N, T], vectors float32 [N, T, F]. Shorter sequences end in zeros: T is the longest one's length, or
the source's `length`, and longer ones lose what stands behind it.
"""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from core.datasets.arrays import MAX_CLASSES, counted_classes
from core.datasets.formats import Limits, UnreadableError
from core.datasets.mapping import create_mapped
from core.datasets.samples import Array, Samples

LINE_BYTES = 16 << 20
"""Of one line; numbers take some ten times as much while it is read."""
MAX_BYTES = 8 << 30
"""Padded sequences may take so many, and windows too."""
SHOWN = 50
"""Ids of a sequence in a preview."""
LARGEST_EXACT = 1 << 53

Holds = Literal["ids", "vectors"]
FIELDS = ("ids", "vectors", "target")
SEND = 'send {"ids": [3, 17, 5], "target": "pos"} or {"vectors": [[0.1, 2.0], …], "target": 1.5}, one object a line'
NO_TEXT = "raw text is not read, since the model's tokens are yours to choose: send their ids or vectors"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is right by itself.

    Attributes:
        number: from 1.
        holds: `ids` or `vectors`.
        values: int64 [t] or float32 [t, F].
        target: a word, true or false, or a number.
    """

    number: int
    holds: Holds
    values: Array
    target: str | bool | float


@dataclass
class Targets:
    """The targets of all lines as numbers, and the words that some of them stand for."""

    kind: str | None = None
    numbers: "array[float]" = field(default_factory=lambda: array("d"))
    words: dict[str, int] = field(default_factory=dict[str, int])
    are_integers: bool = True

    def add(self, line: Line) -> None:
        """Take the target of the next line."""
        value, number = line.target, line.number
        kind = "true or false" if isinstance(value, bool) else "a word" if isinstance(value, str) else "a number"
        self.kind = self.kind or kind
        if kind != self.kind:
            raise _wrong(number, "mixed_targets", f"the target is {kind}, those before it are {self.kind}")
        if isinstance(value, str):
            self.numbers.append(self.words.setdefault(value, len(self.words)))
            if len(self.words) > MAX_CLASSES:
                detail = f"the targets are more than {MAX_CLASSES} different words, too many for classes"
                raise _wrong(number, "too_many_classes", detail)
            return
        self.are_integers = self.are_integers and isinstance(value, int)
        self.numbers.append(value)

    def finished(self) -> tuple[Array, list[str] | None]:
        """Return labels int64 with their classes, other integers int64, or numbers float32."""
        numbers = np.frombuffer(self.numbers, dtype=np.float64)
        if self.kind == "a word":
            classes = sorted(self.words)
            places = {word: place for place, word in enumerate(classes)}
            place = np.asarray([places[word] for word in self.words], dtype=np.int64)
            return place[numbers.astype(np.int64)], classes
        if self.kind == "true or false":
            return numbers.astype(np.int64), ["false", "true"]
        if not self.are_integers:
            return numbers.astype(np.float32), None
        labels = numbers.astype(np.int64)
        return labels, counted_classes(labels)


@dataclass(frozen=True)
class Scan:
    """What a file of sequences holds.

    Attributes:
        holds: `ids` or `vectors`.
        lengths: int64 [N].
        width: numbers of a vector; None for ids.
        largest_id: None for vectors.
        target: as `Targets.finished` returns it.
        classes: their names, where the targets are labels.
    """

    holds: Holds
    lengths: Array
    width: int | None
    largest_id: int | None
    target: Array
    classes: list[str] | None

    def profile(self) -> dict[str, Any]:
        """Return what people want to know first."""
        target: dict[str, Any] = {"dtype": self.target.dtype.name, "shape": []}
        if self.classes is not None:
            counts = np.bincount(self.target, minlength=len(self.classes))
            target["classes"] = dict(zip(self.classes, map(int, counts), strict=True))
        target |= {"min": float(self.target.min()), "max": float(self.target.max()), "mean": float(self.target.mean())}
        return {
            "kind": "array",
            "holds": self.holds,
            "samples": len(self.lengths),
            "lines": len(self.lengths),
            "length": {
                "min": int(self.lengths.min()),
                "median": float(np.median(self.lengths)),
                "max": int(self.lengths.max()),
            },
            "width": self.width,
            "largest_id": self.largest_id,
            "dtype": "int64" if self.holds == "ids" else "float32",
            "target": target,
        }


def scan(path: Path, limits: Limits) -> Scan:
    """Read every line once.

    Raises:
        UnreadableError: names the first line that is wrong, or unlike those before it.
    """
    first: Line | None = None
    lengths, targets, largest, size = array("q"), Targets(), 0, 0
    for line in lines(path):
        first = first or line
        _check_alike(line, first)
        lengths.append(len(line.values))
        targets.add(line)
        size += line.values.nbytes
        if size > limits.max_unpacked_bytes:
            detail = f"the sequences take more than {limits.max_unpacked_bytes} bytes as numbers"
            raise UnreadableError("unpacks_too_large", detail)
        if line.holds == "ids":
            largest = max(largest, int(line.values.max()))
    if first is None:
        raise UnreadableError("empty", "the file holds no lines", SEND)
    are_ids = first.holds == "ids"
    width = None if are_ids else first.values.shape[1]
    return Scan(
        first.holds,
        np.frombuffer(lengths, dtype=np.int64),
        width,
        largest if are_ids else None,
        *targets.finished(),
    )


def decode(path: Path, limits: Limits, scratch: Path, *, length: int | None, pointer: str) -> Samples:
    """Put all sequences into one array in `scratch`, each from the beginning of its row.

    Args:
        path: the file.
        limits: of what it holds.
        scratch: where `inputs.npy` is made.
        length: cut and pad to so many steps; None: pad to the longest.
        pointer: where the source stands in the spec.

    Raises:
        UnreadableError: as `scan`; or the padded sequences are too large.
    """
    found = scan(path, limits)
    steps = int(found.lengths.max()) if length is None else length
    row_bytes = steps * (8 if found.width is None else 4 * found.width)
    if len(found.lengths) * row_bytes > MAX_BYTES:
        fitting = max(1, MAX_BYTES * steps // (len(found.lengths) * row_bytes))
        detail = f"{len(found.lengths)} sequences padded to {steps} steps take more than {MAX_BYTES} bytes"
        at = f"{pointer}/length"
        fix = {"op": "add", "path": at, "value": fitting}
        raise UnreadableError("pads_too_large", detail, "cut the longest ones by a smaller `length`", at=at, fix=fix)
    shape = (len(found.lengths), steps) if found.width is None else (len(found.lengths), steps, found.width)
    inputs = create_mapped(scratch / "inputs.npy", dtype=np.int64 if found.width is None else np.float32, shape=shape)
    for row, line in enumerate(lines(path)):
        values = line.values[:steps]
        inputs[row, : len(values)] = values
    return Samples(inputs, found.target, [], ["target"], found.classes, "array")


def first_lines(path: Path, limit: int) -> dict[str, Any]:
    """Return the first `limit` lines for a preview: their lengths, what they begin with, their targets."""
    rows: list[list[Any]] = []
    holds: Holds = "ids"
    for line in islice(lines(path), limit):
        holds = line.holds
        shown = line.values[:SHOWN].tolist() if holds == "ids" else line.values[:1].tolist()
        rows.append([len(line.values), shown, line.target])
    return {"columns": ["length", "ids" if holds == "ids" else "first vector", "target"], "rows": rows}


def lines(path: Path) -> Iterator[Line]:
    """Yield the lines, each checked by itself; empty ones are passed over.

    Raises:
        UnreadableError: names the first line that is wrong.
    """
    with path.open("rb") as file:
        number = 0
        while text := file.readline(LINE_BYTES + 1):
            number += 1
            if len(text) > LINE_BYTES:
                raise _wrong(number, "line_too_long", f"it has more than {LINE_BYTES} bytes", "cut the sequence")
            if text.strip():
                yield _line(_object(text, number), number)


def _line(body: dict[str, Any], number: int) -> Line:
    holds = _holds(body, number)
    values = _ids(body["ids"], number) if holds == "ids" else _vectors(body["vectors"], number)
    return Line(number, holds, values, _target(body, number))


def _object(text: bytes, number: int) -> dict[str, Any]:
    try:
        body = json.loads(text.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _wrong(number, "not_json", "it is not UTF-8", SEND) from error
    except (ValueError, RecursionError) as error:
        raise _wrong(number, "not_json", f"it is no JSON object: {error}", f"{SEND}; {NO_TEXT}") from error
    if not isinstance(body, dict):
        raise _wrong(number, "not_json", "it is JSON, but no object", f"{SEND}; {NO_TEXT}")
    return cast("dict[str, Any]", body)


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _holds(body: dict[str, Any], number: int) -> Holds:
    unknown = [name for name in body if name not in FIELDS]
    if "ids" in body and "vectors" in body:
        raise _wrong(number, "mixed_kinds", "it has ids and vectors", "send one of the two")
    if "ids" not in body and "vectors" not in body:
        words = [name for name in unknown if isinstance(body[name], str)]
        if words:
            raise _wrong(number, "raw_text", f"{words[0]!r} holds text instead of ids or vectors", NO_TEXT)
        raise _wrong(number, "missing_field", "it has neither ids nor vectors", SEND)
    if unknown:
        raise _wrong(number, "unknown_field", f"the field {unknown[0]!r} is not known", f"leave it out; {SEND}")
    return "ids" if "ids" in body else "vectors"


def _ids(values: Any, number: int) -> Array:
    if isinstance(values, str):
        raise _wrong(number, "raw_text", "`ids` holds text", NO_TEXT)
    if not isinstance(values, list) or not values:
        raise _wrong(number, "bad_ids", "`ids` must be an array of at least one integer")
    for kind in set(map(type, values)) - {int}:
        place = next(place for place, value in enumerate(values) if type(value) is kind)
        hint = NO_TEXT if kind is str else None
        code = "raw_text" if kind is str else "bad_ids"
        raise _wrong(number, code, f"ids[{place}] is {_shown(values[place])}; ids are integers from 0 on", hint)
    try:
        made = np.asarray(values, dtype=np.int64)
    except OverflowError as error:
        raise _wrong(number, "bad_ids", "an id is larger than 2^63 - 1") from error
    if made.min() < 0:
        place = int(np.argmax(made < 0))
        raise _wrong(number, "bad_ids", f"ids[{place}] is {made[place]}; ids are integers from 0 on")
    return made


def _vectors(values: Any, number: int) -> Array:
    if not isinstance(values, list) or not values or not isinstance(values[0], list) or not values[0]:
        raise _wrong(number, "bad_vectors", "`vectors` must be an array of at least one array of numbers")
    width = len(values[0])
    for place, vector in enumerate(values):
        if not isinstance(vector, list) or not set(map(type, vector)) <= {int, float}:
            raise _wrong(number, "bad_vectors", f"vectors[{place}] is no array of numbers")
        if len(vector) != width:
            detail = f"vectors[{place}] has {len(vector)} numbers, vectors[0] has {width}"
            raise _wrong(number, "ragged_vectors", detail, "give all vectors the same width")
    try:
        with np.errstate(over="ignore"):
            made = np.asarray(values, dtype=np.float64).astype(np.float32)
    except OverflowError:
        made = np.full((1, 1), np.inf, dtype=np.float32)
    if not np.isfinite(made).all():
        raise _wrong(number, "not_finite", "a number is too large for float32")
    return made


def _target(body: dict[str, Any], number: int) -> str | bool | float:
    target = body.get("target")
    if target is None:
        raise _wrong(number, "missing_target", "it has no target", SEND)
    if not isinstance(target, (str, bool, int, float)):
        detail = f"the target is {_shown(target)}; it must be a word, true or false, or a number"
        raise _wrong(number, "bad_target", detail)
    if not isinstance(target, (str, bool)) and not abs(target) <= LARGEST_EXACT:
        raise _wrong(number, "bad_target", f"the target {_shown(target)} is too large")
    return target


def _check_alike(line: Line, first: Line) -> None:
    if line.holds != first.holds:
        detail = f"it has {line.holds}, line {first.number} has {first.holds}"
        raise _wrong(line.number, "mixed_kinds", detail, "send ids in all lines, or vectors in all")
    if line.values.ndim == 2 and line.values.shape[1] != first.values.shape[1]:
        detail = f"its vectors have {line.values.shape[1]} numbers, those of line {first.number}"
        detail = f"{detail} have {first.values.shape[1]}"
        raise _wrong(line.number, "ragged_vectors", detail, "give all vectors the same width")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _wrong(number: int, code: str, detail: str, hint: str | None = None) -> UnreadableError:
    return UnreadableError(code, f"line {number}: {detail}", hint)
