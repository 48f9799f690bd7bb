"""Stopping because it is good enough (`below`, `above`) or no longer moves (`converged`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from core.messages import StopReason
from core.spec.job import StopWhen


@dataclass(frozen=True, slots=True)
class Stop:
    """Why training ends here, and the decision row with the numbers."""

    reason: StopReason
    decision: dict[str, Any]


@final
class StopRules:
    """The spec's `stop_when`: the first rule that holds ends the job."""

    def __init__(self, rules: Sequence[StopWhen]) -> None:
        self.rules = tuple(rules)
        self.histories: list[list[float]] = [[] for _ in self.rules]

    def check(self, metrics: dict[str, float], epoch: int, step: int) -> Stop | None:
        """Look at the values that were just produced, by monitor name such as `val_loss`."""
        stops = [
            self._check_rule(rule, history, metrics[rule.monitor], {"epoch": epoch, "step": step})
            for rule, history in zip(self.rules, self.histories, strict=True)
            if rule.monitor in metrics
        ]
        return next((stop for stop in stops if stop is not None), None)

    def _check_rule(self, rule: StopWhen, history: list[float], value: float, at: dict[str, int]) -> Stop | None:
        numbers: dict[str, Any] = {"kind": "stop_when", **at, "monitor": rule.monitor, "value": value, "action": "stop"}
        if rule.below is not None and value < rule.below:
            return Stop("stopping_threshold", {**numbers, "reason": "below", "below": rule.below})
        if rule.above is not None and value > rule.above:
            return Stop("stopping_threshold", {**numbers, "reason": "above", "above": rule.above})
        if rule.converged is None:
            return None
        history.append(value)
        del history[: -rule.converged.window]
        spread = max(history) - min(history)
        if len(history) < rule.converged.window or not spread < rule.converged.tolerance:
            return None
        return Stop("converged", {**numbers, "reason": "converged", "spread": spread, **rule.converged.model_dump()})

    def state_dict(self) -> dict[str, Any]:
        """Return the values seen so far, for the checkpoint."""
        return {"histories": [list(history) for history in self.histories]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.histories = [list(history) for history in state["histories"]]
