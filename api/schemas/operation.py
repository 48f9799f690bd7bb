"""What operators look at: workers, the queue, health, keys."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from api.schemas.base import Body, Instant, Wanted
from core.db.keys import DEFAULT_PROJECT, Scope
from core.db.tables import ApiKey, Worker

ORDINARY_SCOPES: list[Scope] = ["jobs:read", "jobs:write", "datasets:read", "datasets:write"]


class WorkerBody(Body):
    """A worker process, as it last reported itself."""

    id: str
    object: Literal["worker"] = "worker"
    name: str
    host: str
    pid: int
    version: str
    queues: list[str]
    devices: list[dict[str, Any]]
    slots: int
    """Attempts that it runs at the same time."""
    jobs: list[str]
    """Which of the caller's jobs it runs."""
    is_draining: bool
    """It takes no new jobs."""
    started_at: Instant
    seen_at: Instant


class QueueBody(Body):
    """How many of the caller's jobs wait and run on a queue."""

    name: str
    queued: int
    running: int
    paused: int


class Health(Body):
    """The process is up."""

    status: Literal["ok"] = "ok"


class Readiness(Body):
    """What the service needs is there."""

    status: Literal["ready"] = "ready"
    database: Literal["ok"] = "ok"
    broker: Literal["ok"] | None
    """Null: embedded, workers poll the database."""


class KeyBody(Body):
    """An API key; its secret is not kept."""

    id: str
    object: Literal["key"] = "key"
    project: str
    name: str
    scopes: list[str]
    hint: str
    """The secret's first characters."""
    created_at: Instant
    last_used_at: Instant | None
    revoked_at: Instant | None


class NewKeyBody(KeyBody):
    """A key that was just made."""

    key: str
    """The secret, what goes behind `Authorization: Bearer`. Shown this once."""


class KeyWanted(Wanted):
    """A key to be made."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    """For people, such as who uses it."""
    project: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = DEFAULT_PROJECT
    """Whose jobs and data sets it sees."""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=5)] = ORDINARY_SCOPES
    """What it may do. `admin` includes all, and the project's keys; of `default`, the keys of every project."""


def worker_body(row: Worker, jobs: list[str]) -> WorkerBody:
    """Return a row as it stands on the wire."""
    return WorkerBody(
        id=row.id,
        name=row.name,
        host=row.host,
        pid=row.pid,
        version=row.version,
        queues=list(row.queues),
        devices=[dict(device) for device in row.devices],  # pyrefly: ignore[no-matching-overload] - a list, see tables
        slots=row.slots,
        jobs=jobs,
        is_draining=row.is_draining,
        started_at=row.started_at,
        seen_at=row.seen_at,
    )


def key_body(row: ApiKey) -> KeyBody:
    """Return a row as it stands on the wire."""
    return KeyBody(
        id=row.id,
        project=row.project,
        name=row.name,
        scopes=list(row.scopes),
        hint=row.hint,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
