"""Running means and metrics of one pass over a set: nothing is read from the device before its end."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from core.train.metrics import Metric, Value

FOLD_EVERY = 1024
"""Losses waiting to be added up: a list append per step is cheaper than arithmetic on the device."""
PENDING_ELEMENTS = 1 << 20
"""Model outputs waiting for the metrics."""

Prepare = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Turns the model's output and the batch's target into a metric's scores and target."""


class RunningMean:
    """Mean over samples of values that stay on the device, added up in float64 in blocks of `FOLD_EVERY`.

    The blocks are counted from the start of the pass, so a pass that was interrupted adds up in the same order.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.weight = 0
        self.values: list[Tensor] = []
        self.weights: list[int] = []

    def add(self, value: Tensor, weight: int) -> None:
        """Take the mean of `weight` samples."""
        self.values.append(value)
        self.weights.append(weight)
        if len(self.values) >= FOLD_EVERY:
            self.total = self._sum()
            self.weight += sum(self.weights)
            self.values.clear()
            self.weights.clear()

    def _sum(self) -> Tensor | None:
        if not self.values:
            return self.total
        weights = torch.tensor(self.weights, dtype=torch.float64, device=self.values[0].device)
        total = torch.stack(self.values).double() @ weights
        return total if self.total is None else self.total + total

    def compute(self) -> float | None:
        """Return the mean so far, None of nothing; changes nothing, so it may be asked for in mid-pass."""
        total = self._sum()
        return None if total is None else float(total) / (self.weight + sum(self.weights))

    def reset(self) -> None:
        """Forget all values."""
        self.total, self.weight = None, 0
        self.values.clear()
        self.weights.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return sums and what waits, for the checkpoint."""
        pending = torch.stack(self.values) if self.values else None
        return {"total": self.total, "weight": self.weight, "pending": pending, "weights": list(self.weights)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on where `state` was taken."""
        self.total = None if state["total"] is None else state["total"].to(device)
        self.weight, self.weights = state["weight"], list(state["weights"])
        self.values = [] if state["pending"] is None else list(state["pending"].to(device).unbind())


class Scores:
    """The metrics of one pass, fed in blocks."""

    def __init__(self, metrics: Mapping[str, Metric], prepare: Prepare) -> None:
        self.metrics = metrics
        self.prepare = prepare
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.elements = 0

    def add(self, output: Tensor, target: Tensor) -> None:
        """Take a batch: `output` as the model gave it, detached."""
        self.outputs.append(output)
        self.targets.append(target)
        self.elements += output.numel()
        if self.elements >= PENDING_ELEMENTS:
            self._fold()

    def _fold(self) -> None:
        scores, target = self.prepare(torch.cat(self.outputs), torch.cat(self.targets))
        for metric in self.metrics.values():
            metric.update(scores, target)
        self._forget_pending()

    def _forget_pending(self) -> None:
        self.outputs.clear()
        self.targets.clear()
        self.elements = 0

    def compute(self) -> dict[str, Value]:
        """Return each metric over all samples so far."""
        if self.outputs and self.metrics:
            self._fold()
        return {name: metric.compute() for name, metric in self.metrics.items()}

    def reset(self) -> None:
        """Forget all samples."""
        self._forget_pending()
        for metric in self.metrics.values():
            metric.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return sums and what waits, for the checkpoint."""
        return {
            "metrics": {name: metric.state_dict() for name, metric in self.metrics.items()},
            "outputs": torch.cat(self.outputs) if self.outputs else None,
            "targets": torch.cat(self.targets) if self.targets else None,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on where `state` was taken."""
        for name, metric in self.metrics.items():
            metric.load_state_dict(state["metrics"][name], device)
        if state["outputs"] is not None:
            self.outputs, self.targets = [state["outputs"].to(device)], [state["targets"].to(device)]
            self.elements = self.outputs[0].numel()


def preparation(
    task: str, *, is_probability: bool, to_own_units: Callable[[Tensor], Tensor] = lambda values: values
) -> Prepare:
    """Return what turns outputs and targets of `task` into the scores and targets of `core.train.metrics`.

    Args:
        task: `classification`, `binary`, `multilabel` or `regression`.
        is_probability: the model ends in probabilities (its loss takes them) rather than logits.
        to_own_units: undoes the preprocessing of a regression target ``[N, K]``.
    """

    def classification(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return output.float(), target.argmax(dim=1) if target.ndim == 2 else target.long()

    def probabilities(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        scores = output.float() if is_probability else output.float().sigmoid()
        if task == "binary":
            return scores.reshape(-1), target.reshape(-1).long()
        return scores, target.long()

    def regression(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        scores = output.double().reshape(output.shape[0], -1)
        return to_own_units(scores), to_own_units(target.double().reshape(scores.shape))

    by_task: dict[str, Prepare] = {"classification": classification, "regression": regression}
    return by_task.get(task, probabilities)
