"""Looks at what was just measured: keeps the best weights, and says when to stop."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.messages import StopReason
from core.train.early_stopping import Check, EarlyStopper, Mode
from core.train.keeping import Shelf
from core.train.stopping import StopRules

ENDS: dict[str, StopReason] = {
    "patience": "early_stopping",
    "threshold": "stopping_threshold",
    "diverged": "diverged",
    "not_finite": "early_stopping",
}
"""Why the job ends when early stopping says stop for that reason; `not_finite` needs a best to go back to."""


class Best:
    """The weights with the best value so far, and where that was."""

    def __init__(self, monitor: str, mode: Mode) -> None:
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.value: float | None = None
        self.epoch: int | None = None
        self.step: int | None = None
        """Updates before it was judged; none where an older version kept it."""
        self.weights: dict[str, Tensor] = {}

    def is_beaten_by(self, value: float) -> bool:
        """Whether `value` is finite and strictly better."""
        is_finite = float("-inf") < value < float("inf")
        return is_finite and (self.value is None or self.sign * value > self.sign * self.value)

    @torch.no_grad()
    def keep(self, value: float, epoch: int, step: int, model: nn.Module) -> None:
        """Copy the weights of `model`; later ones reuse the memory of the first."""
        self.value, self.epoch, self.step = value, epoch, step
        for name, tensor in model.state_dict().items():
            if name in self.weights:
                self.weights[name].copy_(tensor)
            else:
                self.weights[name] = tensor.detach().clone()

    def as_message(self) -> dict[str, Any] | None:
        """Return what clients see of it."""
        if self.value is None:
            return None
        return {"epoch": self.epoch, "monitor": self.monitor, "value": self.value}

    def state_dict(self, current: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """Return value, epoch, step and weights, for the checkpoint.

        Args:
            current: the same weights where they stand elsewhere in the checkpoint, so that they take room once.
        """
        weights = self.weights if current is None else {name: current[name] for name in self.weights}
        return {"value": self.value, "epoch": self.epoch, "step": self.step, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on where `state` was taken."""
        self.value, self.epoch, self.step = state["value"], state["epoch"], state["step"]
        self.weights = {name: weight.to(device) for name, weight in state["weights"].items()}


class Judge:
    """Early stopping, `stop_when` and the weights that are kept, asked after every validation and every epoch."""

    def __init__(self, stopper: EarlyStopper | None, rules: StopRules, best: Best, shelf: Shelf | None = None) -> None:
        self.stopper, self.rules, self.best, self.shelf = stopper, rules, best, shelf or Shelf()
        self.last_check: Check | None = None
        self.decisions: list[dict[str, Any]] = []
        """Of the epoch that runs."""

    def check(self, metrics: Mapping[str, float], epoch: int, step: int, model: nn.Module) -> StopReason | None:
        """Judge fresh `metrics` (by monitor name) of `model`; return why to stop, None to go on."""
        self._keep_best(metrics, epoch, step, model)
        reason = self._check_early(metrics, epoch, step, model)
        if reason is not None:
            return reason
        stop = self.rules.check(dict(metrics), epoch, step)
        if stop is None:
            return None
        self.decisions.append(stop.decision)
        return stop.reason

    def _keep_best(self, metrics: Mapping[str, float], epoch: int, step: int, model: nn.Module) -> None:
        value = metrics.get(self.best.monitor)
        if self.stopper is None and value is not None:
            self._keep(value, epoch, step, model, is_best=self.best.is_beaten_by(value))

    def _keep(self, value: float, epoch: int, step: int, model: nn.Module, *, is_best: bool) -> None:
        """Keep weights as the best, which may make the best so far the next best, or among the next best."""
        best = self.best
        if is_best:
            if best.value is not None and best.epoch is not None:
                self.shelf.offer(best.weights, value=best.value, epoch=best.epoch, step=best.step or 0)
            best.keep(value, epoch, step, model)
        elif math.isfinite(value):
            self.shelf.offer(model.state_dict(), value=value, epoch=epoch, step=step)

    def _check_early(self, metrics: Mapping[str, float], epoch: int, step: int, model: nn.Module) -> StopReason | None:
        if self.stopper is None or self.stopper.spec.monitor not in metrics:
            return None
        check = self.stopper.check(metrics[self.stopper.spec.monitor], epoch)
        self.last_check = check
        self.decisions.append(check.as_decision(step))
        self._keep(check.value, epoch, step, model, is_best=check.improved)
        if check.action == "continue":
            return None
        return "non_finite" if check.reason == "not_finite" and check.best is None else ENDS[check.reason]

    def lr_was_cut(self, decision: dict[str, Any]) -> None:
        """Record a cut of the learning rate; early stopping gives it time."""
        self.decisions.append(decision)
        if self.stopper is not None:
            self.stopper.lr_was_cut()

    def end_epoch(self, epoch: int, step: int, model: nn.Module) -> list[dict[str, Any]]:
        """Hand over the decisions of the epoch, and begin the next; `model` is what it ended with."""
        self.shelf.end_epoch(model, epoch=epoch, step=step)
        decisions = list(self.decisions)
        self.decisions.clear()
        self.last_check = None
        return decisions

    def state_dict(self, best_weights: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """Return all that changes, for the checkpoint; `best_weights` as in `Best.state_dict`."""
        return {
            "stopper": self.stopper.state_dict() if self.stopper else None,
            "rules": self.rules.state_dict(),
            "best": self.best.state_dict(best_weights),
            "shelf": self.shelf.state_dict(),
            "decisions": [dict(decision) for decision in self.decisions],
            "last_check": {name: getattr(self.last_check, name) for name in Check.__slots__}
            if self.last_check
            else None,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on where `state` was taken."""
        if self.stopper:
            self.stopper.load_state_dict(state["stopper"])
        self.rules.load_state_dict(state["rules"])
        self.best.load_state_dict(state["best"], device)
        self.shelf.load_state_dict(state["shelf"])
        self.decisions = list(state["decisions"])
        self.last_check = Check(**state["last_check"]) if state["last_check"] else None
