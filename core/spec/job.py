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
MAX_NAME = 200
"""Characters of names that are no free text: of components and metrics."""
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

    type: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
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
    """Where it is taken from."""
    fraction: Number = Field(gt=0, lt=1)
    """Share of the training set's samples. Parts for `val` and `test` never share a sample."""
    stratify: bool = False
    """Keep the share of every class; only for classification."""


Split = Annotated[
    Annotated[DataSplit, Tag(CHOICE + "split")] | Annotated[Named, Tag(CHOICE + "source")],
    Discriminator(_split_or_source),
]


class Columns(Part):
    """Which columns of a table are what."""

    features: Annotated[Items[str], Field(min_length=1)] | None = None
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
    """Feature columns that hold categories although they may look like numbers."""
    group_by: str | None = None
    """Samples with the same value here stay in the same split."""
    order_by: str | None = None
    """Split along this column (later values go to `val` and `test`) instead of at random."""


class Transforms(Part):
    """`torchvision.transforms.v2` for the training set and for the others."""

    train: Items[Named] = ()
    """Applied to training batches, in order; random ones draw anew for every sample and epoch."""
    eval: Items[Named] = ()
    """Applied to validation and test batches and to new samples; no random ones."""


class Data(Part):
    """On what the model is trained and judged."""

    train: Named
    """The source of the training set."""
    val: Split | None = None
    """The validation set: a source, or a part of `train`. Without one there are no val rows."""
    test: Split | None = None
    """The test set, looked at once at the end: a source, or a part of `train`. Without one there are no
    test metrics."""
    columns: Columns | None = None
    """Roles of a table's columns. Default: all are features but one called `target`, `label` or `class`."""
    preprocess: Items[Named] = ()
    """`sklearn.preprocessing` and `sklearn.impute` steps, fitted on train only."""
    transforms: Transforms | None = None
    """`torchvision.transforms.v2` on batches."""
    max_samples: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    """Use only so many samples of each set (smoke runs). Default all."""


class LossTerm(Component):
    """One of several losses, which are added."""

    coefficient: Number = 1.0
    """Factor of this loss in the sum."""


NamedTerm = Annotated[LossTerm, BeforeValidator(_from_name, json_schema_input_type=LossTerm | str)]


class Regularization(Part):
    """Adds `l1·Σ|w| + l2·Σw²` to the loss. Rows of train have `loss`, and its terms `data_loss` and `penalty`."""

    l1: Number = Field(default=0.0, ge=0)
    """Coefficient of the sum of absolute weights."""
    l2: Number = Field(default=0.0, ge=0)
    """Coefficient of the sum of squared weights."""
    exclude: Items[str] = ()
    """Parameters whose name contains one of these are left out, such as `"bias"`."""


class GradientClipping(Part):
    """By norm (`max_norm`, `norm_type`) or by value (`clip_value`)."""

    max_norm: Number | None = Field(default=None, gt=0)
    """Scale the gradients so that their total norm is at most this."""
    norm_type: Number = Field(default=2.0, gt=0)
    """The p of the norm."""
    clip_value: Number | None = Field(default=None, gt=0)
    """Clamp every gradient element to ±this."""


class Ema(Part):
    """Exponential moving average of the weights, used for validation and as the result."""

    decay: Number = Field(default=0.999, gt=0, lt=1)
    """`ema = decay·ema + (1 - decay)·weights` after every step."""


class Swa(Part):
    """Stochastic weight averaging from `start_epoch` on."""

    start_epoch: int = Field(ge=1, le=MAX_EPOCHS)
    """First epoch whose weights enter the average."""
    lr: Number | None = Field(default=None, gt=0)
    """Learning rate while averaging. Default: the scheduler's."""


