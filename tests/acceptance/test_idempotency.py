"""One Idempotency-Key raced over HTTP, against a real API process without a worker."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx2

from tests.service import Service, example

THREADS = 20
SPEC = example("diabetes-regression")


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


def check_one_body(api: Service) -> None:
    answers = post_at_once(api, "same", [SPEC | {"name": "same"}] * THREADS)

    assert Counter(answer.status_code for answer in answers) == {201: THREADS}
    assert [*{answer.json()["id"] for answer in answers}] == jobs_named(api, "same")
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


def check_twenty_bodies(api: Service) -> None:
    bodies = [SPEC | {"name": "raced", "epochs": number} for number in range(1, THREADS + 1)]

    answers = post_at_once(api, "raced", bodies)

    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: THREADS - 1}
    assert [answer.json()["id"] for answer in answers if answer.status_code == 201] == jobs_named(api, "raced")
    refused = [answer.json() for answer in answers if answer.status_code == 422]
    assert all(problem["type"].endswith("/idempotency-mismatch") for problem in refused)


def test_twenty_posts_at_once_with_one_key_are_one_job_and_another_body_is_refused(tmp_path: Path) -> None:
    with Service(tmp_path, workers=0) as api:
        check_one_body(api)
        check_twenty_bodies(api)
