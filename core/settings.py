"""Operator settings, read from the environment (prefix `EPOCHD_`) by `load_settings`, never at import."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1 << 20
GIB = 1 << 30


def _split(value: object) -> object:
    """Turn `"cpu, gpu"` into `("cpu", "gpu")`."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """How this deployment runs. Every field is an environment variable `EPOCHD_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="EPOCHD_", frozen=True, extra="ignore")

    data_dir: Path = Path("~/.epochd")
    """Where the embedded default keeps its database, artifacts, caches and logs."""
    database_url: SecretStr | None = None
    """SQLAlchemy URL; none: `sqlite:///<data_dir>/epochd.db`. PostgreSQL: `postgresql+psycopg://…`."""
    broker_url: SecretStr | None = None
    """Redis URL of the doorbell (`redis://…`); none: embedded, workers poll the database."""
    artifacts_url: str | None = None
    """fsspec URL or folder of checkpoints, models and uploads; none: `<data_dir>/artifacts`."""
    datasets_dir: Path | None = None
    """The operator's torchvision folder; none: `<data_dir>/datasets`."""
    cache_dir: Path | None = None
    """Prepared data and compile caches, safe to delete; none: `<data_dir>/cache`."""
    api_key: SecretStr | None = None
    """First admin key (`epk_…`); created at start where it does not exist yet."""

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: Names = ("127.0.0.1", "localhost", "[::1]")
    """`Host` names answered when no key is asked for. Comma-separated."""
    max_body_bytes: int = Field(default=1 * MIB, gt=0)
    max_upload_bytes: int = Field(default=2 * GIB, gt=0)
    max_unpacked_bytes: int = Field(default=8 * GIB, gt=0)
    """An uploaded archive may unpack to so many bytes."""
    max_parameters: int = Field(default=1_000_000_000, gt=0)
    max_wait_seconds: float = Field(default=60.0, gt=0)
    """Upper bound of `Prefer: wait`."""
    preflight_seconds: float = Field(default=10.0, gt=0)
    preflight_memory_bytes: int = Field(default=4 * GIB, gt=0)

    worker_name: str | None = None
    """Shown in `/v1/workers`; none: host name and pid."""
    queues: Names = ("cpu",)
    """Queues this worker serves; `cpu`, `gpu` or named ones. Comma-separated."""
    slots: int = Field(default=1, ge=1)
    """Attempts that this worker runs at the same time."""
    lease_seconds: float = Field(default=30.0, gt=0)
    heartbeat_seconds: float = Field(default=7.5, gt=0)
    reap_seconds: float = Field(default=5.0, gt=0)
    poll_seconds: float = Field(default=0.05, gt=0)
    """Embedded claim loop: pause between two looks at an empty queue; on SQLite shorter where somebody has written."""
    stop_grace_seconds: float = Field(default=20.0, gt=0)
    """A trainer asked to stop gets so long before SIGKILL."""
    stall_seconds: float = Field(default=1800.0, gt=0)
    """A trainer silent for so long is `stalled`."""
    outage_seconds: float = Field(default=600.0, gt=0)
    """The database may be away for so long before the trainer is stopped at a checkpoint."""
    trainer_memory_bytes: int | None = None
    """Private memory of a trainer process, mapped files not counted; none: no limit."""
    max_file_bytes: int | None = None
    """Largest single file a trainer may write."""
    max_log_bytes: int = Field(default=4 * MIB, gt=0)
    threads: int | None = None
    """Threads of a trainer whose spec says none; none: chosen by model size."""

    @property
    def home(self) -> Path:
        """The data folder with `~` resolved."""
        return self.data_dir.expanduser().absolute()

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL, the embedded default where none was set."""
        return self.database_url.get_secret_value() if self.database_url else f"sqlite:///{self.home / 'epochd.db'}"

    @property
    def is_embedded(self) -> bool:
        """Whether workers poll the database because there is no broker."""
        return self.broker_url is None

    @property
    def storage_url(self) -> str:
        """Where artifacts are kept."""
        return self.artifacts_url or str(self.home / "artifacts")

    @property
    def torchvision_dir(self) -> Path:
        """The operator's data sets in torchvision's layout."""
        return (self.datasets_dir or self.home / "datasets").expanduser().absolute()

    @property
    def caches(self) -> Path:
        """The folder of prepared data, safe to delete."""
        return (self.cache_dir or self.home / "cache").expanduser().absolute()


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        pydantic.ValidationError: a variable is not what its field asks for; the message names it.
    """
    return Settings()
