"""A job in a table: how it ended, how good it was, and why it stopped when it did."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from epochd.display.numbers import bytes_in_words, number, seconds_in_words
from epochd.wire import Artifact, Job, Row

_WHY_STOPPED = {
    "patience": "did not improve in {patience} checks",
    "threshold": "reached its threshold",
    "diverged": "diverged",
    "not_finite": "is not finite",
}
_COLORS = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


def closing_table(
    job: Job,
    decisions: Sequence[Mapping[str, Any]],
    artifacts: Sequence[Artifact] = (),
    best_row: Row | None = None,
) -> Table:
    """Return the table that stands at the end of a watch.

    Args:
        job: the job as it stands.
        decisions: what epochd decided about it.
        artifacts: the files that it left.
        best_row: the row of its best epoch, whose weights are the model.
    """
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("job", job["id"] + (f" ({job['name']})" if job["name"] else ""))
    table.add_row("status", Text(_status(job), style=_COLORS.get(job["status"], "")))
    if error := job["error"]:
        table.add_row("error", Text(f"{error.get('code')}: {error.get('message')}"))
    table.add_row("epochs", f"{(job['progress'] or {}).get('epoch', 0)} of {job['spec']['epochs']}")
    if best := job["best"]:
        table.add_row("best", f"{best['monitor']} {number(best['value'])} at epoch {best['epoch']}")
    latest = job["latest_metrics"] or {}
    for title, values in (
        ("best val", best_row["val"] if best_row else None),
        ("last train", latest.get("train")),
        ("last val", latest.get("val")),
        ("test", job["test_metrics"]),
    ):
        if words := _metrics(values):
            table.add_row(title, words)
    table.add_row("early stopping", early_stopping_in_words(job, decisions))
    if saved := job.get("saved"):
        table.add_row("saved", f"{saved['epochs']} epochs, about {seconds_in_words(saved['seconds'])}")
    if job["started_at"] and job["finished_at"]:
        took = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])
        table.add_row("took", seconds_in_words(took.total_seconds()))
    for artifact in artifacts:
        table.add_row("artifact", f"{artifact['name']} ({bytes_in_words(artifact['size_bytes'])})")
    return table


def early_stopping_in_words(job: Job, decisions: Sequence[Mapping[str, Any]]) -> str:
    """Say what early stopping decided, or why it decided nothing."""
    rule = (job["resolved_spec"] or job["spec"]).get("early_stopping")
    if not rule:
        return "not asked for"
    checks = [decision for decision in decisions if decision.get("kind") == "early_stopping"]
    if not checks:
        return f"no check of {rule['monitor']} yet"
    last = checks[-1]
    best = f"best {rule['monitor']} {number(last['best'])} at epoch {last['best_epoch']}"
    if last["action"] == "stop":
        why = _WHY_STOPPED.get(last["reason"], last["reason"]).format(patience=last["patience"])
        return f"stopped after epoch {last['epoch']}: {rule['monitor']} {why}; {best}"
    verb = "did not stop it" if job["is_terminal"] else "goes on"
    return f"{verb}: patience used {last['wait']} of {last['patience']}; {best}"


def _status(job: Job) -> str:
    return f"{job['status']}, {job['stop_reason']}" if job["stop_reason"] else job["status"]


def _metrics(values: Mapping[str, Any] | None) -> str:
    scalars = {name: value for name, value in (values or {}).items() if isinstance(value, int | float)}
    return "  ".join(f"{name} {number(value)}" for name, value in scalars.items())
