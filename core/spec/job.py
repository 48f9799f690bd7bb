"""The job spec: what users POST. Frozen, strict, unknown keys refused, names are torch's.

Strict means that a value has the JSON type of its field: `"5"` is not 5 and `true` is not 1. Lists become tuples.
Where a field takes one of two shapes, the shape of the value chooses which is meant, so that an error stands at the
place that is wrong and not at every alternative. `core.spec.parse` adds what types cannot say.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Strict, Tag

T = TypeVar("T")

Number = Annotated[float, Field(allow_inf_nan=False)]
Items = Annotated[tuple[T, ...], Strict(strict=False)]
"""A JSON array; its items are as strict as everything else."""
Mode = Literal["min", "max"]
TaskName = Literal["classification", "binary", "multilabel", "regression"]

CHOICE = "\0"
"""First character of the tags below: no key of a decoded body has it, so tags can be told from keys in error paths."""
MAX_EPOCHS = 10_000_000
MAX_STEPS = 2**53


class Part(BaseModel):
    """A piece of the spec."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _from_name(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


class Component(BaseModel):
    """`{"type": <class name>, <its own keyword arguments>}`; a bare name stands for one without arguments."""

    model_config = ConfigDict(
        frozen=True, extra="allow", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    type: Annotated[str, Field(min_length=1, max_length=200)]
    """Name in the catalog (`GET /v1/components`)."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The keyword arguments, as posted."""
        return self.model_extra or {}


Named = Annotated[Component, BeforeValidator(_from_name, json_schema_input_type=Component | str)]


def _split_or_source(value: object) -> str:
    """A split says `from`; everything else is meant as a source."""
    is_split = isinstance(value, DataSplit) or (isinstance(value, dict) and "from" in value)
    return CHOICE + ("split" if is_split else "source")


def _list_or_one(value: object) -> str:
    return CHOICE + ("list" if isinstance(value, (list, tuple)) else "one")


def _word_or_number(value: object) -> str:
    is_word = isinstance(value, str) and not value.strip().lstrip("-").isdigit()
    return CHOICE + ("word" if is_word else "number")


def _word_or_object(value: object) -> str:
    return CHOICE + ("object" if isinstance(value, (dict, BaseModel)) else "word")


def _word_or_switch(value: object) -> str:
    return CHOICE + ("word" if value == "auto" else "switch")


class DataSplit(Part):
    """A part of the training set, taken away from it before training."""

    source: Literal["train"] = Field(alias="from")
    """Where it is taken from; `"train"`."""
    fraction: Number = Field(gt=0, lt=1)
    """Share of the training set's samples, between 0 and 1. Parts for `val` and `test` never share a sample."""
    stratify: bool = False
    """Keep the share of every class; only for classification. Default false."""


Split = Annotated[
    Annotated[DataSplit, Tag(CHOICE + "split")] | Annotated[Named, Tag(CHOICE + "source")],
    Discriminator(_split_or_source),
]


class Columns(Part):
    """Which columns of a table are what."""

    features: Items[str] | None = None
    """Names of the feature columns, in order. Default: all but the target."""
    target: (
        Annotated[
            Annotated[str, Tag(CHOICE + "one")] | Annotated[Items[str], Field(min_length=1), Tag(CHOICE + "list")],
            Discriminator(_list_or_one),
        ]
        | None
    ) = None
    """Name of the target column, or several for many outputs. Default: a column
    called `target`, `label` or `class`; any other must be named."""
    categorical: Items[str] = ()
    """Feature columns that hold categories although they may look like numbers. Default none."""
    group_by: str | None = None
    """Samples with the same value here stay in the same split. Default none."""
    order_by: str | None = None
    """Split along this column (later values go to `val` and `test`) instead of at random. Default none."""


class Transforms(Part):
    """`torchvision.transforms.v2` for the training set and for the others."""

    train: Items[Named] = ()
    """Applied to training batches, in order; random ones draw anew for every sample and epoch. Default none."""
    eval: Items[Named] = ()
    """Applied to validation and test batches and to new samples; no random ones. Default none."""


class Data(Part):
    """On what the model is trained and judged."""

    train: Named
    """The source of the training set."""
    val: Split | None = None
    """The validation set: a source, or a part of `train`. Default none: no val rows."""
    test: Split | None = None
    """The test set, looked at once at the end: a source, or a part of `train`. Default none: no test metrics."""
    columns: Columns | None = None
    """Roles of a table's columns. Default: all are features but one called `target`, `label` or `class`."""
    preprocess: Items[Named] = ()
    """`sklearn.preprocessing` and `sklearn.impute` steps, fitted on train only. Default none."""
    transforms: Transforms | None = None
    """`torchvision.transforms.v2` on batches. Default none."""
    max_samples: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    """Use only so many samples of each set (smoke runs). Default all."""


class LossTerm(Component):
    """A loss, and its coefficient in the sum."""

    coefficient: Number = 1.0
    """Factor of this loss in the sum. Default 1."""


NamedTerm = Annotated[LossTerm, BeforeValidator(_from_name, json_schema_input_type=LossTerm | str)]


class Regularization(Part):
    """Adds `l1·Σ|w| + l2·Σw²` to the loss; `exclude` are substrings of parameter names."""

    l1: Number = Field(default=0.0, ge=0)
    """Coefficient of the sum of absolute weights. Default 0."""
    l2: Number = Field(default=0.0, ge=0)
    """Coefficient of the sum of squared weights. Default 0."""
    exclude: Items[str] = ()
    """Parameters whose name contains one of these are left out, such as `"bias"`. Default none."""


class GradientClipping(Part):
    """By norm (`max_norm`, `norm_type`) or by value (`clip_value`)."""

    max_norm: Number | None = Field(default=None, gt=0)
    """Scale the gradients so that their total norm is at most this. Default none."""
    norm_type: Number = Field(default=2.0, gt=0)
    """The p of the norm. Default 2."""
    clip_value: Number | None = Field(default=None, gt=0)
    """Clamp every gradient element to ±this. Default none."""


class Ema(Part):
    """Exponential moving average of the weights, used for validation and as the result."""

    decay: Number = Field(default=0.999, gt=0, lt=1)
    """`ema = decay·ema + (1 - decay)·weights` after every step. Default 0.999."""


class Swa(Part):
    """Stochastic weight averaging from `start_epoch` on."""

    start_epoch: int = Field(ge=1, le=MAX_EPOCHS)
    """First epoch whose weights enter the average."""
    lr: Number | None = Field(default=None, gt=0)
    """Learning rate while averaging. Default: the scheduler's."""


class EarlyStopping(Part):
    """When to stop before `epochs`; one check after each validation of `monitor`."""

    monitor: str = Field(default="val_loss", min_length=1, max_length=200)
    """Metric to watch, such as `val_loss` or `val_accuracy`. Default `val_loss`."""
    mode: Mode | None = None
    """Whether less (`min`) or more (`max`) is better. Default from the metric."""
    patience: int = Field(default=5, ge=1, le=MAX_EPOCHS)
    """Checks without improvement before the job stops. Default 5."""
    min_delta: Number = Field(default=0.0, ge=0)
    """Better means better by more than this. Default 0."""
    min_delta_mode: Literal["abs", "rel"] = "abs"
    """`abs`: `min_delta` itself; `rel`: `min_delta·|best|`. Default `abs`."""
    start_from_epoch: int = Field(default=0, ge=0, le=MAX_EPOCHS)
    """Before this epoch the best is tracked and nothing counts. Default 0."""
    baseline: Number | None = None
    """Until this value is beaten, improvements do not reset the counter. Default none."""
    stopping_threshold: Number | None = None
    """Good enough: stop when the monitor reaches it. Default none."""
    divergence_threshold: Number | None = None
    """Hopeless: stop when the monitor is worse than it. Default none."""
    check_finite: bool = True
    """Stop when the monitor is NaN or infinite. Default true."""
    restore_best: bool = True
    """Final weights are the best epoch's, whatever ended the job. Default true."""
    cooldown: int = Field(default=0, ge=0, le=MAX_EPOCHS)
    """Checks after a plateau's learning-rate cut that do not count. Default 0."""


class Converged(Part):
    """The monitor moved less than `tolerance` over the last `window` values."""

    window: int = Field(default=5, ge=2, le=MAX_EPOCHS)
    """Number of last values looked at. Default 5."""
    tolerance: Number = Field(default=1e-4, gt=0)
    """Largest minus smallest of them must be less than this. Default 1e-4."""


class StopWhen(Part):
    """Good enough (`below`/`above`) or no longer moving (`converged`)."""

    monitor: str = Field(min_length=1, max_length=200)
    """Metric to watch, such as `val_loss`."""
    below: Number | None = None
    """Stop when the monitor is less than this. Default none."""
    above: Number | None = None
    """Stop when the monitor is more than this. Default none."""
    converged: Converged | None = None
    """Stop when the monitor no longer moves. Default none."""


class ValidateEvery(Part):
    """How often the validation set is looked at: one of the two."""

    epochs: int | None = Field(default=None, ge=1, le=MAX_EPOCHS)
    """After every so many epochs."""
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    """After every so many optimizer updates."""


class CheckpointEvery(Part):
    """A checkpoint after every so many epochs."""

    epochs: int = Field(ge=1, le=MAX_EPOCHS)
    """Epochs from one checkpoint to the next."""


class Checkpoints(Part):
    """What is kept to resume from and to return."""

    keep_best: int = Field(default=1, ge=1, le=1000)
    """Number of best checkpoints kept. Default 1."""
    keep_last: int = Field(default=1, ge=1, le=1000)
    """Number of newest checkpoints kept. Default 1."""
    every: Annotated[
        Annotated[Literal["auto"], Tag(CHOICE + "word")] | Annotated[CheckpointEvery, Tag(CHOICE + "object")],
        Discriminator(_word_or_object),
    ] = "auto"
    """`{"epochs": n}`, or `auto`: after every epoch, but not more than twice a second. Default `auto`."""


class Execution(Part):
    """How a job runs, not what it computes."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` takes a GPU where there is one. Default `auto`."""
    gpus: int = Field(default=1, ge=1, le=1024)
    """Number of GPUs of one attempt. Default 1."""
    queue: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    """Queue whose workers may take the job. Default by device: `cpu` or `gpu`."""
    priority: int = Field(default=0, ge=-10, le=10)
    """Jobs of a queue with a higher one go first. Default 0."""
    max_runtime_seconds: Number | None = Field(default=None, gt=0)
    """Active training time, pauses and waiting not counted, after which the job is stopped. Default none."""
    max_attempts: int | None = Field(default=None, ge=1, le=1000)
    """Executions before a job that keeps crashing is given up. Default: three crashes without progress."""
    threads: int | None = Field(default=None, ge=1, le=512)
    """CPU threads of the trainer. Default chosen by the size of the model."""


class JobSpec(Part):
    """A training job: the five fields `model`, `loss`, `optimizer`, `epochs`, `batch_size` on `data`."""

    name: str | None = Field(default=None, max_length=200)
    """Free text for people, at most 200 characters. Default none."""
    metadata: dict[str, str] = Field(default_factory=dict[str, str], max_length=16)
    """Strings of your own, at most 16 entries. Default none."""
    task: TaskName | None = None
    """What is learned. Default from data and loss."""
    data: Data
    """On what the model is trained and judged."""
    model: Named
    """`Sequential` (`layers`), `Graph` (`inputs`, `nodes`, `outputs`) or `torchvision.<name>`; with `weight_init`,
    `bias_init`, `replace`, `freeze`. Nested layers are components in their turn; sizes that follow from the data
    (`in_features`, `in_channels`, `num_features`, …) may be left out."""
    loss: Annotated[
        Annotated[Named, Tag(CHOICE + "one")]
        | Annotated[Items[NamedTerm], Field(min_length=1, max_length=100), Tag(CHOICE + "list")],
        Discriminator(_list_or_one),
    ]
    """A loss, or a list of losses that are added, each times its `coefficient`; `weight: "balanced"` computes
    class weights."""
    regularization: Regularization | None = None
    """L1 and L2 terms added to the loss. Default none."""
    optimizer: Named
    """A `torch.optim` class with its arguments; `param_groups: [{"match": "^fc\\\\.", "lr": 0.1}]`."""
    lr_scheduler: Named | None = None
    """A `torch.optim.lr_scheduler` class; `interval` is `epoch` or `step`. Default none: a constant rate."""
    epochs: int = Field(ge=1, le=MAX_EPOCHS)
    """Passes over the training set."""
    max_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    """Optimizer updates after which the job ends, even in mid-epoch. Default none."""
    batch_size: Annotated[
        Annotated[int, Field(ge=1, le=MAX_STEPS), Tag(CHOICE + "number")]
        | Annotated[Literal["full"], Tag(CHOICE + "word")],
        Discriminator(_word_or_number),
    ]
    """Samples per batch, or `full`: the whole training set in one."""
    shuffle: bool = True
    """A new order of the samples in every epoch, from `seed`. Default true."""
    drop_last: bool = False
    """Leave out the last batch when it is smaller. Default false."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    """Number format of weights (`true`) or of the forward pass (`mixed`). Default `32-true`."""
    gradient_clipping: GradientClipping | None = None
    """Limit of the gradients before each update. Default none."""
    accumulate_grad_batches: int = Field(default=1, ge=1, le=MAX_STEPS)
    """Batches per optimizer update, weighted by samples. Default 1."""
    ema: Ema | None = None
    """Moving average of the weights. Default none."""
    swa: Swa | None = None
    """Average of late weights. Default none."""
    metrics: Annotated[Items[Named], Field(max_length=100)] | None = None
    """Computed beside the loss for every set. Default by task."""
    early_stopping: EarlyStopping | None = None
    """When to stop before `epochs`. Default none."""
    stop_when: (
        Annotated[
            Annotated[StopWhen, Tag(CHOICE + "one")]
            | Annotated[Items[StopWhen], Field(max_length=100), Tag(CHOICE + "list")],
            Discriminator(_list_or_one),
        ]
        | None
    ) = None
    """Good enough, or no longer moving: the first condition that holds ends the job. Default none."""
    validate_every: ValidateEvery = ValidateEvery(epochs=1)
    """How often the validation set is looked at. Default after every epoch."""
    evaluate_at_start: bool = False
    """A row for epoch 0, before the first update. Default false."""
    checkpoints: Checkpoints = Checkpoints()
    """What is kept to resume from and to return. Default the best and the last."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Of initial weights, order, splits, dropout and random transforms. Default generated and returned."""
    deterministic: bool = False
    """Refuse operations without a deterministic form. Default false."""
    compile: Annotated[
        Annotated[Literal["auto"], Tag(CHOICE + "word")] | Annotated[bool, Tag(CHOICE + "switch")],
        Discriminator(_word_or_switch),
    ] = "auto"
    """`torch.compile` the model; `auto` decides by size. Default `auto`."""
    profile: bool = False
    """Time of batch, forward, loss, backward and update in every row. Default false."""
    execution: Execution = Execution()
    """How the job runs, not what it computes; not part of the digest."""
