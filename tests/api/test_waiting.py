"""`Prefer: wait` and the event stream, over a real port."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest

from api.services import Services
from core.db import jobs
from tests.api.work import Work, row

Json = dict[str, Any]
Soon = Callable[[Callable[[], object]], None]
WAIT = {"Prefer": "wait=20"}


@pytest.fixture
def job(server: httpx.Client, spec: Json) -> Json:
    return server.post("/v1/jobs", json=spec).json()


@pytest.fixture
def work(services: Services, server: httpx.Client) -> Work:
    return Work(services.database)


def cancel(services: Services, job: Json) -> None:
    with services.database.session_scope() as session:
        jobs.request_cancel(session, "default", job["id"])


class TestJob:
    def test_answer_comes_at_the_next_change(
        self, server: httpx.Client, services: Services, job: Json, soon: Soon
    ) -> None:
        soon(lambda: cancel(services, job))

        answer = server.get(f"/v1/jobs/{job['id']}", headers=WAIT)

        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert answer.headers["Preference-Applied"] == "wait=20"

    def test_without_a_change_the_answer_is_304_at_the_end(self, server: httpx.Client, job: Json) -> None:
        etag = server.get(f"/v1/jobs/{job['id']}").headers["ETag"]

        answer = server.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=0.3", "If-None-Match": etag})

        assert answer.status_code == 304

    def test_change_that_the_client_has_not_seen_is_answered_at_once(self, server: httpx.Client, job: Json) -> None:
        answer = server.get(f"/v1/jobs/{job['id']}", headers={**WAIT, "If-None-Match": '"0"'})

        assert answer.json() == job

    def test_ended_job_is_answered_at_once(self, server: httpx.Client, services: Services, job: Json) -> None:
        cancel(services, job)

        assert server.get(f"/v1/jobs/{job['id']}", headers=WAIT).json()["is_terminal"]

    def test_deletion_ends_the_wait(self, server: httpx.Client, services: Services, job: Json, soon: Soon) -> None:
        def forget() -> None:
            with services.database.session_scope() as session:
                jobs.request_cancel(session, "default", job["id"])
                jobs.delete(session, "default", job["id"])

        soon(forget)

        assert server.get(f"/v1/jobs/{job['id']}", headers=WAIT).status_code == 404

    @pytest.mark.parametrize("prefer", ["wait", "wait=x", "wait=-1", "respond-async", "waiting=9", ""])
    def test_preference_that_cannot_be_read_is_ignored(self, server: httpx.Client, job: Json, prefer: str) -> None:
        answer = server.get(f"/v1/jobs/{job['id']}", headers={"Prefer": prefer})

        assert answer.status_code == 200
        assert "Preference-Applied" not in answer.headers

    def test_500_waiting_clients_hinder_nobody(self, server: httpx.Client, services: Services, job: Json) -> None:
        limits = httpx.Limits(max_connections=600, max_keepalive_connections=0)
        with (
            httpx.Client(base_url=server.base_url, timeout=60.0, limits=limits) as many,
            ThreadPoolExecutor(500) as pool,
        ):
            waits = [pool.submit(many.get, f"/v1/jobs/{job['id']}", headers=WAIT) for _ in range(500)]
            while services.changes.waiting() < 500:
                time.sleep(0.05)
            assert server.get("/healthz").status_code == 200
            assert server.get(f"/v1/jobs/{job['id']}").status_code == 200
            cancel(services, job)

            assert {wait.result().json()["status"] for wait in waits} == {"cancelled"}

    def test_client_that_goes_leaves_no_wait_behind(self, server: httpx.Client, services: Services, job: Json) -> None:
        with pytest.raises(httpx.ReadTimeout):
            server.get(f"/v1/jobs/{job['id']}", headers=WAIT, timeout=0.3)

        deadline = time.monotonic() + 10
        while services.changes.waiting():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_service_that_stops_answers_at_once(
        self, server: httpx.Client, job: Json, soon: Soon, stop: Callable[[], None]
    ) -> None:
        soon(stop)

        assert server.get(f"/v1/jobs/{job['id']}", headers=WAIT).json() == job


class TestMetrics:
    def test_answer_comes_with_the_next_row(self, server: httpx.Client, job: Json, work: Work, soon: Soon) -> None:
        mine = work.claim()
        work.publish(mine, row(1))
        soon(lambda: work.publish(mine, row(2)))

        answer = server.get(f"/v1/jobs/{job['id']}/metrics", params={"after": 1}, headers=WAIT)

        assert [found["epoch"] for found in answer.json()["data"]] == [2]

    def test_change_without_a_row_does_not_end_the_wait(
        self, server: httpx.Client, job: Json, work: Work, soon: Soon
    ) -> None:
        def claim_then_publish() -> None:
            mine = work.claim()
            time.sleep(0.3)
            work.publish(mine, row(1))

        soon(claim_then_publish)

        assert len(server.get(f"/v1/jobs/{job['id']}/metrics", headers=WAIT).json()["data"]) == 1

    def test_end_of_the_job_ends_the_wait(
        self, server: httpx.Client, services: Services, job: Json, soon: Soon
    ) -> None:
        soon(lambda: cancel(services, job))

        assert server.get(f"/v1/jobs/{job['id']}/metrics", headers=WAIT).json()["data"] == []

    def test_rows_that_are_there_are_answered_at_once(self, server: httpx.Client, job: Json, work: Work) -> None:
        work.publish(work.claim(), row(1))

        assert len(server.get(f"/v1/jobs/{job['id']}/metrics", headers=WAIT).json()["data"]) == 1


def read(lines: Any) -> list[dict[str, str]]:
    """Return the events of a stream."""
    events: list[dict[str, str]] = [{}]
    for line in lines:
        if not line:
            events.append({})
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            events[-1][name] = value
    return [event for event in events if event]


class TestStream:
    def test_tells_everything_to_the_end_while_it_happens(self, server: httpx.Client, job: Json, work: Work) -> None:
        def run() -> None:
            mine = work.claim()
            work.publish(mine, row(1))
            work.finish(mine)

        with server.stream("GET", f"/v1/jobs/{job['id']}/events/stream") as answer:
            thread = threading.Thread(target=run)
            thread.start()
            events = read(answer.iter_lines())
            thread.join()

        kinds = [event["event"] for event in events]
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert (kinds[0], kinds[-1]) == ("job.created", "job.succeeded")
        assert "job.epoch" in kinds
        listed = server.get(f"/v1/jobs/{job['id']}/events").json()["data"]
        assert [int(event["id"]) for event in events] == [event["id"] for event in listed]

    def test_last_event_id_goes_on_behind_it(self, server: httpx.Client, services: Services, job: Json) -> None:
        cancel(services, job)
        first, last = server.get(f"/v1/jobs/{job['id']}/events").json()["data"]

        with server.stream(
            "GET", f"/v1/jobs/{job['id']}/events/stream", headers={"Last-Event-ID": str(first["id"])}
        ) as answer:
            events = read(answer.iter_lines())

        assert [event["id"] for event in events] == [str(last["id"])]

    def test_absent_job_is_404_before_the_stream_begins(self, server: httpx.Client, job: Json) -> None:
        assert server.get(f"/v1/jobs/job_{'0' * 32}/events/stream").status_code == 404

    def test_service_that_stops_ends_the_stream(
        self, server: httpx.Client, job: Json, soon: Soon, stop: Callable[[], None]
    ) -> None:
        soon(stop)

        with server.stream("GET", f"/v1/jobs/{job['id']}/events/stream") as answer:
            assert [event["event"] for event in read(answer.iter_lines())] == ["job.created"]
