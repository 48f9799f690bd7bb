"""What requests leave in the process: nothing that stays, and little that waits for the collector."""

import dataclasses
import gc
import socket
import urllib.parse
import weakref
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.__main__ import COLLECTED_AFTER, settle_collector
from api.answers import Answers
from api.app import create_app
from api.services import Services
from core import ids
from core.process import Template
from core.settings import Settings
from tests.api.conftest import Spec, listening, near
from tests.api.work import Work, row

ROUNDS = 5
LOOKS = 5
"""What is bounded (statements, threads, modules) stops growing within so many times the rounds, a leak never does."""
OBJECTS_PER_CONNECTION = 6
"""A closed connection leaves at least so many to the collector."""

Sizes = dict[int, tuple[str, int]]


@pytest.fixture
def collector() -> Iterator[None]:
    """The collector as the service sets it; afterwards as it was."""
    before = gc.get_threshold()
    settle_collector()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.fixture
def forgetful(app: FastAPI, services: Services) -> Iterator[TestClient]:
    """A client of a service whose room for answers is full at once."""
    app.state.services = dataclasses.replace(services, answers=Answers(kept_bytes=8192))
    with near(app) as client:
        yield client


def ask_everything(client: TestClient, work: Work, spec: Spec) -> set[int]:
    """Submit a job, have it trained, and ask in every way; return the statuses."""
    answers = [client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": key}) for key in [ids.new("req")] * 2]
    job: dict[str, Any] = answers[0].json()
    path, mine = f"/v1/jobs/{job['id']}", work.claim()
    answers.append(client.get(path, headers={"Prefer": "wait=0.02"}))
    work.publish(mine, row(1), row(2))
    work.finish(mine)
    answers += [client.patch(path, json={"name": job["id"]}), client.post(f"{path}/cancel")]
    for part in ("", "/metrics", "/metrics?after=1", "/events", "/events/stream", "/decisions", "/nothing"):
        answers.append(client.get(path + part))
        answers.append(client.get(path + part, headers={"If-None-Match": answers[-1].headers.get("etag", '"0"')}))
    answers += [client.get(url) for url in ("/v1/jobs", "/v1/jobs?status=succeeded&limit=2", "/metrics", "/v1/workers")]
    answers.append(client.post("/v1/jobs", json={**spec, "epochs": job["id"]}))
    return {answer.status_code for answer in answers}


def objects() -> tuple[Counter[str], Sizes]:
    """Return how many objects of each type are alive, and how long each container is.

    Without weak references, which sqlite3 keeps of its cursors until there are 200, and what the client keeps of URLs.
    """
    urllib.parse.clear_cache()
    gc.collect()
    alive = [one for one in gc.get_objects() if not _is_a(one, weakref.ref)]
    containers = [one for one in alive if _is_a(one, dict, list, set, deque) and one is not alive]
    sizes = {id(one): (type(one).__name__, len(one)) for one in containers if not _refers_weakly(one)}
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in alive), sizes


def _is_a(one: object, *kinds: type) -> bool:
    """Ask the type: `isinstance` asks the object too, and other tests' modules have some that warn when they are."""
    return issubclass(type(one), kinds)


def _refers_weakly(container: Any) -> bool:
    return _is_a(container, list) and any(_is_a(one, weakref.ref) for one in container)


def grown(before: tuple[Counter[str], Sizes], now: tuple[Counter[str], Sizes]) -> dict[str, int]:
    """Return what became more with every round: objects of a type, or the length of a container."""
    types = {name: count - before[0][name] for name, count in now[0].items()}
    known = ((kind, size - before[1][one][1]) for one, (kind, size) in now[1].items() if one in before[1])
    longer = {f"a {kind}'s length": more for kind, more in known if more >= ROUNDS}
    return {name: more for name, more in types.items() if more >= ROUNDS} | longer


def test_jobs_and_polls_leave_nothing_behind(forgetful: TestClient, services: Services, spec: Spec) -> None:
    work, before = Work(services.database), objects()
    found: list[dict[str, int]] = []
    while len(found) < LOOKS and {} not in found:
        for _ in range(ROUNDS):
            assert ask_everything(forgetful, work, spec) == {200, 201, 304, 404, 409, 422}
        now = objects()
        found.append(grown(before, now))
        before = now
    assert found[-1] == {}


@pytest.mark.usefixtures("collector")
def test_closed_connections_do_not_wait_long_for_the_collector(tmp_path: Path, no_template: Template) -> None:
    app = create_app(Settings(data_dir=tmp_path), template=no_template)
    most = COLLECTED_AFTER[0] // OBJECTS_PER_CONNECTION
    with listening(app) as (client, _):
        for _ in range(most + most // 5):
            ask_and_close(client.base_url.host, client.base_url.port or 0)
        names = [type(one).__name__ for one in gc.get_objects()]
    assert names.count("_SelectorSocketTransport") < most


def ask_and_close(host: str, port: int) -> None:
    """Wait until the service has closed the connection: one that still lives is older when it is collected."""
    with socket.create_connection((host, port)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        while connection.recv(4096):
            pass
