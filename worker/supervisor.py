"""One attempt of one job, from its claim to its last write. A thread runs it; training happens elsewhere.

    write the order → fork the trainer
    while it lives:
        take its messages       finished epochs become rows, each set together with its checkpoint
        look                    what does the owner want? is the worker stopping? is the trainer silent?
        write                   what waits, and a heartbeat; nothing is lost while the database is away
    read how it ended → the last write

Whenever a write is refused (`OwnershipLost`) the trainer is killed and nothing more is written.
"""

import time
from typing import Any

import structlog

from core.db.leases import Claim
from core.errors import ChildFailed, DatabaseAway, NotFound, OwnershipLost
from core.faults import hit
from core.messages import Done, Failed, Progress, Publish, StageChanged, Started, Stopped, from_trainer
from core.process import Child, Exit, Limits
from worker.devices import Assignment
from worker.folder import AttemptFolder
from worker.memory import OomCounter
from worker.order import make_order, spec_of, uploads_of
from worker.outcome import Failure, of_code, of_error, of_exit, of_failure
from worker.record import Record
from worker.site import Site
from worker.stopping import EXIT_GRACE_SECONDS, Stopping

LISTEN_SECONDS = 0.1
WATCH_SECONDS = 0.4
"""Between two looks at what the owner wants: a cancel is seen well within its 2 s."""
log = structlog.get_logger(__name__)

Last = Done | Stopped | Failed


