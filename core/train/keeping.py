"""Weights that are kept beside the best and the last: `checkpoints.keep_best` and `keep_last`.

They are copies in the memory of the host and part of every checkpoint, so that an interrupted job ends with the same
ones as an undisturbed job, and no file has to be found again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """Weights as they were after an epoch or a check, on the CPU."""

    epoch: int
    step: int
    weights: dict[str, Tensor]
    value: float = math.nan
    """Of the monitor; NaN where the weights were not judged."""

    def state_dict(self) -> dict[str, Any]:
        """Return the fields, for the checkpoint; the tensors are not copied."""
        return {"epoch": self.epoch, "step": self.step, "weights": self.weights, "value": self.value}


def _copied(weights: Weights) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}


class Shelf:
    """The next best weights by the monitor's value, and those after the latest epochs.

    Args:
        keep_best: of the best weights, the best one included, which is kept elsewhere.
        keep_last: of the latest epochs, the last one included.
        every: a latest epoch is one whose number this divides.
        sign: 1 where more is better, -1 where less is.
    """

    def __init__(self, keep_best: int = 1, keep_last: int = 1, *, every: int = 1, sign: float = -1.0) -> None:
        self.keep_best, self.keep_last, self.every, self.sign = keep_best, keep_last, every, sign
        self.next_best: list[Copy] = []
        """The best first; of equal ones the earlier."""
        self.latest: list[Copy] = []

    def offer(self, weights: Weights, *, value: float, epoch: int, step: int) -> None:
        """Keep weights that are not the best ones (any more) where they are among the next best."""
        better = sum(self._rank(copy.value, copy.step) < self._rank(value, step) for copy in self.next_best)
        if better < self.keep_best - 1:
            self.next_best.insert(better, Copy(epoch, step, _copied(weights), value))
            del self.next_best[self.keep_best - 1 :]

    def end_epoch(self, model: nn.Module, *, epoch: int, step: int) -> None:
        """Keep the weights after an epoch, and let go of the oldest."""
        if self.keep_last > 1 and epoch % self.every == 0:
            self.latest.append(Copy(epoch, step, _copied(model.state_dict())))
            del self.latest[: -self.keep_last]

    def before(self, step: int) -> list[Copy]:
        """Return the latest copies before the last weights, which are those of `step`; the newest first."""
        earlier = [copy for copy in self.latest if copy.step != step]
        return earlier[::-1][: self.keep_last - 1]

    def state_dict(self) -> dict[str, Any]:
        """Return all copies, for the checkpoint."""
        return {
            "next_best": [copy.state_dict() for copy in self.next_best],
            "latest": [copy.state_dict() for copy in self.latest],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.next_best = [Copy(**copy) for copy in state["next_best"]]
        self.latest = [Copy(**copy) for copy in state["latest"]]

    def _rank(self, value: float, step: int) -> tuple[float, int]:
        return -self.sign * value, step
