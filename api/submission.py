"""From a posted body to an accepted job: parse, find the data, preflight, one row, ring."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool

from api.access import Caller
from api.preflight import issue_of
from api.services import Services
from api.uploads import attach
from core import spec as specs
from core.db import jobs
from core.db.tables import Job
from core.errors import ChildFailed, Malformed, SpecInvalid
from core.faults import hit
from core.messages import DatasetFile
from core.spec import JobSpec
from core.spec.decode import decode

log = structlog.get_logger(__name__)

MAX_KEY_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Prepared:
    """A spec whose words are right."""

    pinned: dict[str, Any]
    """As posted, with the version of every upload that was the newest."""
    uploads: dict[str, DatasetFile]


def idempotency_key(value: str | None) -> str | None:
    """Check an Idempotency-Key header.

    Raises:
        Malformed: it is empty, too long, or not printable ASCII.
    """
    if value is None:
        return None
    if not 1 <= len(value) <= MAX_KEY_LENGTH or not value.isascii() or not value.isprintable():
        raise Malformed(f"Idempotency-Key must have 1 to {MAX_KEY_LENGTH} printable ASCII characters")
    return value


def prepare(svc: Services, who: Caller, body: bytes) -> Prepared:
    """Parse a body and find the uploads that it names in the caller's project.

    Raises:
        Malformed: no JSON.
        SpecInvalid: no spec, or it names data that the project does not have.
    """
    posted = decode(body)
    specs.parse_object(posted)
    return _prepared(svc, who, posted)


def _prepared(svc: Services, who: Caller, posted: dict[str, Any]) -> Prepared:
    return Prepared(*attach(svc, who.project, posted))


async def check(svc: Services, prepared: Prepared) -> dict[str, Any]:
    """Ask preflight for its report.

    Raises:
        ChildFailed: there is none.
    """
    with svc.telemetry.preflight():
        return await svc.preflight.check(prepared.pinned, prepared.uploads)


async def submit(svc: Services, who: Caller, body: bytes, key: str | None) -> tuple[Job, bool]:
    """Accept a job.

    Returns:
        The job, and whether it is new.

    Raises:
        Malformed: no JSON.
        SpecInvalid: it cannot run.
        IdempotencyMismatch: the key was used for another body.
    """
    posted, new = await run_in_threadpool(_read, who, body, key)
    if key is not None and (first := await run_in_threadpool(_replay, svc, new)) is not None:
        return first, False
    prepared = await run_in_threadpool(_prepared, svc, who, posted)
    try:
        report = await check(svc, prepared)
    except ChildFailed as error:  # the trainer checks the same before it trains
        log.warning("preflight.skipped", reason=error.detail)
        if prepared.uploads:  # a newer upload must not change what was accepted
            new = replace(new, resolved_spec=prepared.pinned)
    else:
        if not report["ok"]:
            raise SpecInvalid([issue_of(item) for item in report["errors"]])
        new = replace(new, resolved_spec=report["resolved_spec"])
    return await run_in_threadpool(_create, svc, new)


def _read(who: Caller, body: bytes, key: str | None) -> tuple[dict[str, Any], jobs.NewJob]:
    """Parse in a thread: a body of 1 MiB full of mistakes takes a second."""
    posted = decode(body)
    return posted, _new_job(who, posted, specs.parse_object(posted), key)


def _new_job(who: Caller, posted: dict[str, Any], spec: JobSpec, key: str | None) -> jobs.NewJob:
    body = json.dumps(posted, sort_keys=True, separators=(",", ":")).encode()
    wants_gpu = spec.execution.device == "gpu"
    return jobs.NewJob(
        project=who.project,
        spec=posted,
        spec_digest=specs.digest(spec),
        body_sha256=hashlib.sha256(body).hexdigest(),
        idempotency_key=key,
        name=spec.name,
        metadata=dict(spec.metadata),
        queue=spec.execution.queue or ("gpu" if wants_gpu else "cpu"),
        priority=spec.execution.priority,
    )


def _replay(svc: Services, new: jobs.NewJob) -> Job | None:
    with svc.database.session_scope(write=False) as session:
        return jobs.first_of_key(session, new)


def _create(svc: Services, new: jobs.NewJob) -> tuple[Job, bool]:
    with svc.database.session_scope() as session:
        job, is_new = jobs.create(session, new)
        hit("post.written")
    hit("post.committed")
    if is_new:
        svc.ring(job)
        hit("post.rung")
    return job, is_new
