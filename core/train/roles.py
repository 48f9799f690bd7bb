"""What the loop needs from outside, as roles: whoever plays them (a pipe, a notebook, a test) is not its business."""

from collections.abc import Callable
from typing import Any, Protocol

from core.messages import CheckpointRef, Progress, Publish, Stage


class Channel(Protocol):
    """The pipe to the supervisor, as `core.process` hands it to a child."""

    def send(self, message: Any) -> None:
        """Write one message."""

    def receive(self, timeout: float | None = 0) -> dict[str, Any] | None:
        """Return the next message; None when none came within `timeout` seconds."""

    @property
    def closed(self) -> bool:
        """Whether the other end is gone."""


class MetricSink(Protocol):
    """Who is told how the training goes: by its own thread and, of publications, by one beside it."""

    def publish(self, publication: Publish) -> None:
        """Take finished rows, and the checkpoint that holds them."""

    def progress(self, progress: Progress) -> None:
        """Take a sign of life; at most once a second."""

    def stage(self, stage: Stage) -> None:
        """Take the job's new stage."""


class ControlSource(Protocol):
    """Who may ask the training to stop."""

    def stop_reason(self) -> str | None:
        """Return `pause`, `cancel`, `drain` or `outage` once asked to stop; cheap enough for 50 calls a second."""


class CheckpointStore(Protocol):
    """Where checkpoints are kept."""

    def take(self, state: dict[str, Any], *, epoch: int, step: int) -> Callable[[], CheckpointRef]:
        """Copy `state` as it is now.

        Returns:
            What writes that copy so that it survives a crash of the machine, and only then returns. It is called once,
            in any thread, before the next is taken.
        """
