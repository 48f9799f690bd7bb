"""Real databases and brokers for every test: one server of each per run, a fresh database per test.

database        a migrated `Database`, once on SQLite and once on PostgreSQL
database_url    its URL alone
empty_url       an empty database's URL, once on SQLite and once on PostgreSQL
postgres_url    a fresh migrated PostgreSQL database
redis_url       a Redis database that nothing else uses
private_postgres, private_redis    servers of a test's own, to be stopped, killed and frozen
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.db import migrate
from core.db.engine import Database
from tests.servers import Postgres, Redis, held, shared

TEMPLATE = "epochd_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, worker_number: int) -> Path:
    """The temporary folder that all processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_number == 0 else base.parent


@pytest.fixture(scope="session")
def worker_number() -> int:
    """The number of this pytest-xdist process from 1; 0 without xdist."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")) + 1


@pytest.fixture(scope="session")
def postgres(run_folder: Path) -> Iterator[Postgres]:
    """The run's PostgreSQL, with a migrated template database. Do not stop it: `private_postgres` is for that."""
    with shared(Postgres, run_folder) as server:
        with held(run_folder / "template.lock"):
            note = run_folder / f"template-{server.port}"
            if not note.exists():
                server.execute(f"CREATE DATABASE {TEMPLATE}")
                migrate.upgrade(server.url_of(TEMPLATE))
                note.touch()
        yield server


@pytest.fixture(scope="session")
def redis_server(run_folder: Path) -> Iterator[Redis]:
    """The run's Redis. Do not stop it: `private_redis` is for that."""
    with shared(Redis, run_folder) as server:
        yield server


@contextlib.contextmanager
def _postgres_database(server: Postgres, worker_number: int, template: str) -> Iterator[str]:
    name = f"test_{worker_number}_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield server.url_of(name)
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres: Postgres, worker_number: int) -> Iterator[str]:
    """The URL of a fresh migrated PostgreSQL database."""
    with _postgres_database(postgres, worker_number, TEMPLATE) as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres: Postgres, worker_number: int) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with _postgres_database(postgres, worker_number, "template0") as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to be copied."""
    file = tmp_path_factory.mktemp("template") / "epochd.db"
    migrate.upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh migrated SQLite database."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'epochd.db')}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh migrated database, once on each."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once on each; SQLite's folder does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'epochd.db'}"
    return str(request.getfixturevalue("empty_postgres_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh migrated database, once on each."""
    opened = Database(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def redis_url(redis_server: Redis, worker_number: int) -> str:
    """The URL of an empty Redis database that no other process of this run uses."""
    number = worker_number % Redis.databases
    with redis_server.client(number) as client:
        client.flushdb()
    return redis_server.url_of(number)


@pytest.fixture
def private_postgres() -> Iterator[Callable[[], Postgres]]:
    """A factory of PostgreSQL servers of the test's own; each is empty and closed at the end."""
    with contextlib.ExitStack() as stack:

        def new() -> Postgres:
            server = Postgres.new()
            stack.callback(server.close)
            return server

        yield new


@pytest.fixture
def private_redis() -> Iterator[Callable[[], Redis]]:
    """A factory of Redis servers of the test's own; each is closed at the end."""
    with contextlib.ExitStack() as stack:

        def new() -> Redis:
            server = Redis.new()
            stack.callback(server.close)
            return server

        yield new


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the slow tests come first: two processes end at the same time when the last tests are short ones."""
    items.sort(key=lambda item: item.get_closest_marker("fault") is None)
