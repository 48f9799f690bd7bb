"""Which files the rows point to: what must be kept, what a backup needs, and so what may go."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.db.clock import now
from core.db.states import TERMINAL
from core.db.tables import Artifact, Attempt, Dataset, DatasetVersion, Job

BATCH = 500  # ids of one statement

_UNSYNCED = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class Kept:
    """What a job's row holds on to.

    Attributes:
        fence: only an attempt with this one can still make the row name a new file. Files below a smaller fence that
            are not in `keys` will never be named again, for a fence only rises and a pointer only leaves old files.
        is_over: whether the job has ended.
        keys: checkpoints and artifacts that rows name.
    """

    fence: int
    is_over: bool
    keys: frozenset[str]


class File(NamedTuple):
    """A file that a row names."""

    key: str
    digest: str | None
    """None for a log, which may still grow."""
    is_passing: bool
    """A checkpoint of a job that has not ended: its worker removes it two checkpoints later."""


def kept(session: Session, job_ids: Sequence[str]) -> dict[str, Kept]:
    """Return what each of these jobs holds on to; a job that is not there is left out."""
    keys: dict[str, set[str]] = {}
    for job_id, key in session.execute(select(Artifact.job_id, Artifact.key).where(Artifact.job_id.in_(job_ids))):
        keys.setdefault(job_id, set()).add(key)
    columns = (Job.id, Job.fence, Job.state, Job.checkpoint_key, Job.previous_checkpoint)
    found: dict[str, Kept] = {}
    for job_id, fence, state, key, previous in session.execute(select(*columns).where(Job.id.in_(job_ids))):
        pointers = {one for one, _ in _checkpoints(key, None, previous)}
        found[job_id] = Kept(fence, state in TERMINAL, frozenset(keys.get(job_id, set()) | pointers))
    return found


def uploads(session: Session, keys: Sequence[str]) -> set[str]:
    """Return those of the keys that a version of a data set names."""
    return set(session.scalars(select(DatasetVersion.key).where(DatasetVersion.key.in_(keys))))


def files(session: Session, log_name: str) -> Iterator[File]:
    """Yield every file that a row names, those that pass soonest first.

    Args:
        session: of one transaction, so that they belong together.
        log_name: of the file that every attempt leaves.
    """
    columns = (Job.state, Job.checkpoint_key, Job.checkpoint_digest, Job.previous_checkpoint)
    checkpoints = [
        File(key, digest, state not in TERMINAL)
        for state, current, current_digest, previous in session.execute(select(*columns))
        for key, digest in _checkpoints(current, current_digest, previous)
    ]
    yield from sorted(checkpoints, key=lambda file: not file.is_passing)
    for table in (Artifact, DatasetVersion):
        for key, sha256 in session.execute(select(table.key, table.sha256).distinct()):
            yield File(key, sha256, is_passing=False)
    for job_id, fence in session.execute(select(Attempt.job_id, Attempt.fence)):
        yield File(f"jobs/{job_id}/{fence}/{log_name}", None, is_passing=False)


def expired(session: Session, older_than_seconds: float) -> list[str]:
    """Return the jobs that ended so long ago."""
    return list(session.scalars(select(Job.id).where(*_has_expired(older_than_seconds)).order_by(Job.id)))


def delete_expired(session: Session, older_than_seconds: float, job_ids: Sequence[str]) -> list[str]:
    """Delete those of the jobs that ended so long ago, with all their rows; return which."""
    statement = delete(Job).where(Job.id.in_(job_ids), *_has_expired(older_than_seconds)).returning(Job.id)
    return list(session.scalars(statement, execution_options=_UNSYNCED))


def unused_versions(session: Session, older_than_seconds: float) -> list[tuple[str, int]]:
    """Return the versions of data sets, older than that, which no job names.

    The newest version stays while another one of its data set does: its number must not be given again.
    """
    used = _named_versions(session)
    statement = select(
        DatasetVersion.dataset_id, DatasetVersion.version, DatasetVersion.created_at < now(-older_than_seconds)
    ).order_by(DatasetVersion.dataset_id, DatasetVersion.version)
    by_dataset: dict[str, dict[int, bool]] = {}
    for dataset_id, version, is_old in session.execute(statement):
        is_free = bool(is_old) and used.isdisjoint({(dataset_id, version), (dataset_id, None)})
        by_dataset.setdefault(dataset_id, {})[version] = is_free
    return [
        (dataset_id, version)
        for dataset_id, versions in by_dataset.items()
        for version, is_free in versions.items()
        if is_free and (all(versions.values()) or version != max(versions))
    ]


def delete_versions(session: Session, versions: Iterable[tuple[str, int]]) -> None:
    """Delete versions of data sets, and data sets that have none left."""
    for dataset_id, version in versions:
        session.execute(
            delete(DatasetVersion).where(DatasetVersion.dataset_id == dataset_id, DatasetVersion.version == version),
            execution_options=_UNSYNCED,
        )
        is_empty = ~select(DatasetVersion.version).where(DatasetVersion.dataset_id == dataset_id).exists()
        session.execute(delete(Dataset).where(Dataset.id == dataset_id, is_empty), execution_options=_UNSYNCED)


def version_keys(session: Session, versions: Iterable[tuple[str, int]]) -> frozenset[str]:
    """Return the keys of the files that these versions name and no other does."""
    wanted = set(versions)
    named: set[str] = set()
    shared: set[str] = set()
    columns = (DatasetVersion.dataset_id, DatasetVersion.version, DatasetVersion.key)
    for dataset_id, version, key in session.execute(select(*columns)):
        (named if (dataset_id, version) in wanted else shared).add(key)
    return frozenset(named - shared)


def _has_expired(seconds: float) -> tuple[Any, ...]:
    return Job.state.in_(TERMINAL), Job.finished_at < now(-seconds)


def _checkpoints(
    key: str | None, digest: str | None, previous: Mapping[str, Any] | None
) -> Iterator[tuple[str, str | None]]:
    if key is not None:
        yield key, digest
    if previous:
        yield previous["key"], previous["digest"]


def _named_versions(session: Session) -> set[tuple[str, int | None]]:
    """Return data set and version of every source of every job; None for a job that names no version."""
    rows = session.execute(select(Job.resolved_spec, Job.spec), execution_options={"yield_per": BATCH})
    return {
        (str(source.get("id")), source.get("version"))
        for resolved, posted in rows
        for source in (resolved or posted).get("data", {}).values()
        if isinstance(source, dict) and cast("dict[str, Any]", source).get("type") == "dataset"
    }
