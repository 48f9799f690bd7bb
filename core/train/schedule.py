"""The learning rate over time: torch's schedulers by epoch or by step, and what a plateau decided."""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import SWALR


class Schedule:
    """Steps the scheduler when it is due, and remembers the rates that the last update used.

    Args:
        optimizer: whose rates they are.
        scheduler: torch's, or None for constant rates.
        interval: `epoch` or `step`.
        monitor: what `ReduceLROnPlateau` looks at, such as `val_loss`.
        swa: from `(epoch, lr)` on, anneal to `lr` instead (`torch.optim.swa_utils.SWALR`).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        *,
        interval: str = "epoch",
        monitor: str = "val_loss",
        swa: tuple[int, float] | None = None,
    ) -> None:
        self.optimizer, self.scheduler, self.monitor, self.swa = optimizer, scheduler, monitor, swa
        self.is_by_step = interval == "step"
        self.lr = self.current()
        """Of every parameter group, as the last update used them."""
        if swa is not None and swa[0] == 1:
            self._begin_swa(swa[1])

    def current(self) -> list[float]:
        """Return the rate of every parameter group as it is now."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def after_step(self) -> None:
        """Follow an optimizer update."""
        if self.is_by_step and self.scheduler is not None:
            self.lr = self.current()
            self.scheduler.step()

    def after_epoch(self, metrics: Mapping[str, float], epoch: int, step: int) -> list[dict[str, Any]]:
        """Follow the end of `epoch`; return the decisions taken."""
        if not self.is_by_step:
            self.lr = self.current()
        decisions: list[dict[str, Any]] = []
        if isinstance(self.scheduler, ReduceLROnPlateau):
            decisions = self._after_plateau(self.scheduler, metrics, epoch, step)
        elif self.scheduler is not None and not self.is_by_step:
            self.scheduler.step()
        if self.swa is not None and epoch == self.swa[0] - 1:
            self._begin_swa(self.swa[1])
        return decisions

    def _begin_swa(self, lr: float) -> None:
        self.scheduler, self.is_by_step = SWALR(self.optimizer, lr), False

    def _after_plateau(
        self, scheduler: ReduceLROnPlateau, metrics: Mapping[str, float], epoch: int, step: int
    ) -> list[dict[str, Any]]:
        value = metrics.get(self.monitor)
        if value is None:
            return []
        scheduler.step(value)
        after = self.current()
        if after == self.lr:
            return []
        return [
            {
                "kind": "lr_cut",
                "epoch": epoch,
                "step": step,
                "monitor": self.monitor,
                "value": value,
                "best": float(scheduler.best),
                "patience": scheduler.patience,
                "factor": scheduler.factor,
                "lr_before": self.lr,
                "lr_after": after,
            }
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state, for the checkpoint."""
        state = None if self.scheduler is None else self.scheduler.state_dict()
        return {"scheduler": state, "is_swa": isinstance(self.scheduler, SWALR), "lr": self.lr}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; the optimizer's own state is loaded after this."""
        if state["is_swa"] and self.swa is not None:
            self._begin_swa(self.swa[1])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
            vars(self.optimizer)["_opt_called"] = True  # in an earlier attempt; else torch warns of a wrong order
        self.lr = list(state["lr"])
