"""How far a training is to go (`Plan`), and how far it has come (`Position`)."""

from dataclasses import dataclass

from core.messages import StopReason


@dataclass(frozen=True, slots=True)
class Plan:
    """How far to go, and how often to look."""

    epochs: int
    updates_per_epoch: int
    batch_size: int
    accumulate: int = 1
    max_steps: int | None = None
    validate_epochs: int | None = 1
    """Validate after every so many epochs, and after the last."""
    validate_steps: int | None = None
    """Validate after every so many updates, and after the last."""
    evaluate_at_start: bool = False
    swa_start_epoch: int | None = None

    @property
    def steps(self) -> int:
        """Optimizer updates of the whole job, if nothing ends it sooner."""
        steps = self.epochs * self.updates_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)


@dataclass(slots=True)
class Position:
    """How far the training has come; all of it is in every checkpoint."""

    epoch: int = 0
    """Finished epochs."""
    batch: int = 0
    """Batches done of the epoch that runs."""
    step: int = 0
    """Optimizer updates since the job began."""
    validated_step: int = 0
    """The update after which the validation set was looked at last."""
    averaged_epoch: int = 0
    """The last epoch that went into the equal average (SWA)."""
    is_start_evaluated: bool = False
    seconds: float = 0.0
    """Time that earlier attempts spent in the epoch that runs."""
    verdict: StopReason | None = None
    """Why the epoch that runs is the last."""
    stop_reason: StopReason | None = None
    """Why training is over."""
