"""The pipe to the supervisor, in the roles that the loop knows."""

import threading
from typing import Any

from core.messages import Progress, Publish, Stage, StageChanged
from core.train.roles import Channel


class SupervisorGoneError(BaseException):
    """Nobody listens any more: exit at once. Not an `Exception`, so that nothing in between mistakes it for one."""


class Pipe:
    """Plays MetricSink and ControlSource over a channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.reason: str | None = None
        self._lock = threading.Lock()
        self._newest: Progress | None = None

    def send(self, message: Any) -> None:
        """Write one message."""
        try:
            self.channel.send(message)
        except BrokenPipeError as error:
            raise SupervisorGoneError from error

    def publish(self, publication: Publish) -> None:
        """Send finished rows; training has gone on meanwhile, and what was told of its progress never goes back."""
        with self._lock:
            newest, taken = self._newest, publication.progress
            if newest is not None and taken is not None and newest.step > taken.step:
                publication = publication.model_copy(update={"progress": newest})
            self.send(publication)

    def progress(self, progress: Progress) -> None:
        """Send a sign of life."""
        with self._lock:
            self._newest = progress
            self.send(progress)

    def stage(self, stage: Stage) -> None:
        """Send the new stage."""
        self.send(StageChanged(stage=stage))

    def stop_reason(self) -> str | None:
        """Return why to stop, once the supervisor said so."""
        message = self.channel.receive(0)
        while message is not None:
            if message.get("type") == "stop":
                self.reason = str(message["reason"])
            message = self.channel.receive(0)
        if self.channel.closed:
            raise SupervisorGoneError
        return self.reason
