"""One Idempotency-Key raced over HTTP, against a real API process without a worker."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx2
import pytest

from tests.service import Service, example

THREADS = 20
SPEC = example("diabetes-regression")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("api"), workers=0) as service:
        yield service


def post_at_once(api: Service, key: str, specs: list[dict[str, Any]]) -> list[httpx2.Response]:
    barrier = Barrier(len(specs))

    def post(spec: dict[str, Any]) -> httpx2.Response:
        with httpx2.Client(base_url=api.url, timeout=120, trust_env=False) as client:
            barrier.wait()
            return client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": key})

    with ThreadPoolExecutor(len(specs)) as pool:
        return list(pool.map(post, specs))


def jobs_named(api: Service, name: str) -> list[str]:
    return [job["id"] for job in api.client.get("/v1/jobs", params={"name": name}).json()["data"]]


def test_one_body_is_one_job_and_all_learn_its_id(api: Service) -> None:
    answers = post_at_once(api, "same", [SPEC | {"name": "same"}] * THREADS)

    assert Counter(answer.status_code for answer in answers) == {201: THREADS}
    assert {answer.json()["id"] for answer in answers} == set(jobs_named(api, "same"))
    assert len(jobs_named(api, "same")) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


def test_twenty_bodies_are_one_job_and_nineteen_refusals(api: Service) -> None:
    bodies = [SPEC | {"name": "raced", "epochs": number} for number in range(1, THREADS + 1)]

    answers = post_at_once(api, "raced", bodies)

    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: THREADS - 1}
    assert [answer.json()["id"] for answer in answers if answer.status_code == 201] == jobs_named(api, "raced")
    refused = [answer.json() for answer in answers if answer.status_code == 422]
    assert all(problem["type"].endswith("/idempotency-mismatch") for problem in refused)
