"""What the fields of a spec ask of each other, and what is allowed but probably not meant."""

from collections.abc import Iterator, Sequence
from typing import Any

from core.errors import Issue
from core.spec import catalog
from core.spec.job import Component, DataSplit, EarlyStopping, JobSpec, Mode, StopWhen, ValidateEvery
from core.spec.pointer import join
from core.spec.wording import quoted, replace

_BETTER_LOW = frozenset({"loss", "error", "log_loss", "mae", "mse", "rmse"})
_BETTER_HIGH = frozenset({"accuracy", "f1", "precision", "recall", "auroc", "r2"})
_OF_SETS = ("train_", "val_", "test_")
_FOR_REGRESSION = frozenset({"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"})


def mode_of(monitor: str) -> Mode | None:
    """Return whether less or more of a metric is better, by its name; none for an unknown metric.

    `val_loss` and `train_rmse` are better when low, `val_accuracy` and `val_accuracy_top5` when high.
    """
    name = next((monitor.removeprefix(prefix) for prefix in _OF_SETS if monitor.startswith(prefix)), monitor)
    if name in _BETTER_LOW or name.endswith(("_loss", "_error")):
        return "min"
    stem = name.split("_")[0]
    return "max" if name in _BETTER_HIGH or stem in _BETTER_HIGH else None


def violations(spec: JobSpec) -> Iterator[Issue]:
    """Say which fields contradict each other."""
    yield from _splits(spec)
    yield from _clipping(spec)
    yield from _validation(spec)
    yield from _stopping(spec)
    yield from _devices(spec)
    yield from _repeated(spec)
    if spec.swa and spec.swa.start_epoch > spec.epochs:
        detail = f"SWA starts at epoch {spec.swa.start_epoch}, after the last one ({spec.epochs})."
        yield Issue("/swa/start_epoch", "never_reached", detail)


def warnings(spec: JobSpec) -> list[Issue]:
    """Return what is allowed but probably not meant; nothing here stops a job."""
    return [*_double_decay(spec), *_patience(spec), *_idle(spec), *_not_yet(spec)]


def _not_yet(spec: JobSpec) -> Iterator[Issue]:
    """Name what a spec may say but this version does not do."""
    if spec.execution.gpus > 1:
        yield Issue("/execution/gpus", "no_effect", "This version trains on one GPU.")


def _idle(spec: JobSpec) -> Iterator[Issue]:
    """Name what changes nothing beside the other fields."""
    clipping, penalty, early = spec.gradient_clipping, spec.regularization, spec.early_stopping
    plateau = spec.lr_scheduler is not None and spec.lr_scheduler.type == "ReduceLROnPlateau"
    found = {
        "/gradient_clipping/norm_type": (
            clipping is not None and clipping.max_norm is None and clipping.norm_type != 2,
            "Clipping by value takes no norm.",
        ),
        "/regularization": (penalty is not None and penalty.l1 == penalty.l2 == 0, "Neither l1 nor l2 is above 0."),
        "/validate_every": (
            spec.data.val is None and spec.validate_every != ValidateEvery(epochs=1),
            "There is no validation set (data.val).",
        ),
        "/early_stopping/cooldown": (
            early is not None and early.cooldown > 0 and not plateau,
            "Only ReduceLROnPlateau cuts the rate in a way that a cooldown follows.",
        ),
    }
    for pointer, (is_idle, detail) in found.items():
        if is_idle:
            yield Issue(pointer, "no_effect", detail)


def _splits(spec: JobSpec) -> Iterator[Issue]:
    parts = {
        name: part for name, part in (("val", spec.data.val), ("test", spec.data.test)) if isinstance(part, DataSplit)
    }
    total = sum(part.fraction for part in parts.values())
    if total >= 1:
        detail = f"The fractions for val and test add up to {total:g}; less than 1 must be taken from train."
        yield Issue("/data/test/fraction", "fractions", detail)
    task = _task(spec)
    for name, part in parts.items():
        if part.stratify and task in ("regression", "multilabel"):
            pointer = join("/data", name, "stratify")
            detail = f"A {task} target has no classes to stratify by."
            yield Issue(pointer, "not_allowed", detail, fix=(replace(pointer, value=False),))


def _task(spec: JobSpec) -> str | None:
    """Return the task where the spec alone says it."""
    if spec.task is not None:
        return spec.task
    losses = spec.loss if isinstance(spec.loss, tuple) else (spec.loss,)
    return "regression" if all(loss.type in _FOR_REGRESSION for loss in losses) else None


