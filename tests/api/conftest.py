"""The service in this process over a real database, and one on a real port."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.__main__ import Server
from api.app import create_app
from api.services import Services
from core.db import jobs
from core.process import Template
from core.settings import Settings
from tests.api.work import Work

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Spec = dict[str, Any]


@pytest.fixture
def spec() -> Spec:
    return json.loads((EXAMPLES / "digits-early-stopping.json").read_text())


@pytest.fixture(scope="session")
def no_template() -> Template:
    """A template that is closed: preflight cannot answer, and jobs are accepted without it."""
    template = Template([])
    template.close()
    return template


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "home", database_url=database_url, max_wait_seconds=20.0)


@pytest.fixture
def app(settings: Settings, no_template: Template) -> FastAPI:
    return create_app(settings, template=no_template)


@pytest.fixture
def services(app: FastAPI) -> Services:
    return app.state.services


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A program on this machine, without a key."""
    with near(app) as client:
        yield client


def near(app: FastAPI, host: str = "127.0.0.1") -> TestClient:
    """Return a client whose address is `host`; errors of the service are answers, not exceptions."""
    return TestClient(app, base_url="http://127.0.0.1:8000", client=(host, 50000), raise_server_exceptions=False)


@pytest.fixture
def work(services: Services, client: TestClient) -> Work:
    """A worker that does nothing but what its rows say. `client` keeps the database open."""
    return Work(services.database)


@pytest.fixture
def job(client: TestClient, spec: Spec) -> dict[str, Any]:
    """A job that waits."""
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def cancelled(services: Services, job: dict[str, Any]) -> dict[str, Any]:
    """A job that has ended."""
    with services.database.session_scope() as session:
        jobs.request_cancel(session, "default", job["id"])
    return job


@contextlib.contextmanager
def listening(app: FastAPI) -> Iterator[tuple[httpx.Client, Server]]:
    """Serve on a free port in a thread of its own."""
    server = Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=5), app)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
        yield client, server
    server.should_exit = True
    thread.join(20.0)
    assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def running(app: FastAPI) -> Iterator[tuple[httpx.Client, Server]]:
    with listening(app) as running:
        yield running


@pytest.fixture
def server(running: tuple[httpx.Client, Server]) -> httpx.Client:
    """A client of the service on a real port."""
    return running[0]


@pytest.fixture
def stop(running: tuple[httpx.Client, Server]) -> Callable[[], None]:
    """Do what SIGTERM does."""

    def stop() -> None:
        running[1].should_exit = True

    return stop


@pytest.fixture
def soon() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Do something in another thread a moment later."""
    threads: list[threading.Thread] = []

    def later(action: Callable[[], object]) -> None:
        timer = threading.Timer(0.3, action)
        timer.start()
        threads.append(timer)

    yield later
    for thread in threads:
        thread.join()