class EarlyStopping(Part):
    """When to stop before `epochs`.

    1. There is one check after each validation of the monitor; `patience` counts checks.
    2. Better means strictly better than the best by more than `min_delta`; equal is not better. The first finite
       value is.
    3. The first of these decides, and is recorded: not finite, diverged, threshold reached, improved, counted.
    4. Before `start_from_epoch` the best is tracked and nothing counts. After a plateau's cut of the learning rate,
       `cooldown` checks do not count and the counter is 0. Until `baseline` is beaten, improvements do not reset it.
    5. The job stops when the counter reaches `patience`: `succeeded`, with `stop_reason` `early_stopping`.
    6. With `restore_best` the weights, test metrics and artifacts are the best epoch's, whatever ended the job; the
       last weights stay available as `last.safetensors`.
    7. Every check is a decision: epoch, monitor, value, best, best_epoch, required, improved, wait, patience, action,
       reason. The state is in every checkpoint, so a resumed job decides as an undisturbed one would.
    """

    monitor: str = Field(default="val_loss", min_length=1, max_length=MAX_NAME)
    """Metric to watch, such as `val_loss` or `val_accuracy`."""
    mode: Mode | None = None
    """Whether less (`min`) or more (`max`) is better. Default from the metric."""
    patience: int = Field(default=5, ge=1, le=MAX_EPOCHS)
    """Checks without improvement before the job stops."""
    min_delta: Number = Field(default=0.0, ge=0)
    """Better means better by more than this."""
    min_delta_mode: Literal["abs", "rel"] = "abs"
    """`abs`: `min_delta` itself; `rel`: `min_delta·|best|`."""
    start_from_epoch: int = Field(default=0, ge=0, le=MAX_EPOCHS)
    """Before this epoch the best is tracked and nothing counts."""
    baseline: Number | None = None
    """Until this value is beaten, improvements do not reset the counter."""
    stopping_threshold: Number | None = None
    """Good enough: stop when the monitor reaches it."""
    divergence_threshold: Number | None = None
    """Hopeless: stop when the monitor is worse than it."""
    check_finite: bool = True
    """Stop when the monitor is NaN or infinite."""
    restore_best: bool = True
    """Final weights are the best epoch's, whatever ended the job."""
    cooldown: int = Field(default=0, ge=0, le=MAX_EPOCHS)
    """Checks after a plateau's learning-rate cut that do not count."""


class Converged(Part):
    """The monitor moved less than `tolerance` over the last `window` values."""

    window: int = Field(default=5, ge=2, le=MAX_EPOCHS)
    """Number of last values looked at."""
    tolerance: Number = Field(default=1e-4, gt=0)
    """Largest minus smallest of them must be less than this."""


class StopWhen(Part):
    """Good enough (`below`/`above`) or no longer moving (`converged`)."""

    monitor: str = Field(min_length=1, max_length=MAX_NAME)
    """Metric to watch, such as `val_loss`."""
    below: Number | None = None
    """Stop when the monitor is less than this."""
    above: Number | None = None
    """Stop when the monitor is more than this."""
    converged: Converged | None = None
    """Stop when the monitor no longer moves."""


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
    """Number of best weights that the job leaves: `model.safetensors`, then `best-2.safetensors` and so on by the
    monitor's value. Copies are held in memory and in every checkpoint."""
    keep_last: int = Field(default=1, ge=1, le=1000)
    """Number of newest weights that the job leaves: `last.safetensors`, then `last-2.safetensors` and so on, as they
    were after the epochs before (with `every`, after every so many epochs). Copies are held likewise."""
    every: Annotated[
        Annotated[Literal["auto"], Tag(CHOICE + "word")] | Annotated[CheckpointEvery, Tag(CHOICE + "object")],
        Discriminator(_word_or_object),
    ] = "auto"
    """`{"epochs": n}`, or `auto`: after every epoch, but not more than twice a second and one at a time."""


