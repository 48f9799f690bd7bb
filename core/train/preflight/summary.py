"""The numbers of a job: parameters, layers, steps, operations, bytes."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from core.errors import Issue
from core.spec.job import JobSpec
from core.train.build.model import Inferred
from core.train.preflight.counting import Counts
from core.train.preflight.samples import Form

STATES = {"SGD": 0, "LBFGS": 20, "Adagrad": 1, "RMSprop": 1, "Muon": 1, "Adafactor": 0, "NAdam": 2, "Rprop": 2}
"""Copies of the trained weights that an optimizer keeps; the others keep two."""
BYTES = {"bf16-true": 2}
"""Of a number, by precision; otherwise 4."""
GRADIENTS = 2
"""An activation is kept with its gradient."""


def findings(model: nn.Module, max_parameters: int) -> Iterator[Issue]:
    """Say that the model is too large."""
    total = sum(weight.numel() for weight in model.parameters())
    if total > max_parameters:
        detail = f"The model has {total:,} parameters; this service allows {max_parameters:,}."
        yield Issue("/model", "too_many_parameters", detail, "The operator may raise EPOCHD_MAX_PARAMETERS.")
    if total == 0:
        yield Issue("/model", "no_parameters", "The model has no parameters: there is nothing to train.")


def summary(spec: JobSpec, inferred: Inferred, counts: Counts, form: Form) -> dict[str, Any]:
    """Return `summary` of the report; the memory is an estimate of what training takes beside torch itself."""
    if inferred.module is None:
        return {}
    parameters = list(inferred.module.parameters())
    total = sum(weight.numel() for weight in parameters)
    trained = sum(weight.numel() for weight in parameters if weight.requires_grad)
    flops = sum(row.flops for row in inferred.layers)
    return {
        "parameters": total,
        "trainable_parameters": trained,
        "layers": [row.as_json() for row in inferred.layers],
        "steps_per_epoch": counts.updates,
        "flops_per_sample": flops,
        "memory_bytes": _memory_bytes(spec, inferred, counts, form, total=total, trained=trained),
    }


def _memory_bytes(spec: JobSpec, inferred: Inferred, counts: Counts, form: Form, *, total: int, trained: int) -> int:
    number = BYTES.get(spec.precision, 4)
    states = STATES.get(spec.optimizer.type, 2)
    if spec.optimizer.type in ("SGD", "RMSprop") and spec.optimizer.arguments.get("momentum"):
        states += 1
    copies = 1 + bool(spec.ema or spec.swa) + 1  # the model, its average, the best so far
    kept = spec.checkpoints
    copies += kept.keep_best - 1 + (kept.keep_last if kept.keep_last > 1 else 0)
    weights = copies * total + (1 + states) * trained
    batch = min(counts.batch_size, max(1, counts.train))
    activations = sum(_size(row.output_shape) for row in inferred.layers) + _size(form.shape)
    samples = counts.train + (counts.val or 0) + (counts.test or 0)
    return number * (weights + GRADIENTS * batch * activations) + form.bytes_kept * samples


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
