"""States of a job, what the wire calls them, and what its owner may ask for."""

from typing import Literal, get_args

from sqlalchemy import ColumnElement, and_

from core.db.tables import Job

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
TerminalState = Literal["succeeded", "failed", "cancelled"]
Desired = Literal["run", "pause", "cancel"]
Status = Literal["queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"]

TERMINAL: tuple[TerminalState, ...] = get_args(TerminalState)
STATUSES: tuple[Status, ...] = get_args(Status)

LEGAL: dict[str, frozenset[State]] = {
    "queued": frozenset({"running", "paused", "cancelled"}),
    "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""Every change of state that there is."""

_RUNNING: dict[str, Status] = {"run": "running", "pause": "pausing", "cancel": "cancelling"}
_ACTIONS: dict[Status, tuple[str, ...]] = {
    "queued": ("cancel", "pause"),
    "running": ("cancel", "pause"),
    "pausing": ("cancel", "resume"),
    "paused": ("cancel", "resume"),
    "cancelling": (),
    "succeeded": ("delete",),
    "failed": ("delete",),
    "cancelled": ("delete",),
}


def wire_status(job: Job) -> Status:
    """Return the job's `status` on the wire: its state, seen with what its owner asked for."""
    state: Status = job.state  # pyrefly: ignore[bad-assignment] - a check constraint holds it
    return _RUNNING[job.desired] if state == "running" else state


def allowed_actions(job: Job) -> list[str]:
    """Return what may be asked of the job now, for people whose request was refused."""
    return list(_ACTIONS[wire_status(job)])


def is_terminal(job: Job) -> bool:
    """Tell whether the job has ended for good."""
    return job.state in TERMINAL


def has_status(status: Status) -> ColumnElement[bool]:
    """Return the condition under which a row has that `status` on the wire."""
    for desired, word in _RUNNING.items():
        if word == status:
            return and_(Job.state == "running", Job.desired == desired)
    return Job.state == status
