"""What an attempt writes about itself: every statement of a supervisor goes through here, in order."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from sqlalchemy.orm import Session

from core.db import leases
from core.db.endings import AttemptEnd
from core.db.leases import ArtifactFile, Claim
from core.db.states import Desired, TerminalState
from core.faults import Point, hit
from core.messages import Done, Failed, Progress, Publish, Stage, Started
from core.process import Exit
from worker.folder import AttemptFolder, sweep
from worker.ledger import Entry, Ledger
from worker.outcome import Category, Failure, of_code, of_error
from worker.publishing import Publisher
from worker.pulse import Pulse
from worker.site import Site

PROGRESS_SECONDS = 2.0
"""Progress is written with a heartbeat, but not more often than this."""
log = structlog.get_logger(__name__)


class Record:
    """The database's view of one attempt."""

    def __init__(self, site: Site, claim: Claim, folder: AttemptFolder) -> None:
        self._site = site
        self._claim = claim
        self._folder = folder
        self._ledger = Ledger(site.database)
        self._publisher = Publisher(claim, folder)
        self._desired: Desired = "run"
        self._active_seconds = claim.active_seconds
        self._pid: int | None = None
        self._device: str | None = None
        self._state: str = "running"
        self._artifacts: list[ArtifactFile] = []
        self._beat_at = 0.0
        self._told: tuple[Stage | None, Progress | None] = (None, None)
        self.stage: Stage | None = None
        self.progress: Progress | None = None

    @property
    def away_seconds(self) -> float:
        """For how long the database has not answered."""
        return self._ledger.away_seconds

    def begin(self, pid: int, device: str) -> None:
        """Note who runs where."""
        self._pid, self._device = pid, device

    def desired(self) -> Desired:
        """Return what the owner wants; the last answer while the database is away.

        Raises:
            OwnershipLost: another worker owns the job.
        """

        def read(session: Session) -> None:
            self._desired = leases.wish(session, self._claim.job_id, self._claim.fence)

        if self._state == "running":
            self._ledger.attempt(read, is_writing=False)
        return self._desired

    def write(self) -> bool:
        """Write what waits, and a heartbeat when it is due; return whether nothing waits any more.

        Raises:
            OwnershipLost: another worker owns the job.
        """
        is_empty = self._ledger.flush()
        if self._state == "running" and self._is_beat_due():
            self._beat()
        return is_empty

    def started(self, started: Started) -> None:
        """Note the trainer's plan."""

        def write(session: Session) -> None:
            leases.start(
                session,
                self._claim.job_id,
                self._claim.fence,
                resolved_spec=started.resolved_spec,
                numerics=started.numerics,
                from_epoch=started.from_epoch,
                pid=self._pid,
                device=self._device,
                decisions=[*_rollbacks(started), *_at_first(started, self._claim)],
            )
            hit("start.written")

        log.info("attempt.started", from_epoch=started.from_epoch, device=self._device)
        self._ledger.add(Entry(write, after=lambda: hit("start.committed")))

    def publish(self, publication: Publish) -> None:
        """Make finished epochs visible, set together with their checkpoint."""
        self._active_seconds = max(self._active_seconds, publication.active_seconds)
        if publication.progress is not None:
            self.progress = publication.progress
        if self._publisher.take(publication):
            publisher = self._publisher
            self._ledger.add(Entry(publisher.write, before=self._kept_alive(publisher.store), after=publisher.written))

    def succeed(self, done: Done, how: Exit | None) -> None:
        """End the job: its artifacts are checked and stored first."""
        try:
            self._kept_alive(lambda: self._store_artifacts(done))()
        except OSError as error:
            self.fail(of_error(error, "An artifact could not be stored"), how)
            return
        except ValueError as error:
            self.fail(of_code("crash", f"An artifact could not be stored: {error}"), how)
            return
        self._active_seconds = max(self._active_seconds, done.active_seconds)
        self._finish(
            "succeeded", done.stop_reason, how, artifacts=self._artifacts, best=done.best,
            test_metrics=done.test_metrics, decisions=done.decisions,
        )  # fmt: skip

    def _store_artifacts(self, done: Done) -> None:
        self._artifacts = [
            ArtifactFile(
                name=file.name, key=self._folder.store_artifact(file), sha256=file.sha256, size_bytes=file.size_bytes
            )
            for file in done.artifacts
        ]
        hit("artifacts.stored")

    def _kept_alive(self, action: Callable[[], None]) -> Callable[[], None]:
        """Return the action with heartbeats beside it, for bringing files to a storage elsewhere may take minutes."""
        if self._folder.is_in_storage:
            return action
        return lambda: Pulse(self._site, self._claim).during(action)

    def cancel(self, how: Exit | None) -> None:
        """End the job as its owner wanted."""
        self._finish("cancelled", "cancelled", how)

    def pause(self, how: Exit | None) -> None:
        """Let go of the job at its last checkpoint."""

        def write(session: Session) -> None:
            self._state = leases.pause(session, self._claim.job_id, self._claim.fence, end=self._end(how))
            hit("pause.written")

        self._ledger.add(Entry(write, after=lambda: self._ended("pause.committed")))

    def fail(self, failure: Failure, how: Exit | None, failed: Failed | None = None) -> None:
        """End the job, or have it tried again, as the failure says."""
        if failed is not None:
            self._active_seconds = max(self._active_seconds, failed.active_seconds)
        log.warning("attempt.failed", code=failure.code, message=failure.message, exit=how)
        end = self._end(how, failure.code, failure.message, failure.category)
        if failure.is_retryable:
            self._requeue("crashed", end, failure)
            return
        error = {
            "code": failure.code,
            "message": failure.message,
            "category": failure.category,
            "retryable": False,
            "attempt": self._claim.attempt,
            **({"issues": failed.issues} if failed is not None and failed.issues else {}),
        }
        self._finish(
            "failed", failure.stop_reason, how, error=error, end=end, decisions=failed.decisions if failed else ()
        )

    def requeue(self, code: str, message: str, how: Exit | None = None) -> None:
        """Give the job back at no cost to its budgets."""
        self._requeue("drained", self._end(how, code, message), None)

    def tidy(self) -> None:
        """Remove what nothing points to, once the job has ended here."""
        if self._state not in ("succeeded", "failed", "cancelled"):
            return
        published = [one.key for one in (self._claim.checkpoint, self._claim.previous_checkpoint) if one is not None]
        keep = frozenset([*published, *self._folder.kept_keys, *(file.key for file in self._artifacts)])
        sweep(self._site.storage, self._claim.job_id, range(1, self._claim.fence + 1), keep)

    def _requeue(self, outcome: leases.Outcome, end: AttemptEnd, failure: Failure | None) -> None:
        def write(session: Session) -> None:
            self._state = leases.requeue(
                session,
                self._claim.job_id,
                self._claim.fence,
                outcome=outcome,
                end=end,
                counts_as=None if failure is None else failure.counts_as,
            )
            hit("requeue.written")

        self._ledger.add(Entry(write, after=lambda: self._ended("requeue.committed")))

    def _finish(
        self,
        state: TerminalState,
        stop_reason: str,
        how: Exit | None,
        *,
        end: AttemptEnd | None = None,
        **fields: Any,
    ) -> None:
        def write(session: Session) -> None:
            leases.finish(
                session,
                self._claim.job_id,
                self._claim.fence,
                state=state,
                stop_reason=stop_reason,
                end=end or self._end(how),
                **fields,
            )
            self._state = state
            hit("finish.written")

        self._ledger.add(Entry(write, after=lambda: self._ended("finish.committed")))

    def _ended(self, point: Point) -> None:
        hit(point)
        log.info("attempt.ended", state=self._state)
        if self._state == "queued":
            self._site.ringing.ring(self._claim.queue, self._claim.job_id)

    def _end(
        self, how: Exit | None, code: str | None = None, message: str | None = None, category: Category | None = None
    ) -> AttemptEnd:
        return AttemptEnd(
            code=code,
            message=message,
            category=category or "infrastructure",
            exit_code=None if how is None else how.code,
            signal=None if how is None else how.signal,
            max_rss_bytes=None if how is None else how.max_rss_bytes,
            active_seconds=self._active_seconds,
        )

    def _is_beat_due(self) -> bool:
        since = time.monotonic() - self._beat_at
        stage, progress = self._told
        if since >= self._site.settings.heartbeat_seconds or stage != self.stage:
            return True
        return progress is not self.progress and since >= PROGRESS_SECONDS

    def _beat(self) -> None:
        telling = (self.stage, self.progress)

        def beat(session: Session) -> None:
            self._desired = leases.heartbeat(
                session,
                self._claim.job_id,
                self._claim.fence,
                self._site.settings.lease_seconds,
                progress=_as_json(telling[1]),
                stage=telling[0],
            )
            hit("heartbeat.written")

        if self._ledger.attempt(beat):
            hit("heartbeat.committed")
            self._beat_at = time.monotonic()
            self._told = telling


def _rollbacks(started: Started) -> list[dict[str, Any]]:
    """Say to the job's owner that a checkpoint was damaged, and how far the job went back."""
    return [
        {"kind": "rollback", "epoch": started.from_epoch, "reason": warning["detail"]}
        for warning in started.warnings
        if warning["code"] == "checkpoint_passed_over"
    ]


TOLD_AT_FIRST = {
    "no_effect": ("pointer",),
    "duplicates": ("split", "duplicates", "samples"),
    "compile": ("compiled",),
}
"""Warnings that are decisions of the job's first start, and of no later one; with the numbers that they come with."""


def _at_first(started: Started, claim: Claim) -> list[dict[str, Any]]:
    """Say to the job's owner what the first start found: fields without effect, samples in two splits, and so on."""
    return [
        {
            "kind": warning["code"],
            "epoch": started.from_epoch,
            "reason": warning["detail"],
            **{name: warning[name] for name in TOLD_AT_FIRST[warning["code"]]},
        }
        for warning in started.warnings
        if warning["code"] in TOLD_AT_FIRST and claim.numerics is None
    ]


def _as_json(progress: Progress | None) -> Mapping[str, Any] | None:
    return None if progress is None else progress.model_dump(exclude={"type"})
