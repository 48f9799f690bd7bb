"""What the rows say about the service: workers, queues without one, jobs whose lease is over."""

from collections import Counter
from collections.abc import Iterator, Sequence

from core import versions
from core.db import figures, workers
from core.db.engine import Database
from core.db.tables import Worker
from core.doctor.findings import Finding, error, ok, warning

OVER_SECONDS = 60.0
"""Reapers look every few seconds, and wait for one lease after an outage."""


def look(database: Database) -> Iterator[Finding]:
    """Check workers and queues."""
    with database.session_scope(write=False) as session:
        found = workers.listing(session)
        active = figures.active(session, None)
        waiting = figures.waiting_seconds(session, None)
        over = figures.leases_over(session, None, by_seconds=OVER_SECONDS)
    yield _there(found)
    yield _versions(found)
    yield from _queues(found, Counter({queue: n for queue, state, n in active if state == "queued"}), waiting)
    yield _leases(over)


def _there(found: Sequence[Worker]) -> Finding:
    ready = [worker for worker in found if not worker.is_draining]
    slots = sum(worker.slots for worker in ready)
    numbers = {"ready": len(ready), "draining": len(found) - len(ready), "slots": slots}
    if not ready:
        advice = "Start one: `epochd up` has one, `python -m worker` is one."
        return warning("service.workers", "No worker gave a sign of life in the last minute.", advice, **numbers)
    names = ", ".join(worker.name for worker in ready)
    return ok("service.workers", f"{len(ready)} with {slots} slots take jobs: {names}.", **numbers)


def _versions(found: Sequence[Worker]) -> Finding:
    ours = versions.own()
    others = {worker.name: worker.version for worker in found if worker.version != ours}
    if not others:
        return ok("service.versions", f"All run {ours}, as this program.", ours=ours)
    words = ", ".join(f"{name} {version}" for name, version in others.items())
    advice = "Fine during an update; else install the same version everywhere."
    return warning("service.versions", f"This program is {ours}; other versions: {words}.", advice, others=others)


def _queues(found: Sequence[Worker], queued: Counter[str], waiting: dict[str, float]) -> Iterator[Finding]:
    served = {queue for worker in found if not worker.is_draining for queue in worker.queues}
    for queue, jobs in sorted(queued.items()):
        check, numbers = f"service.queue.{queue}", {"queued": jobs, "oldest_seconds": waiting.get(queue, 0.0)}
        words = f"{jobs} jobs wait in {queue}, the oldest for {numbers['oldest_seconds']:.0f} s"
        if queue in served:
            yield ok(check, f"{words}; workers serve it.", **numbers)
        else:
            advice = f"Start a worker with EPOCHD_QUEUES={queue}, or cancel them."
            yield error(check, f"{words}, and no worker serves it.", advice, **numbers)


def _leases(over: int) -> Finding:
    if not over:
        return ok("service.leases", "Every running job has an owner.", over=0)
    advice = "Some worker must live to take them over: start one, and look at its log for `housekeeping`."
    found = f"{over} running jobs have had no owner for over {OVER_SECONDS:.0f} s."
    return error("service.leases", found, advice, over=over)
