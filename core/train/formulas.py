"""The updates of SGD, Adam and AdamW as formulas that a compiler can join to the backward pass.

What changes from update to update (rates, momenta, the corrections of the first steps) comes in as numbers in a tensor,
so one compiled piece serves a whole training, whatever its schedule does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from core.train.stepping import Tensors, counts, kept, moves_plainly

Group = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Formula:
    """How one optimizer moves a weight.

    Attributes:
        kept: names of what it keeps for each weight, for the settings of a group.
        numbers: what changes from update to update: of a group's settings and the count of updates, this one included.
        move: changes weight and kept tensors in place: `(group, numbers, weight, grad, kept)`.
        is_counted: whether the optimizer keeps the count of updates.
    """

    kept: Callable[[Group], tuple[str, ...]]
    numbers: Callable[[Group, float], tuple[float, ...]]
    move: Callable[[Group, Tensor, Tensor, Tensor, Tensors], None]
    is_counted: bool = False


def _momentum(group: Group) -> tuple[str, ...]:
    return ("momentum_buffer",) if group["momentum"] else ()


def _sgd_numbers(group: Group, _count: float) -> tuple[float, ...]:
    return group["lr"], group["weight_decay"], group["momentum"], 1 - group["dampening"]


def _sgd(group: Group, numbers: Tensor, weight: Tensor, grad: Tensor, kept: Tensors) -> None:
    """``v = momentum*v + (1 - dampening)*g; w -= lr*v``, with ``g`` plus the weight decay; Nesterov looks ahead."""
    lr, decay, momentum, share = numbers
    if group["weight_decay"]:
        grad = grad + decay * weight
    for buffer in kept:
        buffer.mul_(momentum).add_(share * grad)
        grad = grad + momentum * buffer if group["nesterov"] else buffer
    weight.sub_(lr * grad)


def _adam_numbers(group: Group, count: float) -> tuple[float, ...]:
    lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
    rate, root = lr / (1 - beta1**count), (1 - beta2**count) ** 0.5
    return rate, root, group["eps"], 1 - lr * decay if group["decoupled_weight_decay"] else decay, beta1, beta2


def _adam(group: Group, numbers: Tensor, weight: Tensor, grad: Tensor, kept: Tensors) -> None:
    """``m = b1*m + (1 - b1)*g; v = b2*v + (1 - b2)*g²; w -= lr/(1 - b1^t) * m/(sqrt(v/(1 - b2^t)) + eps)``."""
    (rate, root, eps, decay, beta1, beta2), (mean, square) = numbers, kept
    if group["weight_decay"] and group["decoupled_weight_decay"]:
        weight.mul_(decay)
    elif group["weight_decay"]:
        grad = grad + decay * weight
    mean.add_((1 - beta1) * (grad - mean))
    square.mul_(beta2).add_((1 - beta2) * grad * grad)
    weight.sub_(rate * mean / (square.sqrt() / root + eps))


_ADAM = Formula(lambda _: ("exp_avg", "exp_avg_sq"), _adam_numbers, _adam, is_counted=True)
FORMULAS: dict[type[Optimizer], Formula] = {SGD: Formula(_momentum, _sgd_numbers, _sgd), Adam: _ADAM, AdamW: _ADAM}


class Moves:
    """An optimizer's formula over all its groups: what it needs for an update, and the update itself.

    Args:
        optimizer: with a formula (see `moves_of`).
        weights: that it moves, in the order in which they and their gradients will come.
    """

    def __init__(self, optimizer: Optimizer, weights: Sequence[Tensor]) -> None:
        self.formula, self.optimizer = FORMULAS[type(optimizer)], optimizer
        self._at = {id(weight): place for place, weight in enumerate(weights)}
        self.width = len(self.formula.numbers(self.groups[0], 1.0))
        self.numbers = torch.zeros(len(self.groups), self.width, dtype=torch.float64)
        """A row for each group, written anew for every update."""
        self._rows = self.numbers.numpy()
        self.kept: list[Tensor] | None = None
        """What the optimizer keeps, group by group, name by name, weight by weight; None: not looked for."""
        self._counts: list[list[Tensor]] = []

    @property
    def groups(self) -> Sequence[Group]:
        """The optimizer's; it has others once a state was loaded."""
        return self.optimizer.param_groups

    def examples(self) -> list[Tensor]:
        """Return tensors like those that the optimizer will keep."""
        return [
            torch.zeros_like(weight, requires_grad=False)
            for group in self.groups
            for _ in self.formula.kept(group)
            for weight in group["params"]
        ]

    def gather(self) -> bool:
        """Find what the optimizer keeps; return whether it is there: not before its first step."""
        if self.kept is not None:
            return True
        state = self.optimizer.state
        try:
            found = [kept(group, state, name) for group in self.groups for name in self.formula.kept(group)]
            self._counts = [counts(group, state) for group in self.groups] if self.formula.is_counted else []
        except LookupError:
            return False
        self.kept = [tensor for tensors in found for tensor in tensors]
        return True

    def count(self) -> None:
        """Begin an update: count it, and write its numbers."""
        for steps in self._counts:
            torch._foreach_add_(steps, 1)
        for place, group in enumerate(self.groups):
            self._rows[place] = self.formula.numbers(group, self._counts[place][0].item() if self._counts else 1.0)

    def apply(self, numbers: Tensor, weights: Tensors, grads: Tensors, state: Tensors) -> None:
        """Move all weights."""
        start = 0
        for group, row in zip(self.groups, numbers, strict=True):
            size, names = len(group["params"]), len(self.formula.kept(group))
            for place, weight in enumerate(group["params"]):
                own = [state[start + column * size + place] for column in range(names)]
                at = self._at[id(weight)]
                self.formula.move(group, row, weights[at], grads[at], own)
            start += names * size


def moves_of(optimizer: Optimizer, weights: Sequence[Tensor]) -> Moves | None:
    """Return the optimizer's formula over `weights`; None where it has none here."""
    is_known = type(optimizer) in FORMULAS and moves_plainly(optimizer, weights)
    return Moves(optimizer, weights) if is_known else None