class Supervisor:
    """Carries one claimed job."""

    def __init__(self, site: Site, claim: Claim) -> None:
        self._site = site
        self._claim = claim
        self._folder = AttemptFolder(site.storage, site.settings.caches / "attempts", claim.job_id, claim.fence)
        self._record = Record(site, claim, self._folder)
        self._last: Last | None = None
        self._heard_at = time.monotonic()
        self._next_look = 0.0
        self._found: Failure | None = None
        """Why this supervisor ended the trainer by itself; nothing more is read from it then."""

    def run(self) -> None:
        """Carry the job until its last write stands in the database, or belongs to another worker."""
        wanted = str(spec_of(self._claim).get("execution", {}).get("device", "auto"))
        try:
            with self._site.devices.assigned(wanted) as assignment:
                self._attempt(assignment)
            self._write_all()
        except OwnershipLost as lost:
            log.warning("attempt.ownership_lost", reason=lost.detail)
        else:
            self._record.tidy()
        finally:
            self._folder.leave()

    def _attempt(self, assignment: Assignment) -> None:
        memory = OomCounter()
        try:
            child = self._start(assignment)
        except DatabaseAway as away:
            self._record.requeue("outage", away.detail)
            return
        except (NotFound, ChildFailed, OSError) as error:
            self._record.fail(_not_started(error), None)
            return
        with child:
            hit("child.started")
            self._record.begin(child.pid, assignment.label)
            stopping = Stopping(child, self._site.settings.stop_grace_seconds)
            how = self._watch(child, stopping)
        self._store_log()
        self._end(stopping, how, was_oom=memory.has_grown())

    def _store_log(self) -> None:
        try:
            self._folder.store_log()
        except OSError as error:  # a log is worth no attempt
            log.warning("log.not_stored", reason=str(error))

    def _start(self, assignment: Assignment) -> Child:
        site, claim = self._site, self._claim
        with site.database.session_scope(write=False) as session:
            uploads = uploads_of(session, claim)
        self._folder.make()
        order = make_order(
            claim,
            uploads,
            settings=site.settings,
            storage=site.storage,
            folder=self._folder.path,
            assignment=assignment,
        )
        settings = site.settings
        limits = Limits(
            memory_bytes=settings.trainer_memory_bytes,
            file_bytes=settings.max_file_bytes,
            log_bytes=settings.max_log_bytes,
        )
        hit("child.starting")
        return site.template.spawn(
            site.trainer, order, limits=limits, log=self._folder.log, cwd=self._folder.path, env=assignment.env
        )

    def _watch(self, child: Child, stopping: Stopping) -> Exit | None:
        """Stay with the trainer until it has ended and its last message was read."""
        try:
            while child.exit is None or not (child.is_silent or self._found):
                self._listen(child, stopping)
                self._look(stopping)
                stopping.enforce()
                self._record.write()
        except BaseException:
            child.kill()
            child.wait(EXIT_GRACE_SECONDS)
            raise
        return child.wait(EXIT_GRACE_SECONDS)

    def _listen(self, child: Child, stopping: Stopping) -> None:
        """Take the messages that are there; wait a little for the first one."""
        if child.is_silent or self._found:
            child.wait(LISTEN_SECONDS)
            return
        try:
            message = child.receive(LISTEN_SECONDS)
            while message is not None:
                self._take(message, stopping)
                message = child.receive()
        except (ChildFailed, ValueError) as error:  # no JSON, or not in the words of core.messages
            self._give_up(of_code("crash", f"The trainer sent something that is not a message: {error}"), stopping)
        except OSError as error:
            self._give_up(of_error(error, "A checkpoint could not be kept"), stopping)

    def _take(self, message: dict[str, Any], stopping: Stopping) -> None:
        self._heard_at = time.monotonic()
        match from_trainer.validate_python(message):
            case Started() as started:
                self._record.started(started)
            case StageChanged(stage=stage):
                self._record.stage = stage
            case Progress() as progress:
                self._record.progress = progress
            case Publish() as publication:
                self._record.publish(publication)
            case Done() | Stopped() | Failed() as last:
                self._last = last
                stopping.within(EXIT_GRACE_SECONDS)

    def _look(self, stopping: Stopping) -> None:
        """Find reasons to stop the trainer."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + WATCH_SECONDS
        shutdown, settings = self._site.shutdown, self._site.settings
        match self._record.desired():
            case "cancel":
                stopping.ask("cancel")
            case "pause":
                stopping.ask("pause")
            case _ if shutdown.draining.is_set():
                stopping.ask("drain")
            case _ if self._record.away_seconds > settings.outage_seconds:
                stopping.ask("outage")
            case _:
                pass
        if shutdown.at_once.is_set() and not stopping.was_killed:
            stopping.kill()
        if now - self._heard_at > settings.stall_seconds and not stopping.was_killed:
            what = f"The trainer was silent for {settings.stall_seconds:g} s"
            self._give_up(of_code("stalled", what), stopping)

    def _give_up(self, found: Failure, stopping: Stopping) -> None:
        """End the trainer for a reason of the supervisor's own."""
        self._found = found
        stopping.kill()

    def _end(self, stopping: Stopping, how: Exit | None, *, was_oom: bool) -> None:
        """Put the last write on the list: what the trainer said, else what its owner asked for, else how it died."""
        match self._last, stopping.reason:
            case Done() as done, _:
                self._record.succeed(done, how)
            case _, "cancel":
                self._record.cancel(how)
            case Failed() as failed, _:
                self._record.fail(of_failure(failed), how, failed)
            case _, "pause":
                self._record.pause(how)
            case _, ("drain" | "outage") as reason:
                code = "drained" if reason == "drain" else "outage"
                self._record.requeue(code, f"The worker stopped the trainer ({reason}).", how)
            case _:
                self._record.fail(self._found or of_exit(how, was_oom=was_oom), how)

    def _write_all(self) -> None:
        """Write until nothing waits; a worker that must leave at once leaves the rest to the reaper."""
        while not self._record.write():
            if self._site.shutdown.at_once.wait(LISTEN_SECONDS):
                log.warning("attempt.left_unwritten")
                return


def _not_started(error: Exception) -> Failure:
    if isinstance(error, NotFound):
        return of_code("data_invalid", error.detail)
    what = "The trainer could not be started"
    return of_error(error, what) if isinstance(error, OSError) else of_code("crash", f"{what}: {error}")
