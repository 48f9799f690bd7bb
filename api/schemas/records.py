"""What a job leaves behind while it runs: rows, decisions, events, attempts, artifacts."""

from typing import Any, Literal

from pydantic import ConfigDict

from api.schemas.base import Body, Instant, Json
from core.db.tables import Artifact, Attempt, Decision, Event


class EarlyStoppingCheck(Body):
    """What early stopping made of an epoch."""

    monitor: str
    value: float | None
    best: float | None
    best_epoch: int | None
    wait: int
    patience: int
    improved: bool
    action: Literal["continue", "stop"]
    reason: str | None


class MetricsRow(Body):
    """One epoch. A value that is not finite is null, and `non_finite` names it: `{"train.loss": "nan"}`."""

    model_config = ConfigDict(extra="allow", json_schema_serialization_defaults_required=False)

    epoch: int
    """Finished epochs, from 1."""
    step: int
    """Optimizer updates since the job began."""
    train: Json
    """`loss` and the spec's metrics, means weighted by samples."""
    val: Json | None
    lr: list[float]
    """Of each parameter group."""
    grad_norm: float | None = None
    """Before clipping."""
    seconds: float | None = None
    samples_per_second: float | None = None
    profile: dict[str, float] | None = None
    """Seconds of batch, forward, loss, backward and update; only where the spec says `profile`."""
    early_stopping: EarlyStoppingCheck | None = None
    attempt: int
    recorded_at: Instant


class DecisionBody(Body):
    """Something that epochd decided, with the numbers that caused it (they stand beside `kind`)."""

    model_config = ConfigDict(extra="allow")

    id: int
    kind: str
    """`early_stopping`, `lr_cut`, `diagnosis`, `rollback`, `numerics_changed`, …"""
    epoch: int | None
    attempt: int
    recorded_at: Instant


class EventBody(Body):
    """Something that happened to a job; ids rise."""

    id: int
    object: Literal["event"] = "event"
    type: str
    """`job.created`, `job.claimed`, `job.epoch`, …"""
    job: str
    is_terminal: bool
    """The job's last event."""
    data: dict[str, Any]
    recorded_at: Instant


class AttemptBody(Body):
    """One execution of a job."""

    number: int
    worker: str
    host: str
    device: str
    from_epoch: int
    to_epoch: int | None
    started_at: Instant
    ended_at: Instant | None
    outcome: str | None
    """`succeeded`, `failed`, `cancelled`, `paused`, `drained`, `crashed`, `lost`; null while it runs."""
    code: str | None
    """Why, in one word."""
    message: str | None
    exit_code: int | None
    signal: int | None
    max_rss_bytes: int | None


class ArtifactBody(Body):
    """A file that a job left."""

    name: str
    object: Literal["artifact"] = "artifact"
    size_bytes: int
    sha256: str
    created_at: Instant
    href: str
    """Where its bytes are."""


def decision_body(row: Decision) -> DecisionBody:
    """Return a row as it stands on the wire."""
    known = {"id": row.id, "kind": row.kind, "epoch": row.epoch, "attempt": row.attempt, "recorded_at": row.recorded_at}
    return DecisionBody.model_validate({**row.body, **known})


def event_body(row: Event) -> EventBody:
    """Return a row as it stands on the wire."""
    return EventBody(
        id=row.id,
        type=row.type,
        job=row.job_id,
        is_terminal=row.is_terminal,
        data=row.body,
        recorded_at=row.recorded_at,
    )


def attempt_body(row: Attempt) -> AttemptBody:
    """Return a row as it stands on the wire."""
    return AttemptBody(
        number=row.number,
        worker=row.worker_id,
        host=row.host,
        device=row.device,
        from_epoch=row.from_epoch,
        to_epoch=row.to_epoch,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        code=row.code,
        message=row.message,
        exit_code=row.exit_code,
        signal=row.signal,
        max_rss_bytes=row.max_rss_bytes,
    )


def artifact_body(row: Artifact) -> ArtifactBody:
    """Return a row as it stands on the wire."""
    return ArtifactBody(
        name=row.name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        href=f"/v1/jobs/{row.job_id}/artifacts/{row.name}",
    )
