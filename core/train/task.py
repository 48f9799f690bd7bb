"""What is learned, from the data's target and the loss: classes, two classes, several labels, or numbers."""

from dataclasses import dataclass
from typing import Any

import torch

from core.datasets.samples import Facts
from core.errors import Issue, SpecInvalid
from core.spec.job import Component, JobSpec, TaskName
from core.spec.pointer import join
from core.train.components import invalid

OF_CLASSES = frozenset({"CrossEntropyLoss", "NLLLoss", "MultiMarginLoss"})
"""One output per class, a label per sample."""
OF_LABELS = frozenset({"BCEWithLogitsLoss", "BCELoss", "SoftMarginLoss", "HingeEmbeddingLoss"})
"""One output per yes-or-no question."""
OF_PROBABILITIES = frozenset({"BCEWithLogitsLoss", "BCELoss"})
"""Of those, the targets lie between 0 and 1."""
OF_SEVERAL_LABELS = frozenset({"MultiLabelMarginLoss", "MultiLabelSoftMarginLoss"})
OF_NUMBERS = frozenset({"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "PoissonNLLLoss", "KLDivLoss"})


@dataclass(frozen=True, slots=True)
class Task:
    """What the model learns, and what its outputs must look like."""

    name: TaskName
    classes: int | None
    """Classes of a label (2 for binary), or labels per sample for multilabel; None for regression."""
    target_shape: tuple[int, ...]
    """Of one target as the loss sees it; ``(1,)`` for a single number."""
    target_dtype: torch.dtype
    """Of the target as the loss sees it."""

    @property
    def has_labels(self) -> bool:
        """Whether each sample belongs to one of the classes."""
        return self.name == "binary" or (self.name == "classification" and not self.target_shape)

    @property
    def outputs(self) -> int:
        """The width of the model's output."""
        if self.name == "binary" or self.classes is None:
            return self.target_shape[0] if self.target_shape else 1
        return self.classes


def losses_of(spec: JobSpec) -> list[tuple[str, Component]]:
    """Return the terms of the loss, each with its pointer."""
    if isinstance(spec.loss, tuple):
        return [(join("/loss", index), term) for index, term in enumerate(spec.loss)]
    return [("/loss", spec.loss)]


def resolve(spec: JobSpec, facts: Facts) -> Task:
    """Say what is learned.

    Args:
        spec: its `task` and `loss`.
        facts: of the training set.

    Raises:
        SpecInvalid: no target, or a task, a loss and a target that contradict each other.
    """
    if facts.target_shape is None:
        detail = "The training set has no target: there is nothing to learn."
        raise invalid("/data/train", "no_target", detail, "Name the target column in data.columns.target.")
    found = [_by_loss(spec, facts, pointer, term) for pointer, term in losses_of(spec)]
    issues = [issue for _, issue in found if issue is not None]
    if issues:
        raise SpecInvalid(issues)
    names = [name for name, _ in found if name is not None]
    _check_agreement(spec, names)
    return _task(names[0], facts)


def _task(name: TaskName, facts: Facts) -> Task:
    shape = facts.target_shape or ()
    if name == "classification":
        if facts.target_dtype == "int64" and not shape:
            return Task(name, _label_count(facts), (), torch.int64)
        return Task(name, shape[0] if shape else None, shape, torch.float32)
    if name == "binary":
        return Task(name, 2, (1,), torch.float32)
    return Task(name, shape[0] if name == "multilabel" else None, shape or (1,), torch.float32)


def _label_count(facts: Facts) -> int:
    return facts.class_count or (facts.label_max or 0) + 1


def _by_loss(spec: JobSpec, facts: Facts, pointer: str, term: Component) -> tuple[TaskName | None, Issue | None]:
    """Return the task that a loss means on this target, or why it cannot work on it."""
    shape = facts.target_shape or ()
    is_label = facts.target_dtype == "int64" and not shape
    if term.type in OF_CLASSES:
        return _classification(facts, pointer, term, is_label=is_label)
    if term.type in OF_LABELS | OF_SEVERAL_LABELS:
        return _yes_or_no(facts, pointer, term, is_label=is_label)
    if is_label and spec.task != "regression":
        return None, _numbers_wanted(facts, pointer, term)
    return "regression", None


def _classification(
    facts: Facts, pointer: str, term: Component, *, is_label: bool
) -> tuple[TaskName | None, Issue | None]:
    shape = facts.target_shape or ()
    is_soft = term.type == "CrossEntropyLoss" and len(shape) == 1 and shape[0] > 1
    if not is_label and not is_soft:
        detail = f"{term.type} needs class labels; the target holds numbers of shape {_shown(shape)}."
        hint = "Use MSELoss for numbers."
        return None, Issue(pointer, "target_not_classes", detail, hint, (_swap(pointer, term, "MSELoss"),))
    if is_label and facts.label_min is not None and facts.label_min < 0:
        detail = f"Labels must be 0, 1, 2, …; the smallest one is {facts.label_min}."
        return None, Issue("/data/train", "label_range", detail)
    return "classification", None


def _yes_or_no(facts: Facts, pointer: str, term: Component, *, is_label: bool) -> tuple[TaskName | None, Issue | None]:
    shape = facts.target_shape or ()
    if is_label and (_label_count(facts) > 2 or (facts.label_min or 0) < 0):
        detail = f"{term.type} needs two classes, 0 and 1; the target has {_label_count(facts)} classes."
        fix = _swap(pointer, term, "CrossEntropyLoss")
        return None, Issue(pointer, "too_many_classes", detail, "Use CrossEntropyLoss.", (fix,))
    least, most = facts.target_min, facts.target_max
    if term.type in OF_PROBABILITIES and least is not None and most is not None and (least < 0 or most > 1):
        detail = f"{term.type} needs targets from 0 to 1; this one holds numbers from {least:g} to {most:g}."
        fix = _swap(pointer, term, "MSELoss")
        return None, Issue(pointer, "target_not_yes_or_no", detail, "Use MSELoss for numbers.", (fix,))
    if term.type in OF_SEVERAL_LABELS and len(shape) != 1:
        detail = f"{term.type} needs several yes-or-no labels per sample; the target has shape {_shown(shape)}."
        return None, Issue(pointer, "target_not_labels", detail)
    return ("multilabel" if shape and shape != (1,) else "binary"), None


def _numbers_wanted(facts: Facts, pointer: str, term: Component) -> Issue:
    count = _label_count(facts)
    better = "BCEWithLogitsLoss" if count == 2 else "CrossEntropyLoss"
    detail = f"{term.type} compares numbers; the target holds labels of {count} classes."
    hint = f'Use CrossEntropyLoss ({better}), or say "task": "regression" if the labels are amounts.'
    hint = hint.replace("CrossEntropyLoss (CrossEntropyLoss)", "CrossEntropyLoss")
    return Issue(pointer, "target_is_classes", detail, hint, (_swap(pointer, term, "CrossEntropyLoss"),))


def _check_agreement(spec: JobSpec, names: list[TaskName]) -> None:
    for index, name in enumerate(names):
        if name != names[0]:
            first, other = (spec.loss[at].type if isinstance(spec.loss, tuple) else "" for at in (0, index))
            detail = f"{other} is for {name}, {first} before it for {names[0]}."
            raise invalid(join("/loss", index), "losses_disagree", detail)
    if spec.task is not None and spec.task != names[0]:
        detail = f"The loss and the target make this {names[0]}, not {spec.task}."
        fix = {"op": "replace", "path": "/task", "value": names[0]}
        raise invalid("/task", "task_contradicts", detail, "Leave task out, or change the loss.", fix)


def _swap(pointer: str, term: Component, name: str) -> dict[str, Any]:
    """Return the operation that puts another loss in a loss's place, keeping its coefficient."""
    coefficient = term.arguments.get("coefficient", getattr(term, "coefficient", 1.0))
    value = {"type": name} if coefficient == 1.0 else {"type": name, "coefficient": coefficient}
    return {"op": "replace", "path": pointer, "value": value}


def _shown(shape: tuple[int, ...]) -> str:
    return str(shape) if shape else "() (one per sample)"
