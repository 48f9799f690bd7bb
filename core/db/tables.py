"""The tables. Enum values are the same lower-case strings in database, JSON and Python."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.db.clock import Instant, now
from core.db.words import Prose, Words

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Serial = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts only INTEGER primary keys by itself."""


class Base(DeclarativeBase):
    """The root of all tables."""

    metadata = MetaData(naming_convention=CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Instant(),
        dict[str, Any]: JSON(none_as_null=True),
        int: BigInteger(),
    }


class Job(Base):
    """What was submitted, and where it stands. Its `fence` grows with every change of ownership."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Words(40), primary_key=True)
    """`job_` + UUIDv7 hex: ids sort by time of creation."""
    project: Mapped[str] = mapped_column(Words(64))
    name: Mapped[str | None] = mapped_column(Words(200))
    labels: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    spec: Mapped[dict[str, Any]]
    resolved_spec: Mapped[dict[str, Any] | None]
    spec_digest: Mapped[str] = mapped_column(Words(64))
    idempotency_key: Mapped[str | None] = mapped_column(Words(255))
    body_sha256: Mapped[str] = mapped_column(Words(64))

    state: Mapped[str] = mapped_column(Words(16), default="queued")
    """`queued`, `running`, `paused`, `succeeded`, `failed`, `cancelled`."""
    desired: Mapped[str] = mapped_column(Words(8), default="run")
    """`run`, `pause`, `cancel`: what the owner asked for."""
    stage: Mapped[str | None] = mapped_column(Words(16))
    stop_reason: Mapped[str | None] = mapped_column(Words(32))
    error: Mapped[dict[str, Any] | None]
    priority: Mapped[int] = mapped_column(Integer, default=0)
    queue: Mapped[str] = mapped_column(Words(64), default="cpu")
    run_after: Mapped[datetime | None]
    """Back-off: not claimed before."""

    fence: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts begun so far; the running one's number."""
    worker_id: Mapped[str | None] = mapped_column(Words(40))
    lease_until: Mapped[datetime | None]
    crashes_no_progress: Mapped[int] = mapped_column(Integer, default=0)
    losses_no_progress: Mapped[int] = mapped_column(Integer, default=0)

    epochs_done: Mapped[int] = mapped_column(Integer, default=0)
    checkpoint_key: Mapped[str | None] = mapped_column(Words(500))
    checkpoint_digest: Mapped[str | None] = mapped_column(Words(64))
    """As `core.digests` writes it: SHA-256, or BLAKE3 with a prefix."""
    checkpoint_epoch: Mapped[int | None] = mapped_column(Integer)
    previous_checkpoint: Mapped[dict[str, Any] | None]
    """`{"key", "digest", "epoch"}` of the one before, to fall back to."""
    numerics: Mapped[dict[str, Any] | None]
    """What decides the bits, from the first start: device, threads, instruction set, torch version."""
    active_seconds: Mapped[float] = mapped_column(default=0.0)

    progress: Mapped[dict[str, Any] | None]
    best: Mapped[dict[str, Any] | None]
    latest_metrics: Mapped[dict[str, Any] | None]
    test_metrics: Mapped[dict[str, Any] | None]
    version: Mapped[int] = mapped_column(default=1)
    """+1 with every change a client can see: the ETag."""
    created_at: Mapped[datetime] = mapped_column(server_default=now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("project", "idempotency_key"),
        CheckConstraint("state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')", name="state"),
        CheckConstraint("desired IN ('run', 'pause', 'cancel')", name="desired"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
        Index("ix_jobs_claim", "queue", text("priority DESC"), "created_at", "id",
              postgresql_where=text("state = 'queued'"), sqlite_where=text("state = 'queued'")),
        Index("ix_jobs_lease", "lease_until",
              postgresql_where=text("state = 'running'"), sqlite_where=text("state = 'running'")),
        Index("ix_jobs_project_id", "project", "id"),
        Index("ix_jobs_project_name_id", "project", "name", "id"),
        Index("ix_jobs_project_state_id_queue", "project", "state", "id", "queue"),
    )  # fmt: skip


class Attempt(Base):
    """One execution of a job by one worker."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    fence: Mapped[int]
    worker_id: Mapped[str] = mapped_column(Words(40))
    host: Mapped[str] = mapped_column(Words(255))
    device: Mapped[str] = mapped_column(Words(32))
    pid: Mapped[int | None]
    from_epoch: Mapped[int] = mapped_column(Integer)
    to_epoch: Mapped[int | None] = mapped_column(Integer)
    started_at: Mapped[datetime] = mapped_column(server_default=now())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(Words(16))
    """`succeeded`, `failed`, `cancelled`, `paused`, `drained`, `crashed`, `lost`; none while it runs."""
    code: Mapped[str | None] = mapped_column(Words(32))
    message: Mapped[str | None] = mapped_column(Prose)
    exit_code: Mapped[int | None] = mapped_column(Integer)
    signal: Mapped[int | None] = mapped_column(Integer)
    max_rss_bytes: Mapped[int | None]


class Epoch(Base):
    """One epoch's metrics. The primary key is the exactly-once guarantee."""

    __tablename__ = "epochs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True)
    fence: Mapped[int]
    attempt: Mapped[int] = mapped_column(Integer)
    body: Mapped[str] = mapped_column(Prose)
    """The wire's row as JSON text, without `attempt` and `recorded_at`; sent as it is."""
    recorded_at: Mapped[datetime] = mapped_column(server_default=now())


class Decision(Base):
    """Something that epochd decided, with the numbers that caused it."""

    __tablename__ = "decisions"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    epoch: Mapped[int | None] = mapped_column(Integer)
    attempt: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(Words(32))
    body: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime] = mapped_column(server_default=now())

    __table_args__ = (Index("ix_decisions_job_id_id", "job_id", "id"),)


