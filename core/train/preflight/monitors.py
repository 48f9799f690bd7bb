"""Metrics against the task, and everything that watches a metric against the metrics that there will be."""

from collections.abc import Iterator
from typing import Any

from core.errors import Issue
from core.spec.job import Component, JobSpec, StopWhen
from core.spec.nearest import nearest
from core.spec.pointer import join
from core.spec.scores import named
from core.train import metrics
from core.train.task import Task

FOR_CLASSES = frozenset({"accuracy", "f1", "precision", "recall", "auroc", "log_loss", "confusion_matrix"})
FOR_NUMBERS = frozenset({"mae", "mse", "rmse", "r2"})
FITTING: dict[str, frozenset[str]] = {
    "classification": FOR_CLASSES,
    "binary": FOR_CLASSES,
    "multilabel": FOR_CLASSES - {"confusion_matrix"},
    "regression": FOR_NUMBERS,
}
MATRIX = "confusion_matrix"
VAL: dict[str, Any] = {"from": "train", "fraction": 0.1}


def findings(spec: JobSpec, job: Task, *, has_val: bool) -> Iterator[Issue]:
    """Say which metrics do not fit the task, and which monitors nothing will produce."""
    for index, part in enumerate(spec.metrics or ()):
        yield from _unfit(part, join("/metrics", index), job)
    names = produced(spec, job, has_val=has_val)
    for pointer, monitor in _monitors(spec):
        if monitor not in names:
            yield _unproduced(spec, pointer, monitor, names, has_val=has_val)


def wanted(spec: JobSpec, job: Task) -> tuple[Component, ...]:
    """Return the metrics that are computed: the spec's, or those of the task."""
    return tuple(Component(type=name) for name in metrics.DEFAULTS[job.name]) if spec.metrics is None else spec.metrics


def produced(spec: JobSpec, job: Task, *, has_val: bool) -> list[str]:
    """Return the names of all single numbers that an epoch's row will hold."""
    fitting = [part for part in wanted(spec, job) if part.type in FITTING[job.name]]
    scores = [name for name, part in named(fitting).items() if part.type != MATRIX]
    names = ["loss", *scores]
    train = [*names, *(["data_loss"] if spec.regularization else [])]
    return [*(f"val_{name}" for name in names if has_val), *(f"train_{name}" for name in train)]


def _unfit(part: Component, pointer: str, job: Task) -> Iterator[Issue]:
    if part.type not in FITTING[job.name]:
        fitting = ", ".join(sorted(FITTING[job.name]))
        detail = f"{part.type} does not measure {job.name}; {fitting} do."
        yield Issue(pointer, "metric_and_task", detail, fix=({"op": "remove", "path": pointer},))
        return
    classes, top_k = job.classes or 0, part.arguments.get("top_k", 1)
    if top_k > 1 and (job.name != "classification" or top_k > classes):
        at = join(pointer, "top_k")
        detail = f"There are {classes} classes: the {top_k} most likely ones are always right."
        if job.name != "classification":
            detail = f"A {job.name} model does not rank classes: there is no top {top_k}."
        yield Issue(at, "top_k", detail, fix=({"op": "remove", "path": at},))
    if part.arguments.get("average") == "binary" and classes != 2:
        at = join(pointer, "average")
        detail = f'The average "binary" needs two classes; there are {classes}.'
        fix = ({"op": "replace", "path": at, "value": "macro"},)
        yield Issue(at, "average", detail, 'Use "macro".', fix)


def _monitors(spec: JobSpec) -> Iterator[tuple[str, str]]:
    if spec.early_stopping is not None:
        yield "/early_stopping/monitor", spec.early_stopping.monitor
    if spec.lr_scheduler is not None and spec.lr_scheduler.type == "ReduceLROnPlateau":
        monitor = spec.lr_scheduler.arguments.get("monitor")
        if monitor is not None:
            yield "/lr_scheduler/monitor", monitor
    rules = spec.stop_when or ()
    if isinstance(rules, StopWhen):
        yield "/stop_when/monitor", rules.monitor
        return
    for index, rule in enumerate(rules):
        yield join("/stop_when", index, "monitor"), rule.monitor


def _unproduced(spec: JobSpec, pointer: str, monitor: str, names: list[str], *, has_val: bool) -> Issue:
    detail = f'Nothing will produce "{monitor}"; there will be {", ".join(names)}.'
    if monitor.startswith("val_") and not has_val:
        fix = ({"op": "add", "path": "/data/val", "value": VAL},)
        return Issue(pointer, "monitor", detail, "Name a validation set in data.val.", fix)
    split, _, metric = monitor.partition("_")
    if split in ("train", "val") and metric in FOR_CLASSES | FOR_NUMBERS and f"{split}_loss" in names:
        is_posted = spec.metrics is not None
        fix = (
            {
                "op": "add",
                "path": "/metrics/-" if is_posted else "/metrics",
                "value": metric if is_posted else [metric],
            },
        )
        return Issue(pointer, "monitor", detail, f'Add "{metric}" to metrics.', fix)
    meant = nearest(monitor, names)
    hint = f"Did you mean `{meant}`?" if meant else None
    return Issue(pointer, "monitor", detail, hint, ({"op": "add", "path": pointer, "value": meant},) if meant else None)
