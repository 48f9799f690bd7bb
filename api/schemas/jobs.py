"""Jobs on the wire."""

from typing import Annotated, Any, Literal, cast

from pydantic import Field, StringConstraints

from api.schemas.base import Body, Instant, Json, Wanted
from api.schemas.problem import IssueBody
from core.db.states import Status, is_terminal, wire_status
from core.db.tables import Job
from core.messages import Stage, StopReason

POLL_SECONDS: dict[Status, float] = {
    "queued": 1.0,
    "running": 1.0,
    "pausing": 0.5,
    "paused": 5.0,
    "cancelling": 0.5,
}
"""How soon a look at the job is worth it; a client that can, uses `Prefer: wait`."""
ENDED_EARLY = frozenset({"early_stopping", "stopping_threshold", "converged"})
"""Reasons to stop that a spec names to save time; `max_steps` and `time_limit` are how much was asked for."""


class JobError(Body):
    """Why a job failed."""

    code: str
    """`spec_invalid`, `data_invalid`, `non_finite`, `diverged`, `time_limit`, `gpu_oom`, `disk_full`, `poison`, …"""
    message: str
    category: str | None = None
    """Whose it is: `user`, `system` or `infrastructure`."""
    retryable: bool | None = None
    """Whether the same job may succeed when it is posted again."""
    attempt: int | None = None


class Progress(Body):
    """How far a job is."""

    epoch: int = 0
    """Finished epochs."""
    epochs: int | None = None
    step: int | None = None
    """Optimizer updates since the job began."""
    steps: int | None = None
    """Updates that all epochs would take."""
    fraction: float = 0.0
    """Between 0 and 1; early stopping may end the job before 1."""
    eta_seconds: float | None = None
    samples_per_second: float | None = None


class Best(Body):
    """The best epoch so far."""

    epoch: int
    monitor: str
    value: float | None


class Saved(Body):
    """What a job spared by ending before its last epoch."""

    epochs: int
    """That were not trained."""
    seconds: float
    """That they would have taken, each as long as those before on average."""


class JobBody(Body):
    """A job: what was submitted, and where it stands."""

    id: str
    object: Literal["job"] = "job"
    name: str | None
    metadata: dict[str, str]
    status: Status
    stage: Stage | None
    """While it runs."""
    is_terminal: bool
    """Nothing will change any more."""
    stop_reason: StopReason | None
    error: JobError | None
    progress: Progress
    best: Best | None
    saved: Saved | None
    """Of a job that its own spec ended early: early stopping, a threshold, or because nothing moved any more."""
    latest_metrics: Json | None
    """The newest row of `/metrics`."""
    test_metrics: Json | None
    """Of the final weights on the test set, looked at once."""
    created_at: Instant
    started_at: Instant | None
    """When its first attempt began."""
    finished_at: Instant | None
    queued_seconds: float | None
    """From its creation to its first attempt (or its end, without one); null while it waits."""
    attempt: int
    """Executions begun so far."""
    priority: int
    queue: str
    spec_digest: str
    """SHA-256 of the canonical spec without `name`, `metadata` and `execution`."""
    spec: Json
    resolved_spec: Json | None
    """With every default, inferred size, the seed and the device; null until preflight or the trainer found them."""
    next_poll_seconds: float | None
    """How long to wait before the next look; null: nothing will change any more."""


class JobEdit(Wanted):
    """What may be changed of a job at any time; what is left out stays."""

    name: Annotated[str, StringConstraints(max_length=200)] | None = None
    metadata: dict[str, str] = Field(default_factory=dict[str, str], max_length=16)
    priority: int = Field(default=0, ge=-10, le=10)


class LayerSummary(Body):
    """One layer, as preflight saw it."""

    pointer: str
    type: str
    input_shape: Any
    output_shape: Any
    parameters: int


class Summary(Body):
    """What training this spec means."""

    parameters: int
    trainable_parameters: int
    layers: list[LayerSummary]
    steps_per_epoch: int | None = None
    flops_per_sample: float | None = None
    memory_bytes: int | None = None


class PreflightBody(Body):
    """What preflight found."""

    ok: bool
    errors: list[IssueBody]
    warnings: list[IssueBody]
    summary: Summary | None
    """Null where the model could not be built."""
    resolved_spec: Json | None


def job_body(job: Job) -> JobBody:
    """Return a row as it stands on the wire: a pure function of the row, so that its version can be the ETag."""
    status = wire_status(job)
    began = job.started_at or job.finished_at
    return JobBody(
        id=job.id,
        name=job.name,
        metadata=job.labels,
        status=status,
        stage=cast("Stage | None", job.stage),
        is_terminal=is_terminal(job),
        stop_reason=cast("StopReason | None", job.stop_reason),
        error=JobError.model_validate(job.error) if job.error else None,
        progress=progress_body(job),
        best=Best.model_validate(job.best) if job.best else None,
        saved=_saved(job),
        latest_metrics=job.latest_metrics,
        test_metrics=job.test_metrics,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        queued_seconds=None if began is None else max(0.0, (began - job.created_at).total_seconds()),
        attempt=job.attempt,
        priority=job.priority,
        queue=job.queue,
        spec_digest=job.spec_digest,
        spec=job.spec,
        resolved_spec=job.resolved_spec,
        next_poll_seconds=POLL_SECONDS.get(status),
    )


def progress_body(job: Job) -> Progress:
    """Return how far a job is: by updates where the trainer has told them, else by epochs."""
    told = job.progress or {}
    epochs, step, steps = told.get("epochs") or job.spec.get("epochs"), told.get("step"), told.get("steps")
    epoch = max(job.epochs_done, told.get("epoch") or 0)
    speed = told.get("samples_per_second")
    fraction = step / steps if step and steps else epoch / epochs if epochs else 0.0
    fraction = 1.0 if job.state == "succeeded" else min(1.0, fraction)
    return Progress(
        epoch=epoch,
        epochs=epochs,
        step=step,
        steps=steps,
        fraction=fraction,
        eta_seconds=told.get("eta_seconds") if told.get("eta_seconds") is not None else _eta(job, fraction),
        samples_per_second=speed,
    )


def _saved(job: Job) -> Saved | None:
    epochs = (job.progress or {}).get("epochs") or job.spec.get("epochs")
    if job.stop_reason not in ENDED_EARLY or not epochs or not job.epochs_done:
        return None
    left = max(0, epochs - job.epochs_done)
    return Saved(epochs=left, seconds=round(left * job.active_seconds / job.epochs_done, 3))


def _eta(job: Job, fraction: float) -> float | None:
    """Return the active time so far, extended to what is left, where the job runs and has got somewhere."""
    if job.state != "running" or fraction <= 0 or job.active_seconds <= 0:
        return None
    return round(job.active_seconds * (1 - fraction) / fraction, 3)
