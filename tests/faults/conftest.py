"""Services that are to be disturbed. Each test of a module finds its service healthy (`System.heal`).

cluster     PostgreSQL and Redis of its own, an API, two workers of three slots, a database password and an API key
embedded    SQLite, an API, two workers of two slots
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from core.db.engine import Database
from core.faults import VARIABLE
from tests.faults.campaign import SECRETS, System
from tests.faults.lab import Points
from tests.servers import Postgres, Redis
from tests.service import Service

QUICK = {"EPOCHD_API_KEY": SECRETS["key"], "EPOCHD_PREFLIGHT_SECONDS": "0.3"}
"""An API that has just been started does not wait until its preflight is warm."""


@contextmanager
def system(folder: Path, settings: Mapping[str, str]) -> Iterator[System]:
    """Run a service with two workers and crash points."""
    faults = folder / "faults"
    faults.mkdir()
    service = Service(folder, {**QUICK, **settings, VARIABLE: str(faults)}, workers=2)
    service.client.headers["Authorization"] = f"Bearer {SECRETS['key']}"
    with service:
        url = settings.get("EPOCHD_DATABASE_URL", f"sqlite:///{folder / 'data' / 'epochd.db'}")
        database = Database(url)
        try:
            started = System(service, Points(faults), database)
            started.refer()
            yield started
        finally:
            database.dispose()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with ExitStack() as stack:
        postgres, redis = Postgres.new(), Redis.new()
        stack.callback(postgres.close)
        stack.callback(redis.close)
        settings = {
            "EPOCHD_DATABASE_URL": postgres.url.replace("postgres@", f"postgres:{SECRETS['database']}@"),
            "EPOCHD_BROKER_URL": redis.url,
            "EPOCHD_SLOTS": "3",
        }
        started = stack.enter_context(system(tmp_path_factory.mktemp("cluster"), settings))
        started.postgres, started.redis = postgres, redis
        yield started


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("embedded"), {"EPOCHD_SLOTS": "2"}) as started:
        yield started