class Execution(Part):
    """How a job runs, not what it computes."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` takes a GPU where there is one."""
    gpus: int = Field(default=1, ge=1, le=1024)
    """Number of GPUs of one attempt."""
    queue: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    """Queue whose workers may take the job. Default by device: `cpu` or `gpu`."""
    priority: int = Field(default=0, ge=-10, le=10)
    """Jobs of a queue with a higher one go first."""
    max_runtime_seconds: Number | None = Field(default=None, gt=0)
    """Active training time, pauses and waiting not counted, after which the job is stopped."""
    max_attempts: int | None = Field(default=None, ge=1, le=1000)
    """Executions before a job that keeps crashing is given up. Default: three crashes without progress."""
    threads: int | None = Field(default=None, ge=1, le=512)
    """CPU threads of the trainer. Default chosen by the size of the model."""


class JobSpec(Part):
    """A training job: the five fields `model`, `loss`, `optimizer`, `epochs`, `batch_size` on `data`."""

    name: str | None = Field(default=None, max_length=200)
    """Free text for people."""
    metadata: dict[str, str] = Field(default_factory=dict[str, str], max_length=16)
    """Strings of your own, by name."""
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
    """L1 and L2 terms added to the loss."""
    optimizer: Named
    """A `torch.optim` class with its arguments; `param_groups: [{"match": "^fc\\\\.", "lr": 0.1}]`."""
    lr_scheduler: Named | None = None
    """A `torch.optim.lr_scheduler` class; `interval` is `epoch` or `step`. Without one
    the rate is constant."""
    epochs: int = Field(ge=1, le=MAX_EPOCHS)
    """Passes over the training set."""
    max_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    """Optimizer updates after which the job ends, even in mid-epoch."""
    batch_size: Annotated[
        Annotated[int, Field(ge=1, le=MAX_STEPS), Tag(CHOICE + "number")]
        | Annotated[Literal["full"], Tag(CHOICE + "word")],
        Discriminator(_word_or_number),
    ]
    """Samples per batch, or `full`: the whole training set in one."""
    shuffle: bool = True
    """A new order of the samples in every epoch, from `seed`."""
    drop_last: bool = False
    """Leave out the last batch when it is smaller."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    """Number format of weights (`true`) or of the forward pass (`mixed`)."""
    gradient_clipping: GradientClipping | None = None
    """Limit of the gradients before each update."""
    accumulate_grad_batches: int = Field(default=1, ge=1, le=MAX_STEPS)
    """Batches per optimizer update, weighted by samples."""
    ema: Ema | None = None
    """Moving average of the weights."""
    swa: Swa | None = None
    """Average of late weights."""
    metrics: Annotated[Items[Named], Field(max_length=100)] | None = None
    """Computed beside the loss for every set. Default by task."""
    early_stopping: EarlyStopping | None = None
    """When to stop before `epochs`."""
    stop_when: (
        Annotated[
            Annotated[StopWhen, Tag(CHOICE + "one")]
            | Annotated[Items[StopWhen], Field(max_length=100), Tag(CHOICE + "list")],
            Discriminator(_list_or_one),
        ]
        | None
    ) = None
    """Good enough, or no longer moving: the first condition that holds ends the job."""
    validate_every: ValidateEvery = ValidateEvery(epochs=1)
    """How often the validation set is looked at."""
    evaluate_at_start: bool = False
    """A row for epoch 0, before the first update."""
    checkpoints: Checkpoints = Checkpoints()
    """What is kept to resume from and to return."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Of initial weights, order, splits, dropout and random transforms. Default generated and returned."""
    deterministic: bool = False
    """Refuse operations without a deterministic form."""
    compile: Annotated[
        Annotated[Literal["auto"], Tag(CHOICE + "word")] | Annotated[bool, Tag(CHOICE + "switch")],
        Discriminator(_word_or_switch),
    ] = "auto"
    """Compile whole updates (on a GPU the model): other last bits. `auto`: only what leaves every bit as it is."""
    profile: bool = False
    """Time of batch, forward, loss, backward and update in every row."""
    execution: Execution = Execution()
    """How the job runs, not what it computes; not part of the digest."""
