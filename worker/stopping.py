"""Asking a trainer to stop, and ending it when it does not."""

import time
from typing import Literal

import structlog

from core.errors import ChildFailed
from core.messages import Stop
from core.process import Child

Reason = Literal["pause", "cancel", "drain", "outage"]
CANCEL_GRACE_SECONDS = 1.0
"""A cancelled job has nothing to save: its memory is free within 2 s."""
EXIT_GRACE_SECONDS = 10.0
"""After its last message a trainer has only to leave."""
log = structlog.get_logger(__name__)


class Stopping:
    """One trainer's way out: a message, a grace, SIGKILL to its group.

    Args:
        child: the trainer.
        grace_seconds: for a checkpoint, unless it is cancelled.
    """

    def __init__(self, child: Child, grace_seconds: float) -> None:
        self._child = child
        self._grace_seconds = grace_seconds
        self._deadline: float | None = None
        self.reason: Reason | None = None
        """The first that was asked for; a later `cancel` takes its place."""
        self.was_killed = False

    def ask(self, reason: Reason) -> None:
        """Ask once; `cancel` may follow another reason and shortens the grace."""
        if self.reason == "cancel" or (self.reason is not None and reason != "cancel"):
            return
        log.info("trainer.asked_to_stop", pid=self._child.pid, reason=reason)
        if self.reason is None:
            try:
                self._child.send(Stop(reason=reason))
            except ChildFailed as error:  # it does not read: the grace runs all the same
                log.warning("trainer.does_not_listen", pid=self._child.pid, reason=str(error))
        self.reason = reason
        self.within(CANCEL_GRACE_SECONDS if reason == "cancel" else self._grace_seconds)

    def within(self, seconds: float) -> None:
        """Let SIGKILL follow after so many seconds, or sooner where that was said before."""
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)

    def enforce(self) -> None:
        """End a trainer whose grace is over."""
        if self._deadline is not None and not self.was_killed and time.monotonic() >= self._deadline:
            log.warning("trainer.killed", pid=self._child.pid, reason=self.reason)
            self.kill()

    def kill(self) -> None:
        """End the trainer now."""
        self.was_killed = True
        self._child.kill()