def _clipping(spec: JobSpec) -> Iterator[Issue]:
    clipping = spec.gradient_clipping
    if clipping and (clipping.max_norm is None) == (clipping.clip_value is None):
        detail = 'Gradient clipping takes exactly one of "max_norm" and "clip_value".'
        yield Issue("/gradient_clipping", "exactly_one", detail)


def _validation(spec: JobSpec) -> Iterator[Issue]:
    every = spec.validate_every
    if (every.epochs is None) == (every.steps is None):
        yield Issue("/validate_every", "exactly_one", 'Validation takes exactly one of "epochs" and "steps".')


def _stopping(spec: JobSpec) -> Iterator[Issue]:
    early = spec.early_stopping
    if early and early.mode is None and mode_of(early.monitor) is None:
        detail = f"Whether less or more of {quoted(early.monitor)} is better is not known."
        yield Issue("/early_stopping/mode", "missing", detail, hint='Give "mode": "min" or "max".')
    elif early:
        yield from _thresholds(early, early.mode or mode_of(early.monitor))
    for pointer, condition in _conditions(spec):
        if condition.below is None and condition.above is None and condition.converged is None:
            detail = 'A condition needs at least one of "below", "above" and "converged".'
            yield Issue(pointer, "at_least_one", detail)


def _thresholds(early: EarlyStopping, mode: Mode | None) -> Iterator[Issue]:
    good, hopeless = early.stopping_threshold, early.divergence_threshold
    if good is None or hopeless is None:
        return
    if (hopeless < good) if mode == "min" else (hopeless > good):
        detail = f"What is good enough ({good:g}) is worse than what is hopeless ({hopeless:g}) where {mode} is better."
        yield Issue("/early_stopping/divergence_threshold", "contradicts", detail)


def _devices(spec: JobSpec) -> Iterator[Issue]:
    if spec.execution.device == "cpu" and spec.execution.gpus > 1:
        detail = f"A job on the CPU takes no {spec.execution.gpus} GPUs."
        yield Issue("/execution/gpus", "contradicts", detail, fix=({"op": "remove", "path": "/execution/gpus"},))


def _repeated(spec: JobSpec) -> Iterator[Issue]:
    """Name items that stand in a list a second time."""
    columns = spec.data.columns
    lists: dict[str, Sequence[Any]] = {"/metrics": spec.metrics or ()}
    if columns is not None:
        target = columns.target if isinstance(columns.target, tuple) else ()
        own = {"features": columns.features or (), "target": target, "categorical": columns.categorical}
        lists |= {join("/data/columns", name): items for name, items in own.items()}
    for pointer, items in lists.items():
        for index, item in enumerate(items):
            if item in items[:index]:
                at = join(pointer, index)
                yield Issue(at, "repeated", "This stands in the list already.", fix=({"op": "remove", "path": at},))


def _conditions(spec: JobSpec) -> Iterator[tuple[str, StopWhen]]:
    if isinstance(spec.stop_when, StopWhen):
        yield "/stop_when", spec.stop_when
    for index, condition in enumerate(spec.stop_when if isinstance(spec.stop_when, tuple) else ()):
        yield f"/stop_when/{index}", condition


def _double_decay(spec: JobSpec) -> Iterator[Issue]:
    if not spec.regularization or not spec.regularization.l2:
        return
    decay = _argument(spec.optimizer, "optimizers", "weight_decay")
    if isinstance(decay, (int, float)) and decay > 0:
        detail = (
            f"Weights are shrunk twice: by l2 = {spec.regularization.l2:g} in the loss and by weight_decay = {decay:g} "
            f"of {spec.optimizer.type}."
        )
        yield Issue("/regularization/l2", "decays_twice", detail, hint="Keep one of them.")


def _patience(spec: JobSpec) -> Iterator[Issue]:
    early = spec.early_stopping
    if early and spec.validate_every.steps is None and early.patience + early.start_from_epoch >= spec.epochs:
        detail = f"Early stopping cannot act within {spec.epochs} epochs with a patience of {early.patience}."
        yield Issue("/early_stopping", "never_reached", detail)
    for pointer, condition in _conditions(spec):
        window = condition.converged.window if condition.converged else 0
        if window > spec.epochs and spec.validate_every.steps is None:
            detail = f"{spec.epochs} epochs give fewer values than the window of {window}."
            yield Issue(join(pointer, "converged", "window"), "never_reached", detail)


def _argument(component: Component, kind: str, name: str) -> Any:
    """Return an argument as posted, or the library's default."""
    if name in component.arguments:
        return component.arguments[name]
    entry = catalog.find(kind, component.type)
    parameter = entry.by_name.get(name) if entry else None
    return parameter.default if parameter else None
