"""Optimizer and schedule: what torch finds out too late, or never."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from core.errors import Issue
from core.spec.job import JobSpec
from core.train.build.lr_schedulers import COUNTS, with_numbers
from core.train.preflight.counting import Counts

TAKE_SPARSE = ("SGD", "SparseAdam", "Adagrad")


def contradictions(spec: JobSpec) -> Iterator[Issue]:
    """Say which fields cannot go together, whatever the data is."""
    if spec.optimizer.type == "LBFGS" and spec.precision == "16-mixed":
        detail = "LBFGS evaluates the loss several times per update, which 16-mixed cannot."
        fix = ({"op": "replace", "path": "/precision", "value": "32-true"},)
        yield Issue("/precision", "lbfgs_16_mixed", detail, 'Use "32-true" or "bf16-mixed".', fix)
    if spec.ema and spec.swa:
        detail = "ema and swa are two answers to the question which weights are returned."
        yield Issue("/swa", "ema_and_swa", detail, "Keep one of them.", ({"op": "remove", "path": "/swa"},))


def sparse(spec: JobSpec, model: nn.Module) -> Iterator[Issue]:
    """Say which gradients the optimizer cannot take."""
    sparse_layers = {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse
    }
    kind = spec.optimizer.type
    if sparse_layers and kind not in TAKE_SPARSE:
        detail = f"{kind} does not take the sparse gradients of embedding {next(iter(sparse_layers))}."
        yield Issue("/optimizer/type", "sparse_gradients", detail, f"One of {', '.join(TAKE_SPARSE)} does.")
    if kind == "SparseAdam":
        kept = {id(part.weight) for part in sparse_layers.values()}
        dense = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in kept]
        if dense:
            detail = (
                f'SparseAdam takes sparse gradients only, from embeddings with "sparse": true; {dense[0]} gives none.'
            )
            yield Issue("/optimizer/type", "dense_gradients", detail, "Use Adam.")


def idle(spec: JobSpec, model: nn.Module, counts: Counts) -> Iterator[Issue]:
    """Say what matches nothing, or more than there is, in this model and on this data."""
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    penalty = spec.regularization
    for index, part in enumerate(penalty.exclude if penalty else ()):
        pointer = f"/regularization/exclude/{index}"
        if not any(part in name for name in names):
            yield Issue(pointer, "matches_nothing", f'No trained parameter has "{part}" in its name.')
        elif all(part in name for name in names):
            yield Issue(pointer, "matches_all", f'Every trained parameter has "{part}" in its name: nothing is left.')
    if spec.accumulate_grad_batches > max(1, counts.batches):
        detail = f"An epoch has {counts.batches} batches: its gradients are of these, not of more."
        yield Issue("/accumulate_grad_batches", "more_than_batches", detail)


def schedule_length(spec: JobSpec, counts: Counts) -> Iterator[Issue]:
    """Say that a schedule ends before the job does, after which torch raises."""
    body = with_numbers(spec, steps_per_epoch=max(1, counts.updates), epochs=spec.epochs)
    if body is None or body["type"] != "OneCycleLR":
        return
    is_by_step = body.get("interval", "epoch") == "step"
    steps = spec.epochs * max(1, counts.updates)
    needed = min(steps, spec.max_steps or steps) if is_by_step else spec.epochs
    total, pointer = _total(body)
    if total is None or total >= needed:
        return
    word = "steps" if is_by_step else "epochs"
    detail = f"OneCycleLR is planned for {total} {word}, but the job has {needed}."
    fix: list[dict[str, Any]] = [{"op": "add", "path": "/lr_scheduler/total_steps", "value": word}]
    yield Issue(pointer, "schedule_too_short", detail, f'"total_steps": "{word}" is always right.', tuple(fix))


def _total(body: dict[str, Any]) -> tuple[int | None, str]:
    if body.get("total_steps") is not None:
        return int(body["total_steps"]), "/lr_scheduler/total_steps"
    if body.get("epochs") and body.get("steps_per_epoch"):
        return int(body["epochs"]) * int(body["steps_per_epoch"]), "/lr_scheduler/epochs"
    return None, "/lr_scheduler"


def schedule_interval(spec: JobSpec) -> Iterator[Issue]:
    """Say that a schedule counts in another unit than the one in which it advances."""
    if spec.lr_scheduler is None:
        return
    arguments = spec.lr_scheduler.arguments
    interval = arguments.get("interval", "epoch")
    other = {"epoch": "steps", "step": "epochs"}[interval]
    for name in COUNTS:
        if arguments.get(name) == other:
            detail = f"{spec.lr_scheduler.type} advances once per {interval}, but {name} counts {other}."
            fix = ({"op": "add", "path": "/lr_scheduler/interval", "value": other.removesuffix("s")},)
            yield Issue(
                f"/lr_scheduler/{name}", "interval", detail, f'Set "interval": "{other.removesuffix("s")}".', fix
            )
    if spec.lr_scheduler.type == "ReduceLROnPlateau" and interval == "step":
        detail = "ReduceLROnPlateau looks at its monitor after each epoch, whatever interval says."
        yield Issue(
            "/lr_scheduler/interval", "interval", detail, fix=({"op": "remove", "path": "/lr_scheduler/interval"},)
        )
