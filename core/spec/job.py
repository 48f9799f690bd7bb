"""The job spec: what users POST. Frozen, unknown keys refused, names are torch's."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]
Mode = Literal["min", "max"]


class Part(BaseModel):
    """A piece of the spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _from_name(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


class Component(BaseModel):
    """`{"type": <class name>, <its own keyword arguments>}`; a bare name stands for one without arguments."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    type: str

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The keyword arguments, as posted."""
        return self.model_extra or {}


Named = Annotated[Component, BeforeValidator(_from_name)]


class DataSplit(Part):
    """A part of the training set, taken away from it before training."""

    source: Literal["train"] = Field(alias="from")
    fraction: Number = Field(gt=0, lt=1)
    stratify: bool = False


class Columns(Part):
    """Which columns of a table are what."""

    features: tuple[str, ...] | None = None
    target: str | tuple[str, ...] | None = None
    categorical: tuple[str, ...] = ()
    group_by: str | None = None
    order_by: str | None = None


class Transforms(Part):
    """`torchvision.transforms.v2` for the training set and for the others."""

    train: tuple[Named, ...] = ()
    eval: tuple[Named, ...] = ()


class Data(Part):
    """On what the model is trained and judged."""

    train: Named
    val: DataSplit | Named | None = None
    test: DataSplit | Named | None = None
    columns: Columns | None = None
    preprocess: tuple[Named, ...] = ()
    transforms: Transforms | None = None
    max_samples: int | None = Field(default=None, ge=1)


class LossTerm(Component):
    """A loss, and its coefficient in the sum."""

    coefficient: Number = 1.0


class Regularization(Part):
    """Adds `l1·Σ|w| + l2·Σw²` to the loss; `exclude` are substrings of parameter names."""

    l1: Number = Field(default=0.0, ge=0)
    l2: Number = Field(default=0.0, ge=0)
    exclude: tuple[str, ...] = ()


class GradientClipping(Part):
    """By norm (`max_norm`, `norm_type`) or by value (`clip_value`)."""

    max_norm: Number | None = Field(default=None, gt=0)
    norm_type: Number = Field(default=2.0, gt=0)
    clip_value: Number | None = Field(default=None, gt=0)


class Ema(Part):
    """Exponential moving average of the weights, used for validation and as the result."""

    decay: Number = Field(default=0.999, gt=0, lt=1)


class Swa(Part):
    """Stochastic weight averaging from `start_epoch` on."""

    start_epoch: int = Field(ge=1)
    lr: Number | None = Field(default=None, gt=0)


class EarlyStopping(Part):
    """When to stop before `epochs`; see docs/spec.md for the exact rules."""

    monitor: str = "val_loss"
    mode: Mode | None = None
    patience: int = Field(default=5, ge=1)
    min_delta: Number = Field(default=0.0, ge=0)
    min_delta_mode: Literal["abs", "rel"] = "abs"
    start_from_epoch: int = Field(default=0, ge=0)
    baseline: Number | None = None
    stopping_threshold: Number | None = None
    divergence_threshold: Number | None = None
    check_finite: bool = True
    restore_best: bool = True
    cooldown: int = Field(default=0, ge=0)


class Converged(Part):
    """The monitor moved less than `tolerance` over the last `window` values."""

    window: int = Field(default=5, ge=2)
    tolerance: Number = Field(default=1e-4, gt=0)


class StopWhen(Part):
    """Good enough (`below`/`above`) or no longer moving (`converged`)."""

    monitor: str
    below: Number | None = None
    above: Number | None = None
    converged: Converged | None = None


class ValidateEvery(Part):
    """How often the validation set is looked at: one of the two."""

    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)


class CheckpointEvery(Part):
    """A checkpoint after every so many epochs."""

    epochs: int = Field(ge=1)


class Checkpoints(Part):
    """What is kept to resume from and to return."""

    keep_best: int = Field(default=1, ge=1)
    keep_last: int = Field(default=1, ge=1)
    every: Literal["auto"] | CheckpointEvery = "auto"


class Execution(Part):
    """How a job runs, not what it computes."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: int = Field(default=1, ge=1)
    queue: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    priority: int = Field(default=0, ge=-10, le=10)
    max_runtime_seconds: Number | None = Field(default=None, gt=0)
    max_attempts: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1, le=512)


class JobSpec(Part):
    """A training job: the five fields `model`, `loss`, `optimizer`, `epochs`, `batch_size` on `data`."""

    name: str | None = Field(default=None, max_length=200)
    metadata: dict[str, str] = Field(default={}, max_length=16)
    task: Literal["classification", "binary", "multilabel", "regression"] | None = None
    data: Data
    model: Component
    """`Sequential` (`layers`), `Graph` (`inputs`, `nodes`, `outputs`) or `torchvision.<name>`; with `weight_init`,
    `bias_init`, `replace`, `freeze`. Nested layers are components in their turn."""
    loss: Named | Annotated[tuple[Annotated[LossTerm, BeforeValidator(_from_name)], ...], Field(min_length=1)]
    regularization: Regularization | None = None
    optimizer: Named
    lr_scheduler: Named | None = None
    epochs: int = Field(ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: Annotated[int, Field(ge=1)] | Literal["full"]
    shuffle: bool = True
    drop_last: bool = False
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    gradient_clipping: GradientClipping | None = None
    accumulate_grad_batches: int = Field(default=1, ge=1)
    ema: Ema | None = None
    swa: Swa | None = None
    metrics: tuple[Named, ...] | None = None
    early_stopping: EarlyStopping | None = None
    stop_when: tuple[StopWhen, ...] | StopWhen | None = None
    validate_every: ValidateEvery = ValidateEvery(epochs=1)
    evaluate_at_start: bool = False
    checkpoints: Checkpoints = Checkpoints()
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    deterministic: bool = False
    compile: Literal["auto"] | bool = "auto"
    profile: bool = False
    execution: Execution = Execution()
