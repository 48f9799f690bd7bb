"""What holds whatever fails, read from rows and files once everything has settled; never from the words of a log.

    I1   every accepted id exists; a repeated key gave the same id; rows = distinct keys
    I2   every job has ended: well, or as its owner asked
    I3   one terminal event per job, equal to its state; the chain is legal; the fence rises along it
    I4   epochs of a succeeded job are 1…E; of any other 1…k, k = epochs_done = the checkpoint's epoch
    I5   no row written by two attempts, none after its attempt ended, the fence never falls along the epochs
    I6   weights and series equal those of an undisturbed run, bit for bit
    I8   pointers name files with the recorded digest; after `gc` only referenced files are left
    I10  no secret in any file that the service wrote

What can only be seen while it happens is noted by `tests.faults.watching`: I7, I9, and the status codes of I10.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select

from core import digests
from core.db import references
from core.db.engine import Database
from core.db.states import LEGAL, TERMINAL
from core.db.tables import Artifact, Attempt, Base, Epoch, Event, Job

WEIGHTS = ("model.safetensors", "last.safetensors")
TIMINGS = frozenset({"seconds", "samples_per_second"})
"""The only parts of a row that depend on the clock."""
BECOMES = {
    "job.created": "queued",
    "job.claimed": "running",
    "job.requeued": "queued",
    "job.lost": "queued",
    "job.paused": "paused",
    "job.succeeded": "succeeded",
    "job.failed": "failed",
    "job.cancelled": "cancelled",
}
LOG = "trainer.log"

R = TypeVar("R", bound=Base)


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run leaves."""

    numerics: dict[str, Any]
    weights: dict[str, str]
    """SHA-256 by name of the file."""
    series: list[dict[str, Any]]


@dataclass(frozen=True)
class Evidence:
    """Where to look.

    Attributes:
        database: of the service; opened directly.
        artifacts: the folder of its storage.
        written: every other folder that its processes write to: logs above all.
        accepted: what clients got: ids by idempotency key.
        prefix: keys of these clients begin with it.
        references: undisturbed runs, by digest of their spec.
        cancelled: ids of jobs that somebody asked to cancel.
        secrets: words that must not be in any file.
    """

    database: Database
    artifacts: Path
    written: Path
    accepted: Mapping[str, Collection[str]]
    prefix: str
    references: Mapping[str, Reference] = field(default_factory=dict[str, Reference])
    cancelled: Collection[str] = ()
    secrets: Collection[str] = ()


@dataclass
class Rows:
    """All rows of one job, in their order."""

    job: Job
    attempts: list[Attempt]
    epochs: list[Epoch]
    events: list[Event]
    artifacts: list[Artifact]


def violations(evidence: Evidence) -> list[str]:
    """Return every violation that rows and files show, as sentences; call it when all jobs have ended."""
    jobs = read(evidence.database, evidence.prefix)
    found = [*accepted(evidence, jobs)]
    for rows in jobs:
        per_job = [*ended(rows, evidence), *chained(rows), *complete(rows), *owned(rows)]
        per_job += [*undisturbed(rows, evidence), *stored(rows, evidence)]
        found += [f"{rows.job.id} ({rows.job.state}): {problem}" for problem in per_job]
    return [*found, *leaked(evidence)]


def read(database: Database, prefix: str) -> list[Rows]:
    """Return the rows of all jobs whose key begins with `prefix`."""
    with database.session_scope(write=False) as session:
        jobs = session.scalars(select(Job).where(Job.idempotency_key.startswith(prefix)).order_by(Job.id)).all()
        ids = [job.id for job in jobs]
        attempts = _by_job(session.scalars(select(Attempt).where(Attempt.job_id.in_(ids)).order_by(Attempt.number)))
        epochs = _by_job(session.scalars(select(Epoch).where(Epoch.job_id.in_(ids)).order_by(Epoch.epoch)))
        events = _by_job(session.scalars(select(Event).where(Event.job_id.in_(ids)).order_by(Event.id)))
        artifacts = _by_job(session.scalars(select(Artifact).where(Artifact.job_id.in_(ids))))
        session.expunge_all()
    return [Rows(job, attempts[job.id], epochs[job.id], events[job.id], artifacts[job.id]) for job in jobs]


def _by_job(rows: Iterable[R]) -> dict[str, list[R]]:
    found: dict[str, list[R]] = defaultdict(list)
    for row in rows:
        found[getattr(row, "job_id")].append(row)  # noqa: B009 - every table but jobs has it
    return found


def accepted(evidence: Evidence, jobs: Collection[Rows]) -> Iterator[str]:
    """I1."""
    ids = {rows.job.idempotency_key: rows.job.id for rows in jobs}
    for key, given in evidence.accepted.items():
        if set(given) != {ids.get(key)}:
            yield f"I1: the key {key} gave {sorted(given)}, its row is {ids.get(key)}"
    if set(ids) != set(evidence.accepted):
        yield f"I1: {len(ids)} rows for {len(evidence.accepted)} keys: {sorted(map(str, ids))[:5]}"


def ended(rows: Rows, evidence: Evidence) -> Iterator[str]:
    """I2."""
    job = rows.job
    if job.state not in TERMINAL:
        yield f"I2: it has not ended; lease until {job.lease_until}, run after {job.run_after}"
    elif job.state != "succeeded" and not (job.state == "cancelled" and job.id in evidence.cancelled):
        yield f"I2: it ended badly: {job.error}"
    if any(attempt.ended_at is None for attempt in rows.attempts):
        yield "I2: an attempt has no end"


