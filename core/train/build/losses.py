"""The loss: torch's, with the target in the shape and type that each wants, never broadcast."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from core.spec.job import Component, JobSpec
from core.train.components import torch_arguments
from core.train.task import OF_CLASSES, losses_of

SIGNED = ("SoftMarginLoss", "HingeEmbeddingLoss")
"""Losses that call the classes -1 and 1."""
WEIGHTS = ("weight", "pos_weight")
BINARY = ("BCELoss", "BCEWithLogitsLoss")


class Term(nn.Module):
    """One loss of the sum, times its coefficient.

    Args:
        component: the spec's.
        class_weights: ``class_weights[C]`` for `weight: "balanced"`.
    """

    def __init__(self, component: Component, class_weights: Tensor | None) -> None:
        super().__init__()
        arguments = torch_arguments(component.arguments)
        self.kind = component.type
        self.coefficient = float(arguments.pop("coefficient", getattr(component, "coefficient", 1.0)))
        self.balance: Tensor | None = None
        weights = {name: self._weight(name, arguments.pop(name, None), class_weights) for name in WEIGHTS}
        given = {name: value for name, value in weights.items() if value is not None}
        self.loss: nn.Module = getattr(nn, component.type)(**arguments, **given)

    def _weight(self, name: str, value: Any, class_weights: Tensor | None) -> Tensor | None:
        if value is not None and value != "balanced":
            return torch.tensor(value, dtype=torch.float32)
        if value is None or class_weights is None:
            return None
        if name == "pos_weight":
            return class_weights[1:] / class_weights[:1]
        if self.kind in BINARY:  # its `weight` is one per element, so it depends on the target
            self.balance = class_weights
            return None
        return class_weights

    @override
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return coefficient times loss."""
        if self.balance is not None and isinstance(self.loss, nn.BCELoss | nn.BCEWithLogitsLoss):
            self.loss.weight = self.balance.to(output.device)[target.long()].reshape(output.shape)
        loss: Tensor = self.loss(output, self.shaped(output, target))
        return loss if self.coefficient == 1.0 else self.coefficient * loss

    def shaped(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the target as this loss wants it beside `output`."""
        if self.kind in OF_CLASSES:
            return target if not target.is_floating_point() else target.to(output.dtype)
        if self.kind == "MultiLabelMarginLoss":
            return _as_indices(target)
        target = alike(output, target).to(output.dtype)
        return 2 * target - 1 if self.kind in SIGNED else target


class Loss(nn.Module):
    """The sum of the spec's losses, averaged over the samples of a batch."""

    def __init__(self, spec: JobSpec, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.terms = nn.ModuleList(Term(term, class_weights) for _, term in losses_of(spec))
        self.device = torch.device("cpu")

    @override
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a batch, a single number.

        Args:
            output: ``output[B, ...]`` of the model.
            target: ``target[B, ...]`` as the data has it.

        Raises:
            ValueError: shapes that only broadcasting would join.
        """
        if output.device != self.device:
            self.to(output.device)
            self.device = output.device
        total: Tensor = self.terms[0](output, target)
        for term in list(self.terms)[1:]:
            total = total + term(output, target)
        return total


def loss(spec: JobSpec, class_weights: Tensor | None = None) -> Loss:
    """Build the loss.

    Args:
        spec: whose loss.
        class_weights: ``class_weights[C]`` for `weight: "balanced"`.

    Raises:
        TypeError, ValueError: what torch says about its arguments.
    """
    return Loss(spec, class_weights)


def alike(output: Tensor, target: Tensor) -> Tensor:
    """Return the target in the output's shape: a single number per sample ``[B]`` is a column ``[B, 1]``.

    Raises:
        ValueError: the shapes differ otherwise.
    """
    if target.ndim == 1 and output.shape == (*target.shape, 1):
        return target.unsqueeze(1)
    if target.shape != output.shape:
        raise ValueError(f"the model's output has shape {tuple(output.shape)}, the target {tuple(target.shape)}")
    return target


def _as_indices(target: Tensor) -> Tensor:
    """Turn yes-or-no labels ``[B, C]`` into the places of the ones, filled up with -1."""
    count = target.shape[1]
    places = torch.arange(count, device=target.device).expand_as(target)
    ordered = torch.where(target > 0.5, places, count).sort(dim=1).values
    return torch.where(ordered == count, -1, ordered)


def weights_of(term: Component) -> Mapping[str, Any]:
    """Return the class weights that a loss is given, by name."""
    return {name: term.arguments[name] for name in WEIGHTS if term.arguments.get(name) is not None}
