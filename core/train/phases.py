"""Where an epoch's time goes, split over the five steps of an update; only on request, for on a GPU it has to wait."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

PHASES = ("batch", "forward", "loss", "backward", "update")
_NOTHING: AbstractContextManager[None] = nullcontext()


class Phases:
    """Adds up the seconds of each phase of the epoch that runs.

    Args:
        is_on: off, nothing is measured and nothing waits.
        device: whose work is waited for.
        clock: seconds that only rise.
    """

    def __init__(
        self, *, is_on: bool = False, device: torch.device | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.is_on, self.clock = is_on, clock
        self.has_to_wait = device is not None and device.type != "cpu"
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def during(self, phase: str) -> AbstractContextManager[None]:
        """Count what is done within to a phase."""
        return self._measured(phase) if self.is_on else _NOTHING

    @contextmanager
    def _measured(self, phase: str) -> Iterator[None]:
        begun_at = self._now()
        yield
        self.seconds[phase] += self._now() - begun_at

    def _now(self) -> float:
        if self.has_to_wait:
            torch.accelerator.synchronize()
        return self.clock()

    def take(self) -> dict[str, float] | None:
        """Return the epoch's seconds by phase and begin anew; None where nothing is measured."""
        if not self.is_on:
            return None
        taken, self.seconds = self.seconds, dict.fromkeys(PHASES, 0.0)
        return taken
