"""Publications on their way to the database.

While the database is away the trainer goes on, so finished epochs come faster than they are written. They are then
joined: all rows, with the newest checkpoint, in one transaction. The one that was tried already stays as it was, for
nobody knows whether it was committed; the database recognises it by its checkpoint.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from core.db import leases
from core.db.leases import Claim
from core.faults import hit
from core.messages import Publish
from worker.folder import AttemptFolder


@dataclass
class Publication:
    """Rows and decisions with the checkpoint that holds them."""

    newest: Publish
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    decisions: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    was_tried: bool = False


class Publisher:
    """Turns the trainer's `Publish` messages into transactions."""

    def __init__(self, claim: Claim, folder: AttemptFolder) -> None:
        self._claim = claim
        self._folder = folder
        self._rows: list[dict[str, Any]] = []
        self._decisions: list[dict[str, Any]] = []
        self._waiting: list[Publication] = []

    def take(self, message: Publish) -> bool:
        """Take one message; return whether a new transaction is needed for it.

        One whose checkpoint the trainer has removed meanwhile waits for the next, which holds its epochs as well.
        """
        self._rows += message.rows
        self._decisions += message.decisions
        if not self._folder.hold(message.checkpoint):
            return False
        hit("publish.held")
        rows, decisions = self._rows.copy(), self._decisions.copy()
        self._rows.clear()
        self._decisions.clear()
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.was_tried:
            self._waiting.append(Publication(message, rows, decisions))
            return True
        if last.newest.checkpoint.name != message.checkpoint.name:
            self._folder.drop(last.newest.checkpoint)
        last.newest = message
        last.rows += rows
        last.decisions += decisions
        return False

    def store(self) -> None:
        """Bring the checkpoint of the first that waits into the storage; from now on nothing is joined to it."""
        first = self._waiting[0]
        first.was_tried = True
        self._folder.store(first.newest.checkpoint)
        hit("publish.stored")

    def write(self, session: Session) -> None:
        """Publish the first that waits.

        Raises:
            OwnershipLost: another worker owns the job.
        """
        first = self._waiting[0]
        newest = first.newest
        key = self._folder.checkpoint_key(newest.checkpoint)
        leases.publish(
            session,
            self._claim.job_id,
            self._claim.fence,
            checkpoint=leases.Checkpoint(key=key, digest=newest.checkpoint.digest, epoch=newest.checkpoint.epoch),
            rows=first.rows,
            decisions=first.decisions,
            best=newest.best,
            progress=None if newest.progress is None else newest.progress.model_dump(exclude={"type"}),
            active_seconds=newest.active_seconds,
        )
        hit("publish.written")

    def written(self) -> None:
        """Forget the first that waited: it is committed."""
        hit("publish.committed")
        newest = self._waiting.pop(0).newest
        self._folder.published(newest.checkpoint, None if newest.best is None else newest.best.get("epoch"))
