"""What the model gives against what the loss is told: shapes, classes, probabilities where logits belong."""

import re
from collections.abc import Iterator
from typing import Any

import torch

from core.errors import Issue
from core.spec import pointer as pointers
from core.spec import to_json
from core.spec.job import Component, JobSpec
from core.spec.pointer import join
from core.train import build
from core.train.build.inference import BATCH, COMPLAINTS, Row, on_meta, quietly
from core.train.build.losses import alike
from core.train.build.model import Inferred
from core.train.build.vision import PREFIX
from core.train.components import condensed, refused
from core.train.task import OF_CLASSES, Task, losses_of

FROM_LOGITS = {
    "CrossEntropyLoss": ("Softmax", "Softmin", "Softmax2d", "LogSoftmax", "Sigmoid"),
    "BCEWithLogitsLoss": ("Sigmoid", "LogSigmoid", "Softmax"),
    "MultiLabelSoftMarginLoss": ("Sigmoid", "LogSigmoid", "Softmax"),
    "SoftMarginLoss": ("Sigmoid", "Softmax"),
}
"""Losses that take a model's raw outputs, and the last layers that would make something else of them."""
PROBABILITIES = ("Sigmoid", "Softmax", "Hardsigmoid", "Softmin")
LOG_PROBABILITIES = ("LogSoftmax",)
WIDTH = re.compile(r"^(Linear|Bilinear|Conv(Transpose)?[123]d)$")
KEEPS_WIDTH = re.compile(
    r"^(.*Dropout.*|.*ReLU.*|.*ELU|Tanh|.*[Ss]igmoid|GELU|Soft.*|LogSoftmax|Mish|SiLU|Hard.*|Identity|(Batch|Layer|RMS|"
    r"Group|Instance)Norm.*|Flatten|Adaptive.*|Threshold|Tanhshrink)$"
)
SMALL = 1 << 14
"""Numbers that a loss is computed of and not only followed: one thread does that at once."""
IN_A_ROW = re.compile(r"^/model(/layers/\d+)+$")
"""A layer that stands in no branch and in no shortcut."""
AT_A_NODE = re.compile(r"^/model/nodes/\d+$")
"""A graph's node; all of them are needed by the output, so the last one walked is the output itself."""


def findings(spec: JobSpec, inferred: Inferred, job: Task) -> Iterator[Issue]:
    """Say where the model's output, the loss and the target do not go together."""
    shape = _shape(inferred)
    wanted = (job.outputs,) if job.name == "classification" else job.target_shape
    weights = list(_class_weights(spec, job))
    yield from weights
    yield from _not_probabilities(spec, inferred)
    if shape != wanted:
        yield _mismatch(spec, inferred, job, shape, wanted)
    elif not weights:
        yield from _loss(spec, inferred, job)


def warnings(spec: JobSpec, inferred: Inferred) -> Iterator[Issue]:
    """Say where a loss gets what it can take but was not made for."""
    last = _last(inferred)
    for pointer, term in losses_of(spec):
        if last is not None and last.type in FROM_LOGITS.get(term.type, ()):
            detail = f"{term.type} takes raw outputs and does what {last.type} does itself; twice slows learning."
            fix = ({"op": "remove", "path": last.pointer},) if IN_A_ROW.match(last.pointer) else None
            yield Issue(last.pointer, "doubled_softmax", detail, f"Leave {last.type} out.", fix)
        if term.type == "NLLLoss" and (last is None or last.type not in LOG_PROBABILITIES):
            detail = "NLLLoss takes logarithms of probabilities, but the model does not end in LogSoftmax."
            fix = ({"op": "replace", "path": pointer, "value": _renamed(term, "CrossEntropyLoss")},)
            yield Issue(pointer, "not_log_probabilities", detail, "Use CrossEntropyLoss.", fix)


def _shape(inferred: Inferred) -> tuple[int, ...] | None:
    """Return the shape of one sample's output; None where the batch is no longer the first dimension."""
    output = inferred.output
    if output is None or output.ndim == 0 or output.shape[0] != BATCH:
        return None
    return tuple(output.shape[1:])


def _mismatch(
    spec: JobSpec, inferred: Inferred, job: Task, shape: tuple[int, ...] | None, wanted: tuple[int, ...]
) -> Issue:
    at, fix = _where(spec, inferred, shape, wanted)
    if shape is None or (shape == () and wanted != ()):
        n = "n" if shape is not None else "?"
        target = ", ".join(["n", *map(str, wanted)])
        detail = f"The model's output has shape [{n}], the {job.name} target [{target}]: each would meet all others."
        pointer = inferred.layers[-1].pointer if inferred.layers else "/model"
        fix = ({"op": "remove", "path": pointer},) if IN_A_ROW.match(pointer) else None
        return Issue(pointer, "output_shape", detail, f"The last layer must give {list(wanted)} per sample.", fix)
    if len(shape) != len(wanted):
        detail = f"The model gives {list(shape)} for a sample; {_need(job)} {list(wanted)}."
        at, fix = _flatten(spec, inferred) or (at, None)
        return Issue(at, "output_shape", detail, "Put Flatten before the last Linear.", fix)
    detail = f"The model has {shape[0]} outputs; {_need(job)} {wanted[0]}."
    return Issue(at, "outputs", detail, f"Give it {wanted[0]} outputs.", fix)


