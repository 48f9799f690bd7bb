"""Metrics on the wire: rows spliced from stored text, or a flat table."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from api.answers import Answer
from api.schemas.base import rfc3339
from core.db.series import MetricsRow

Form = Literal["application/json", "text/csv"]

SETS = ("train", "val")
FIRST = ("epoch", "step")
LAST = ("grad_norm", "seconds", "samples_per_second", "attempt", "recorded_at")


def answer(rows: Sequence[MetricsRow], *, has_more: bool, form: Form) -> Answer:
    """Return a page of rows. They never change, so their number is the ETag (of one URL and one form)."""
    body = as_csv(rows) if form == "text/csv" else as_json(rows, has_more=has_more)
    etag = f'"{len(rows)}{"+" if has_more else ""}{"-csv" if form == "text/csv" else ""}"'
    return Answer(body, etag, is_empty=not rows)


def as_json(rows: Sequence[MetricsRow], *, has_more: bool) -> bytes:
    """Return rows as a list; the stored text is sent as it is, so that a row once seen never changes."""
    data = ",".join(_spliced(row) for row in rows)
    return f'{{"object":"list","data":[{data}],"has_more":{json.dumps(has_more)}}}'.encode()


def as_csv(rows: Sequence[MetricsRow]) -> bytes:
    """Return rows as a table: `epoch`, `step`, `train_loss`, …, `val_loss`, …, `lr`, …; every column of any row."""
    flat = [_flat(json.loads(_spliced(row))) for row in rows]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _columns(flat), restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def _spliced(row: MetricsRow) -> str:
    return f'{row.body.rstrip()[:-1]},"attempt":{row.attempt},"recorded_at":"{rfc3339(row.recorded_at)}"}}'


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    non_finite = row.get("non_finite") or {}
    flat = {name: row.get(name) for name in (*FIRST, *LAST)}
    for split in SETS:
        for name, value in (row.get(split) or {}).items():
            flat[f"{split}_{name}"] = non_finite.get(f"{split}.{name}", value)
    rates = row.get("lr") or []
    flat.update({"lr" if group == 0 else f"lr_{group}": rate for group, rate in enumerate(rates)})
    for name, value in (row.get("early_stopping") or {}).items():
        flat[f"early_stopping_{name}"] = value
    return {name: _cell(value) for name, value in flat.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value)
    return "" if value is None else value


def _columns(flat: Iterable[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in flat for name in row)) or [*FIRST, *LAST]
    groups = (FIRST, "train_", "val_", "lr", LAST, "")
    ordered = dict.fromkeys(name for group in groups for name in names if _is_of(name, group))
    return list(ordered)


def _is_of(name: str, group: str | tuple[str, ...]) -> bool:
    return name in group if isinstance(group, tuple) else name.startswith(group)
