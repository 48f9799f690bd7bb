"""What a supervisor and its trainer say to each other: JSON lines, one object a line, both ways.

The supervisor sends one `TrainOrder` first, then at most one `Stop`; end-of-file means "your supervisor is gone".
The trainer answers with the other messages, in the order in which they happened. Files are named by their path
inside the attempt's folder, and stand there, fsynced, before the line that names them is written.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

StopReason = Literal[
    "completed", "max_steps", "early_stopping", "stopping_threshold", "converged",
    "time_limit", "cancelled", "diverged", "non_finite", "error",
]  # fmt: skip
Stage = Literal["starting", "loading_data", "training", "validating", "testing", "saving"]


class Message(BaseModel):
    """A line on the pipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRef(Message):
    """A finished file in the attempt's folder."""

    name: str
    sha256: str
    size_bytes: int


class CheckpointRef(Message):
    """A checkpoint file in the attempt's folder, and how far it got."""

    name: str
    digest: str
    """As `core.digests` writes it."""
    size_bytes: int
    epoch: int
    """Finished epochs that it holds."""
    step: int
    """Optimizer updates since the job began."""


class DatasetFile(Message):
    """An upload that the spec names, as a local file."""

    path: str
    format: str
    sha256: str


class TrainOrder(Message):
    """Everything an attempt needs. No credential is in it."""

    type: Literal["order"] = "order"
    job_id: str
    attempt: int
    spec: dict[str, Any]
    """The resolved spec where there is one, else the spec as posted."""
    folder: str
    """The attempt's own folder; the trainer writes nowhere else but `cache_dir`."""
    cache_dir: str
    datasets_dir: str
    datasets: dict[str, DatasetFile] = {}
    """Uploads by `"<dataset id>@<version>"`."""
    checkpoints: list[str] = []
    """Paths to resume from, the best choice first; their digests stand in `checkpoint_digests`."""
    checkpoint_digests: list[str] = []
    published_epochs: int = 0
    """Rows 1…k are in the database: never send them again."""
    device: str = "cpu"
    """`"cpu"` or `"cuda:<index>"`."""
    threads: int | None = None
    """Threads of the first attempt (resume uses the same); none: choose."""
    numerics: dict[str, Any] | None = None
    """The numerics fingerprint of the first attempt."""
    active_seconds: float = 0.0
    """Training time used by earlier attempts, counted against `max_runtime_seconds`."""
    max_parameters: int = 1_000_000_000


class Stop(Message):
    """Finish the current step, write a checkpoint, exit."""

    type: Literal["stop"] = "stop"
    reason: Literal["pause", "cancel", "drain", "outage"]


class Started(Message):
    """The plan stands: what will run, and on what."""

    type: Literal["started"] = "started"
    resolved_spec: dict[str, Any]
    numerics: dict[str, Any]
    """`{"device", "threads", "isa", "cpu", "cpu_flags", "torch", "torchvision"}`."""
    from_epoch: int
    """Finished epochs at the start: 0, or the checkpoint's."""
    warnings: list[dict[str, Any]] = []


class StageChanged(Message):
    """The job's stage, for people who watch."""

    type: Literal["stage"] = "stage"
    stage: Stage


class Progress(Message):
    """Where it is; at most once a second."""

    type: Literal["progress"] = "progress"
    epoch: int
    epochs: int
    step: int
    steps: int
    samples_per_second: float | None = None


class Publish(Message):
    """Finished epochs together with the checkpoint that holds them: one transaction."""

    type: Literal["publish"] = "publish"
    checkpoint: CheckpointRef
    rows: list[dict[str, Any]]
    """Metrics rows of rest.md without `attempt` and `recorded_at`, epochs rising; empty for one in mid-epoch."""
    decisions: list[dict[str, Any]] = []
    """`{"kind": "early_stopping" | "lr_cut" | …, "epoch": int | None, …}`: the other keys are the numbers."""
    best: dict[str, Any] | None = None
    """`{"epoch", "monitor", "value"}`."""
    progress: Progress | None = None
    active_seconds: float = 0.0


class Done(Message):
    """The end of a job that succeeded, or that ended by its own spec (`diverged` is a failure, see `Failed`)."""

    type: Literal["done"] = "done"
    stop_reason: StopReason
    artifacts: list[FileRef]
    best: dict[str, Any] | None = None
    test_metrics: dict[str, Any] | None = None
    decisions: list[dict[str, Any]] = []
    active_seconds: float = 0.0


class Stopped(Message):
    """Answer to `Stop`: everything is in the last published checkpoint."""

    type: Literal["stopped"] = "stopped"
    reason: str
    active_seconds: float = 0.0


class Failed(Message):
    """The trainer knows why it cannot go on."""

    type: Literal["failed"] = "failed"
    code: str
    """`spec_invalid`, `data_invalid`, `non_finite`, `diverged`, `time_limit`, `gpu_oom`, `disk_full`, `oom`,
    `checkpoint_invalid`, `crash`."""
    message: str
    stop_reason: StopReason = "error"
    issues: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    active_seconds: float = 0.0


FromTrainer = Annotated[
    Started | StageChanged | Progress | Publish | Done | Stopped | Failed, Field(discriminator="type")
]
from_trainer: TypeAdapter[FromTrainer] = TypeAdapter(FromTrainer)
