"""States of a job, what the wire calls them, and what its owner may ask for."""

from typing import Literal, get_args

from sqlalchemy import ColumnElement, and_, literal

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


def in_state(state: State) -> ColumnElement[bool]:
    """Return the condition under which a row has that state, with the word in the statement's text.

    The indexes of waiting and running jobs are partial. As a parameter the word would keep PostgreSQL from using them
    in a prepared plan, which it makes once for all parameters, perhaps while the table is still small.
    """
    return Job.state == literal(state, literal_execute=True)


def has_status(status: Status, *, is_indexed: bool = True) -> ColumnElement[bool]:
    """Return the condition under which a row has that `status` on the wire.

    Args:
        status: the wire's word.
        is_indexed: false keeps the condition from choosing the index, where another one finds fewer rows. SQLite has
            no statistics and takes a state, which most rows may have, for as rare as a name.
    """
    state = Job.state if is_indexed else Job.state.concat("")
    for desired, word in _RUNNING.items():
        if word == status:
            return and_(state == "running", Job.desired == desired)
    return state == status
