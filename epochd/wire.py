"""The shapes on the wire, as typed dictionaries: what the service answers is handed on as it came.

A newer service may send more keys than these name; they are kept.
"""

from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

T = TypeVar("T")

Status = Literal["queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"]
Spec = dict[str, Any]


class FieldProblem(TypedDict):
    """One thing wrong with one place of a request body; `fix` is a JSON Patch."""

    pointer: str
    code: str
    detail: str
    hint: NotRequired[str]
    fix: NotRequired[list[dict[str, Any]]]


class Problem(TypedDict, total=False):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem]
    allowed_actions: list[str]


class Progress(TypedDict, total=False):
    """Where a running job is."""

    epoch: int
    epochs: int
    step: int
    steps: int
    fraction: float | None
    eta_seconds: float | None
    samples_per_second: float | None


class Best(TypedDict):
    """The best epoch by the monitored metric."""

    epoch: int
    monitor: str
    value: float | None


class Saved(TypedDict):
    """What a job spared by ending before its last epoch."""

    epochs: int
    seconds: float


class JobError(TypedDict, total=False):
    """Why a job failed."""

    code: str
    message: str
    category: str
    retryable: bool
    attempt: int


class Job(TypedDict):
    """A submitted job and where it stands."""

    id: str
    object: Literal["job"]
    name: str | None
    metadata: dict[str, str]
    status: Status
    stage: str | None
    is_terminal: bool
    stop_reason: str | None
    error: JobError | None
    progress: Progress | None
    best: Best | None
    saved: NotRequired[Saved | None]
    """Of a job that its own spec ended early."""
    latest_metrics: dict[str, Any] | None
    test_metrics: dict[str, Any] | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    queued_seconds: float | None
    attempt: int
    spec_digest: str
    spec: Spec
    resolved_spec: Spec | None
    next_poll_seconds: float | None


class StoppingCheck(TypedDict, total=False):
    """One early-stopping check."""

    monitor: str
    value: float | None
    best: float | None
    best_epoch: int | None
    wait: int
    patience: int
    improved: bool
    action: Literal["continue", "stop"]
    reason: str | None


class Row(TypedDict):
    """One epoch's metrics. Once read it never changes."""

    epoch: int
    step: int
    train: dict[str, Any]
    val: dict[str, Any] | None
    lr: list[float]
    grad_norm: NotRequired[float | None]
    seconds: float
    samples_per_second: float | None
    profile: NotRequired[dict[str, float]]
    """Seconds of batch, forward, loss, backward and update, where the spec asks for it."""
    early_stopping: StoppingCheck | None
    non_finite: NotRequired[dict[str, str]]
    """Names each value that is null because it is not finite: `{"train.loss": "nan"}`."""
    attempt: int
    recorded_at: str


class Report(TypedDict):
    """Preflight's answer."""

    ok: bool
    errors: list[FieldProblem]
    warnings: list[FieldProblem]
    summary: dict[str, Any] | None
    resolved_spec: Spec | None


class Artifact(TypedDict):
    """A file that a job left."""

    name: str
    sha256: str
    size_bytes: int


class ApiKey(TypedDict):
    """A caller's key; `key` is the secret, answered once, when it is made."""

    id: str
    name: str
    project: str
    scopes: list[str]
    hint: str
    created_at: str
    last_used_at: str | None
    revoked_at: str | None
    key: NotRequired[str]


class Page(TypedDict, Generic[T]):
    """One page of a list."""

    object: Literal["list"]
    data: list[T]
    has_more: bool
    first_id: NotRequired[str | None]
    last_id: NotRequired[str | None]
