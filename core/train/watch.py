"""Looks up every 20 ms: is a stop asked for, is time used up, is a sign of life due, may threads spin."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.messages import Progress, Stage
from core.train.roles import ControlSource, MetricSink
from core.train.spinning import Spinning

POLL_SECONDS = 0.02
PROGRESS_SECONDS = 1.0


class Interrupted(Exception):
    """Someone asked for a stop; `reason` is theirs."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"asked to stop: {reason}")
        self.reason = reason


class TimeUsedUp(Exception):
    """`execution.max_runtime_seconds` of active time are over."""


class Watch:
    """The clock of an attempt, and its ear to the outside.

    Args:
        control: who may ask to stop.
        sink: who is told.
        earlier_seconds: active time of earlier attempts.
        limit_seconds: active time allowed in all; None: no limit.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        control: ControlSource,
        sink: MetricSink,
        *,
        earlier_seconds: float = 0.0,
        limit_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.control, self.sink, self.clock = control, sink, clock
        self.started = clock() - earlier_seconds
        self.limit_seconds = limit_seconds
        self.next_look = self.next_progress = 0.0
        self.spinning: Spinning | None = None
        """Of a trainer of several threads."""
        self.stage: Stage = "starting"
        self.durations: dict[Stage, float] = {}

    @property
    def active_seconds(self) -> float:
        """Training time of all attempts so far."""
        return self.clock() - self.started

    def tick(self, progress: Callable[[], Progress]) -> None:
        """Do what is due; called after every step, it mostly only reads the clock.

        Raises:
            Interrupted: a stop was asked for.
            TimeUsedUp: the time limit is reached.
        """
        now = self.clock()
        if now < self.next_look:
            return
        self.next_look = now + POLL_SECONDS
        self.look()
        if self.spinning is not None:
            self.spinning.look()
        if now >= self.next_progress:
            self.next_progress = now + PROGRESS_SECONDS
            self.sink.progress(progress())

    def look(self) -> None:
        """Ask for a stop and compare the time, now.

        Raises:
            Interrupted: a stop was asked for.
            TimeUsedUp: the time limit is reached.
        """
        reason = self.control.stop_reason()
        if reason is not None:
            raise Interrupted(reason)
        if self.limit_seconds is not None and self.active_seconds >= self.limit_seconds:
            raise TimeUsedUp(f"{self.limit_seconds:g} s of training time are used up (execution.max_runtime_seconds)")

    def enter(self, stage: Stage) -> None:
        """Tell of a new stage."""
        if stage != self.stage:
            self.stage = stage
            self.sink.stage(stage)

    @contextmanager
    def during(self, stage: Stage) -> Iterator[None]:
        """Be in `stage` for a while; told only if it took long the last time, as flicker tells nobody anything."""
        before, began = self.stage, self.clock()
        if self.durations.get(stage, 0.0) >= PROGRESS_SECONDS:
            self.enter(stage)
        yield
        self.durations[stage] = self.clock() - began
        self.enter(before)