def chained(rows: Rows) -> Iterator[str]:
    """I3."""
    job, state, fence = rows.job, "", -1
    terminal = [event.type for event in rows.events if event.is_terminal]
    if terminal != [f"job.{job.state}"]:
        yield f"I3: its terminal events are {terminal}"
    for event in rows.events:
        becomes = _becomes(event, state, fence)
        if becomes is None:
            if event.fence != fence:
                yield f"I3: {event.type} has fence {event.fence} where {fence} was the owner's"
            continue
        if state and becomes not in LEGAL[state]:
            yield f"I3: {event.type} came while it was {state}"
        if event.fence != fence + 1:
            yield f"I3: {event.type} has fence {event.fence} after {fence}"
        state, fence = becomes, event.fence
    if (state, fence) != (job.state, job.fence):
        yield f"I3: its events end with {state} and fence {fence}, its row has fence {job.fence}"


def _becomes(event: Event, state: str, fence: int) -> str | None:
    """Return the state that the event leads to; None where the owner stays the same."""
    if event.type == "job.resumed":  # of a job that is only about to pause it is a wish
        return "queued" if state == "paused" and event.fence > fence else None
    return BECOMES.get(event.type)


def complete(rows: Rows) -> Iterator[str]:
    """I4."""
    job, epochs = rows.job, [row.epoch for row in rows.epochs]
    wanted = int(job.spec["epochs"]) if job.state == "succeeded" else len(epochs)
    if epochs != list(range(1, wanted + 1)):
        yield f"I4: of {wanted} epochs it has {epochs}"
    if not len(epochs) == job.epochs_done == (job.checkpoint_epoch or 0):
        yield f"I4: {len(epochs)} rows, epochs_done {job.epochs_done}, checkpoint of epoch {job.checkpoint_epoch}"


def owned(rows: Rows) -> Iterator[str]:
    """I5."""
    attempts = {attempt.number: attempt for attempt in rows.attempts}
    if list(attempts) != list(range(1, rows.job.attempt + 1)):
        yield f"I5: its attempts are {list(attempts)}, the row counts {rows.job.attempt}"
    for before, after in pairwise(rows.attempts):
        if after.fence <= before.fence or (before.ended_at is not None and after.started_at < before.ended_at):
            yield f"I5: attempt {after.number} began before {before.number} had ended"
    for before, after in pairwise(rows.epochs):
        if after.fence < before.fence:
            yield f"I5: epoch {after.epoch} has fence {after.fence}, the one before {before.fence}"
    for row in rows.epochs:
        attempt = attempts.get(row.attempt)
        if attempt is None or attempt.fence != row.fence:
            yield f"I5: epoch {row.epoch} says attempt {row.attempt} and fence {row.fence}: there is none"
        elif row.recorded_at < attempt.started_at or (attempt.ended_at or row.recorded_at) < row.recorded_at:
            yield f"I5: epoch {row.epoch} was recorded outside of attempt {row.attempt}"
        elif not attempt.from_epoch < row.epoch <= (attempt.to_epoch or row.epoch):
            yield f"I5: epoch {row.epoch} is not one of attempt {row.attempt}"


def undisturbed(rows: Rows, evidence: Evidence) -> Iterator[str]:
    """I6."""
    job = rows.job
    reference = evidence.references.get(job.spec_digest)
    if reference is None:
        yield "I6: no undisturbed run of its spec is known"
        return
    if rows.epochs and job.numerics != reference.numerics:
        yield f"I6: its numerics are {job.numerics}, not {reference.numerics}"
    series = [timeless(row) for row in rows.epochs]
    for epoch, (found, wanted) in enumerate(zip(series, reference.series, strict=False), 1):
        if found != wanted:
            yield f"I6: epoch {epoch} is {found}, undisturbed {wanted}"
    if job.state == "succeeded" and weights(rows) != reference.weights:
        yield f"I6: its weights are {weights(rows)}, undisturbed {reference.weights}"


def timeless(row: Epoch) -> dict[str, Any]:
    """Return a row without what depends on the clock."""
    return {name: value for name, value in json.loads(row.body).items() if name not in TIMINGS}


def weights(rows: Rows) -> dict[str, str]:
    """Return the digests of the job's weights by name."""
    return {one.name: one.sha256 for one in rows.artifacts if one.name in WEIGHTS}


def reference(rows: Rows) -> Reference:
    """Return what an undisturbed job left."""
    assert rows.job.numerics is not None
    return Reference(rows.job.numerics, weights(rows), [timeless(row) for row in rows.epochs])


def stored(rows: Rows, evidence: Evidence) -> Iterator[str]:
    """I8."""
    named = {one.key: one.sha256 for one in rows.artifacts}
    job = rows.job
    if job.checkpoint_key is not None and job.checkpoint_digest is not None:
        named[job.checkpoint_key] = job.checkpoint_digest
    if job.previous_checkpoint is not None:
        named[job.previous_checkpoint["key"]] = job.previous_checkpoint["digest"]
    for key, digest in named.items():
        path = evidence.artifacts / key
        found = digests.of_file(path, digest) if path.is_file() else None
        if found != digest:
            yield f"I8: {key} has digest {found}, its row says {digest}"
    with evidence.database.session_scope(write=False) as session:
        kept = references.kept(session, [job.id])[job.id].keys
    folder = evidence.artifacts / "jobs" / job.id
    for path in (path for path in folder.rglob("*") if path.is_file()):
        key = path.relative_to(evidence.artifacts).as_posix()
        if path.name != LOG and key not in kept:
            yield f"I8: nothing points to {key}"


def leaked(evidence: Evidence) -> Iterator[str]:
    """I10, the part about secrets."""
    words = [secret.encode() for secret in evidence.secrets]
    for path in (path for path in evidence.written.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if any(word in data for word in words):
            yield f"I10: {path} holds a secret"
