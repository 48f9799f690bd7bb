"""Counters of what happens to jobs, wherever it happens: workers have no port, so the API counts their events.

Like every counter of a process these begin at zero, with the first look, and only rise; deleting jobs takes nothing
back. Every API process counts all events: with several, take the `max` of a rate over them, never the `sum`.
"""

import threading
from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from sqlalchemy.orm import Session

from core.db import figures
from core.db.figures import Happening

Key = tuple[str, str, tuple[str, ...]]
"""Project, counter, values of its labels."""

FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "epochd_jobs_accepted": ("Jobs that were accepted.", ()),
    "epochd_jobs_ended": ("Jobs that ended, by state and code of the error.", ("state", "code")),
    "epochd_epochs_published": ("Epochs whose metrics became visible.", ()),
    "epochd_attempts_started": ("Attempts that a worker began.", ()),
    "epochd_attempts_ended": (
        "Attempts that ended, by outcome and code; `lost`: a lease was over.",
        ("outcome", "code"),
    ),
}
KNOWN: dict[str, tuple[tuple[str, ...], ...]] = {
    "epochd_jobs_ended": (("succeeded", ""), ("cancelled", ""), ("failed", "poison")),
    "epochd_attempts_ended": (
        ("succeeded", ""), ("cancelled", ""), ("paused", ""), ("drained", "drained"), ("lost", "lost"),
        ("crashed", "crash"), ("crashed", "killed"), ("crashed", "oom"), ("crashed", "stalled"),
        ("crashed", "disk_full"),
    ),
}  # fmt: skip
"""Shown from the beginning: a rate sees no rise from nothing."""


class Happenings:
    """What happened since the first look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._after: int | None = None
        self._counts: Counter[Key] = Counter()

    def look(self, session: Session, *, settled_seconds: float = figures.SETTLED_SECONDS) -> None:
        """Count what is new."""
        with self._lock:
            if self._after is None:
                self._after = figures.newest_event(session)
                return
            for happening in figures.happenings(session, self._after, settled_seconds=settled_seconds):
                self._after = happening.id
                for name, labels, number in _counted(happening):
                    self._counts[happening.project, name, labels] += number

    def collect(self, project: str | None) -> Iterator[CounterMetricFamily]:
        """Yield the counters of a project, none: of all."""
        with self._lock:
            visible = Counter[tuple[str, tuple[str, ...]]]()
            for (owner, name, labels), number in self._counts.items():
                if project in (None, owner):
                    visible[name, labels] += number
        for name, (help_text, label_names) in FAMILIES.items():
            family = CounterMetricFamily(name, help_text, labels=label_names)
            known = KNOWN.get(name, () if label_names else ((),))
            for labels in sorted({*known, *(labels for one, labels in visible if one == name)}):
                family.add_metric(labels, visible[name, labels])
            yield family


def _counted(happening: Happening) -> Iterator[tuple[str, tuple[str, ...], int]]:
    body = happening.body
    match happening.type:
        case "job.created":
            yield "epochd_jobs_accepted", (), 1
        case "job.claimed":
            yield "epochd_attempts_started", (), 1
        case "job.epoch":
            yield "epochd_epochs_published", (), body["epoch"] - body["first_epoch"] + 1
        case "job.succeeded" | "job.failed" | "job.cancelled":
            code = (body.get("error") or {}).get("code") or ""
            yield "epochd_jobs_ended", (happening.type.removeprefix("job."), code), 1
        case _:
            pass
    if happening.outcome is not None:
        yield "epochd_attempts_ended", (happening.outcome, happening.code or ""), 1
