"""Early stopping, exactly as docs/spec.md has it."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

from core.spec.job import EarlyStopping

Mode = Literal["min", "max"]
Reason = Literal[
    "not_finite", "diverged", "threshold", "improved", "warm_up", "cooldown", "waiting", "patience"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """One look at the monitor, with the numbers that decided."""

    epoch: int
    monitor: str
    value: float
    best: float | None
    best_epoch: int | None
    required: float | None
    """What the value had to be strictly better than; None at the first."""
    improved: bool
    wait: int
    patience: int
    action: Literal["continue", "stop"]
    reason: Reason

    def as_decision(self, step: int) -> dict[str, Any]:
        """Return the decision row."""
        return {"kind": "early_stopping", "step": step, **asdict(self)}

    def as_row(self) -> dict[str, Any]:
        """Return what the metrics row of the epoch says about it."""
        keys = ("monitor", "value", "best", "best_epoch", "wait", "patience", "improved", "action", "reason")
        return {key: getattr(self, key) for key in keys}


@final
class EarlyStopper:
    """Watches one monitor; one `check` after each validation of it.

    With sign ``s`` (+1 for `max`, -1 for `min`) a value improves when ``s*value > s*best + delta``, where ``delta`` is
    `min_delta`, or ``min_delta*|best|`` when relative. The first finite value improves. The first of these decides:
    not finite, diverged, threshold reached, improved, counted.
    """

    def __init__(self, spec: EarlyStopping, mode: Mode) -> None:
        self.spec = spec
        self.sign = 1.0 if mode == "max" else -1.0
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.wait = 0
        self.cooldown_left = 0
        self.is_baseline_beaten = spec.baseline is None

    @property
    def required(self) -> float | None:
        """What the next value must be strictly better than."""
        if self.best is None:
            return None
        scale = abs(self.best) if self.spec.min_delta_mode == "rel" else 1.0
        return self.best + self.sign * self.spec.min_delta * scale

    def lr_was_cut(self) -> None:
        """Let the next `cooldown` checks not count, as a smaller learning rate needs time to show."""
        self.cooldown_left = self.spec.cooldown
        if self.cooldown_left:
            self.wait = 0

    def check(self, value: float, epoch: int) -> Check:
        """Decide on the monitor's `value` after `epoch`."""
        required = self.required
        is_improved = math.isfinite(value) and (required is None or self._is_better(value, required))
        is_sound = math.isfinite(value) and not self._is_diverged(value)
        if is_improved and is_sound:
            self.best, self.best_epoch = value, epoch
        action, reason = self._decide(value, epoch, is_improved=is_improved)
        return Check(
            epoch=epoch,
            monitor=self.spec.monitor,
            value=value,
            best=self.best,
            best_epoch=self.best_epoch,
            required=required,
            improved=is_improved and is_sound,
            wait=self.wait,
            patience=self.spec.patience,
            action=action,
            reason=reason,
        )

    def _decide(self, value: float, epoch: int, *, is_improved: bool) -> tuple[Literal["continue", "stop"], Reason]:
        if self.spec.check_finite and not math.isfinite(value):
            return "stop", "not_finite"
        if self._is_diverged(value):
            return "stop", "diverged"
        if self._has_reached_threshold(value):
            return "stop", "threshold"
        if is_improved and self._beats_baseline(value):
            self.wait = 0
            self.cooldown_left = max(0, self.cooldown_left - 1)
            return "continue", "improved"
        return self._count(epoch, is_improved=is_improved)

    def _count(self, epoch: int, *, is_improved: bool) -> tuple[Literal["continue", "stop"], Reason]:
        if self.cooldown_left:
            self.cooldown_left -= 1
            self.wait = 0
            return "continue", "improved" if is_improved else "cooldown"
        if epoch < self.spec.start_from_epoch:
            return "continue", "improved" if is_improved else "warm_up"
        self.wait += 1
        if self.wait >= self.spec.patience:
            return "stop", "patience"
        return "continue", "improved" if is_improved else "waiting"

    def _is_better(self, value: float, other: float) -> bool:
        return self.sign * value > self.sign * other

    def _is_diverged(self, value: float) -> bool:
        limit = self.spec.divergence_threshold
        return limit is not None and self._is_better(limit, value)

    def _has_reached_threshold(self, value: float) -> bool:
        threshold = self.spec.stopping_threshold
        return threshold is not None and math.isfinite(value) and self.sign * value >= self.sign * threshold

    def _beats_baseline(self, value: float) -> bool:
        baseline = self.spec.baseline
        if baseline is not None and self._is_better(value, baseline):
            self.is_baseline_beaten = True
        return self.is_baseline_beaten

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, for the checkpoint."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "wait": self.wait,
            "cooldown_left": self.cooldown_left,
            "is_baseline_beaten": self.is_baseline_beaten,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        for name, value in state.items():
            setattr(self, name, value)