def _need(job: Task) -> str:
    if job.name == "classification":
        return f"{job.classes} classes (labels 0 to {(job.classes or 1) - 1}) need"
    return f"the {job.name} target needs"


def _where(
    spec: JobSpec, inferred: Inferred, shape: tuple[int, ...] | None, wanted: tuple[int, ...]
) -> tuple[str, tuple[dict[str, Any], ...] | None]:
    """Return the place that decides the number of outputs, and how to mend it there."""
    row = _deciding(inferred)
    if spec.model.type.startswith(PREFIX) and row is None:
        at = "/model/num_classes"
        return at, ({"op": "add", "path": at, "value": wanted[0]},)
    if row is None:
        return (inferred.layers[-1].pointer if inferred.layers else "/model"), None
    name = "out_features" if "Linear" in row.type or row.type == "Bilinear" else "out_channels"
    at = join(row.pointer, name)
    is_alone = any(place.match(row.pointer) for place in (IN_A_ROW, AT_A_NODE))
    can_mend = (is_alone or row.pointer.startswith("/model/replace")) and shape is not None
    return at, ({"op": "replace", "path": at, "value": wanted[0]},) if can_mend and len(wanted) == 1 else None


def _deciding(inferred: Inferred) -> Row | None:
    """Return the last layer with a width of its own, if only layers that keep it follow."""
    for row in reversed(inferred.layers):
        if row.pointer == "/model":
            continue  # a part of a torchvision model
        if WIDTH.match(row.type):
            return row
        if not KEEPS_WIDTH.match(row.type):
            return None
    return None


def _flatten(spec: JobSpec, inferred: Inferred) -> tuple[str, tuple[dict[str, Any], ...]] | None:
    """Return how to put a Flatten before the last Linear, where that takes images or sequences."""
    row = _deciding(inferred)
    if row is None or row.type != "Linear" or len(row.input_shape) < 2 or not IN_A_ROW.match(row.pointer):
        return None
    fix: list[dict[str, Any]] = []
    posted = pointers.resolve(to_json(spec), row.pointer)
    if isinstance(posted, dict) and "in_features" in posted:
        fix.append({"op": "remove", "path": join(row.pointer, "in_features")})
    return row.pointer, (*fix, {"op": "add", "path": row.pointer, "value": "Flatten"})


def _last(inferred: Inferred) -> Row | None:
    rows = [row for row in inferred.layers if not re.match(r"^(Identity|Flatten|.*Dropout.*)$", row.type)]
    return rows[-1] if rows and any(place.match(rows[-1].pointer) for place in (IN_A_ROW, AT_A_NODE)) else None


def _not_probabilities(spec: JobSpec, inferred: Inferred) -> Iterator[Issue]:
    last = _last(inferred)
    for pointer, term in losses_of(spec):
        if term.type == "BCELoss" and (last is None or last.type not in PROBABILITIES):
            detail = "BCELoss takes probabilities, but the model does not end in Sigmoid."
            fix = ({"op": "replace", "path": pointer, "value": _renamed(term, "BCEWithLogitsLoss")},)
            yield Issue(pointer, "not_probabilities", detail, "Use BCEWithLogitsLoss.", fix)


def _renamed(term: Component, name: str) -> dict[str, Any]:
    coefficient = getattr(term, "coefficient", 1.0)
    return {"type": name} if coefficient == 1.0 else {"type": name, "coefficient": coefficient}


def _class_weights(spec: JobSpec, job: Task) -> Iterator[Issue]:
    """Say which class weights do not fit the classes."""
    for pointer, term in losses_of(spec):
        for name in ("weight", "pos_weight"):
            value, at = term.arguments.get(name), join(pointer, name)
            if value == "balanced" and not job.has_labels:
                detail = f"A {job.name} target has no classes to balance."
                yield Issue(at, "not_classes", detail, fix=({"op": "remove", "path": at},))
            fitting = {job.classes} if term.type in OF_CLASSES else {1, job.outputs}
            if isinstance(value, (list, tuple)) and len(value) not in fitting:
                yield Issue(at, "class_weights", f'"{name}" has {len(value)} numbers; {job.outputs} are needed.')


def _loss(spec: JobSpec, inferred: Inferred, job: Task) -> Iterator[Issue]:
    """Let torch compute the loss of the fake batch; of zeros where they are few, for that is the quickest."""
    output = inferred.output
    if output is None:
        return
    pointer, term = losses_of(spec)[0]
    with on_meta() if output.numel() > SMALL else quietly():
        given = torch.zeros(output.shape, dtype=output.dtype)
        target = torch.zeros((BATCH, *job.target_shape), dtype=job.target_dtype)
        weights = None if job.classes is None else torch.ones(job.classes)
        try:
            loss = build.loss(spec, class_weights=weights)
        except COMPLAINTS as error:
            yield refused(error, term, pointer)
            return
        try:
            if job.name != "classification":
                alike(given, target)
            loss(given, target)
        except COMPLAINTS as error:
            yield Issue(pointer, "loss_refuses", f"{term.type}: {condensed(error).rstrip('.')}.")