class Event(Base):
    """What happened to a job; append only."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(Words(32))
    """`job.created`, `job.claimed`, `job.stage`, `job.epoch`, `job.requeued`, `job.pause_requested`, …"""
    fence: Mapped[int]
    is_terminal: Mapped[bool] = mapped_column(default=False)
    body: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime] = mapped_column(server_default=now())

    __table_args__ = (
        Index("ix_events_job_id_id", "job_id", "id"),
        Index("uq_events_terminal", "job_id", unique=True,
              postgresql_where=text("is_terminal"), sqlite_where=text("is_terminal")),
    )  # fmt: skip


class Worker(Base):
    """A worker process, as it last reported itself."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(Words(40), primary_key=True)
    name: Mapped[str] = mapped_column(Words(255))
    host: Mapped[str] = mapped_column(Words(255))
    pid: Mapped[int]
    version: Mapped[str] = mapped_column(Words(32))
    queues: Mapped[dict[str, Any]] = mapped_column(JSON)
    """A list of queue names."""
    devices: Mapped[dict[str, Any]] = mapped_column(JSON)
    """A list of `{"name", "index", "memory_bytes"}`."""
    slots: Mapped[int] = mapped_column(Integer)
    is_draining: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime] = mapped_column(server_default=now())
    seen_at: Mapped[datetime] = mapped_column(server_default=now())


class Dataset(Base):
    """An uploaded data set; its versions are content-addressed."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(Words(40), primary_key=True)
    project: Mapped[str] = mapped_column(Words(64))
    name: Mapped[str] = mapped_column(Words(200))
    created_at: Mapped[datetime] = mapped_column(server_default=now())

    __table_args__ = (UniqueConstraint("project", "name"), Index("ix_datasets_project_id", "project", "id"))


class DatasetVersion(Base):
    """The bytes of one version, and what they hold."""

    __tablename__ = "dataset_versions"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    format: Mapped[str] = mapped_column(Words(16))
    """`csv`, `parquet`, `npz`, `images` (a zip of class folders), `idx`."""
    filename: Mapped[str | None] = mapped_column(Words(255))
    key: Mapped[str] = mapped_column(Words(500))
    sha256: Mapped[str] = mapped_column(Words(64))
    size_bytes: Mapped[int]
    profile: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=now())

    __table_args__ = (UniqueConstraint("dataset_id", "sha256"),)


class Artifact(Base):
    """A file that a job left: model, spec, manifest."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(Words(200), primary_key=True)
    key: Mapped[str] = mapped_column(Words(500))
    sha256: Mapped[str] = mapped_column(Words(64))
    size_bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=now())


class ApiKey(Base):
    """A caller. Only the secret's digest is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Words(40), primary_key=True)
    project: Mapped[str] = mapped_column(Words(64))
    name: Mapped[str] = mapped_column(Words(200))
    scopes: Mapped[dict[str, Any]] = mapped_column(JSON)
    """A list of `jobs:read`, `jobs:write`, `datasets:read`, `datasets:write`, `admin`."""
    secret_sha256: Mapped[str] = mapped_column(Words(64), unique=True)
    hint: Mapped[str] = mapped_column(Words(16))
    """The secret's first characters, so that people can tell their keys apart."""
    created_at: Mapped[datetime] = mapped_column(server_default=now())
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
