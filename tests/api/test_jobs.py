"""Jobs over HTTP: a class per route."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.services import Services
from core import spec as specs
from tests.api.work import Work

Json = dict[str, Any]
FIELDS = {
    "id", "object", "name", "metadata", "status", "stage", "is_terminal", "stop_reason", "error", "progress", "best",
    "latest_metrics", "test_metrics", "created_at", "started_at", "finished_at", "queued_seconds", "attempt",
    "spec_digest", "spec", "resolved_spec", "next_poll_seconds",
}  # fmt: skip
ABSENT = "job_" + "0" * 32


class TestCreate:
    def test_answers_201_with_location_and_the_whole_job(self, client: TestClient, spec: Json) -> None:
        answer = client.post("/v1/jobs", json=spec)

        job = answer.json()
        assert answer.status_code == 201
        assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
        assert job.keys() >= FIELDS
        assert (job["object"], job["status"], job["spec"]) == ("job", "queued", spec)

    def test_job_is_committed_when_the_answer_comes(self, client: TestClient, spec: Json) -> None:
        job = client.post("/v1/jobs", json=spec).json()

        assert client.get(f"/v1/jobs/{job['id']}").json() == job

    def test_times_are_rfc_3339_in_utc(self, job: Json) -> None:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", job["created_at"])

    def test_name_metadata_queue_and_priority_come_from_the_spec(self, client: TestClient, spec: Json) -> None:
        spec |= {"name": "mine", "metadata": {"a": "b"}, "execution": {"device": "gpu", "priority": 7}}

        job = client.post("/v1/jobs", json=spec).json()

        assert (job["name"], job["metadata"], job["queue"], job["priority"]) == ("mine", {"a": "b"}, "gpu", 7)

    def test_digest_is_of_the_canonical_spec(self, job: Json, spec: Json) -> None:
        assert job["spec_digest"] == specs.digest(specs.parse_object(spec))

    def test_same_key_and_body_replays_the_first_answer(self, client: TestClient, spec: Json) -> None:
        first = client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"})

        again = client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"})

        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["Idempotency-Replayed"] == "true"
        assert "Idempotency-Replayed" not in first.headers

    def test_same_key_with_another_body_is_422(self, client: TestClient, spec: Json) -> None:
        client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"})

        answer = client.post("/v1/jobs", json={**spec, "epochs": 2}, headers={"Idempotency-Key": "k"})

        assert answer.status_code == 422
        assert answer.json()["type"].endswith("/idempotency-mismatch")

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
    def test_wrong_key_is_400(self, client: TestClient, spec: Json, key: str) -> None:
        assert client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": key}).status_code == 400

    def test_wrong_spec_is_422_with_pointer_and_fix(self, client: TestClient, spec: Json) -> None:
        spec["optimizer"] = {"type": "Adam", "learning_rate": 0.1}

        answer = client.post("/v1/jobs", json=spec)

        (issue,) = answer.json()["errors"]
        assert answer.status_code == 422
        assert issue["pointer"] == "/optimizer/learning_rate"
        assert issue["fix"]

    def test_unknown_upload_is_422_at_its_id(self, client: TestClient, spec: Json) -> None:
        spec["data"]["train"] = {"type": "dataset", "id": "ds_" + "0" * 32}

        answer = client.post("/v1/jobs", json=spec)

        assert answer.status_code == 422
        assert [issue["pointer"] for issue in answer.json()["errors"]] == ["/data/train/id"]


class TestShow:
    def test_absent_job_is_404(self, client: TestClient) -> None:
        assert client.get(f"/v1/jobs/{ABSENT}").status_code == 404

    def test_etag_that_was_seen_is_304_without_a_body(self, client: TestClient, job: Json) -> None:
        etag = client.get(f"/v1/jobs/{job['id']}").headers["ETag"]

        answer = client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": etag})

        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)

    def test_etag_changes_with_the_job(self, client: TestClient, job: Json) -> None:
        etag = client.get(f"/v1/jobs/{job['id']}").headers["ETag"]
        client.patch(f"/v1/jobs/{job['id']}", json={"name": "other"})

        assert client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": etag}).status_code == 200

    def test_running_job_tells_progress_and_newest_metrics(self, client: TestClient, job: Json, work: Work) -> None:
        from tests.api.work import row

        mine = work.claim()
        work.publish(mine, row(1), row(2))

        shown = client.get(f"/v1/jobs/{job['id']}").json()

        assert (shown["status"], shown["attempt"], shown["progress"]["epoch"]) == ("running", 1, 2)
        assert shown["latest_metrics"]["val"] == {"loss": 1.0, "accuracy": 0.25}
        assert 0 < shown["progress"]["fraction"] < 1
        assert shown["next_poll_seconds"] > 0

    def test_ended_job_is_terminal_and_asks_for_no_further_look(
        self, client: TestClient, job: Json, work: Work
    ) -> None:
        work.finish(work.claim())

        shown = client.get(f"/v1/jobs/{job['id']}").json()

        assert (shown["status"], shown["is_terminal"], shown["stop_reason"]) == ("succeeded", True, "completed")
        assert (shown["progress"]["fraction"], shown["next_poll_seconds"]) == (1.0, None)
        assert shown["finished_at"]


class TestListing:
    def test_pages_follow_each_other_without_gap_or_double(self, client: TestClient, spec: Json) -> None:
        made = [client.post("/v1/jobs", json=spec).json()["id"] for _ in range(5)]

        first = client.get("/v1/jobs", params={"limit": 3, "order": "asc"}).json()
        second = client.get("/v1/jobs", params={"limit": 3, "order": "asc", "after": first["last_id"]}).json()

        assert [job["id"] for job in first["data"] + second["data"]] == made
        assert (first["has_more"], second["has_more"], first["first_id"]) == (True, False, made[0])

    def test_newest_comes_first(self, client: TestClient, spec: Json) -> None:
        made = [client.post("/v1/jobs", json=spec).json()["id"] for _ in range(2)]

        assert [job["id"] for job in client.get("/v1/jobs").json()["data"]] == made[::-1]

    def test_status_and_name_select(self, client: TestClient, job: Json, spec: Json) -> None:
        other = client.post("/v1/jobs", json={**spec, "name": "other"}).json()
        client.post(f"/v1/jobs/{other['id']}/cancel")

        def ids(**params: str) -> list[str]:
            return [found["id"] for found in client.get("/v1/jobs", params=params).json()["data"]]

        assert ids(status="queued") == [job["id"]]
        assert ids(status="cancelled") == ids(name="other") == [other["id"]]

    @pytest.mark.parametrize(
        "params",
        [
            {"limit": 0},
            {"limit": 101},
            {"limit": "x"},
            {"after": "job_1"},
            {"order": "up"},
            {"status": "done"},
            {"name": "\0"},
        ],
        ids=str,
    )
    def test_parameter_out_of_range_is_400(self, client: TestClient, params: Json) -> None:
        assert client.get("/v1/jobs", params=params).status_code == 400


class TestEdit:
    def test_changes_what_is_named_and_nothing_else(self, client: TestClient, job: Json) -> None:
        answer = client.patch(f"/v1/jobs/{job['id']}", json={"name": "n", "priority": -3})

        assert answer.status_code == 200
        assert (answer.json()["name"], answer.json()["priority"], answer.json()["metadata"]) == ("n", -3, {})
        assert answer.json()["spec"] == job["spec"]

    def test_name_may_be_taken_away(self, client: TestClient, job: Json) -> None:
        assert client.patch(f"/v1/jobs/{job['id']}", json={"name": None}).json()["name"] is None

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"epochs": 3}, "/epochs"),
            ({"priority": 11}, "/priority"),
            ({"priority": "1"}, "/priority"),
            ({"priority": None}, "/priority"),
            ({"metadata": None}, "/metadata"),
            ({"metadata": {"a": 1}}, "/metadata/a"),
            ({"name": "x" * 201}, "/name"),
            ([], ""),
        ],
        ids=str,
    )
    def test_anything_else_is_422_at_its_pointer(self, client: TestClient, job: Json, body: Any, pointer: str) -> None:
        answer = client.patch(f"/v1/jobs/{job['id']}", json=body)

        assert answer.status_code == 422
        assert [issue["pointer"] for issue in answer.json()["errors"]] == [pointer]


class TestDelete:
    def test_ended_job_is_gone_with_its_files(self, client: TestClient, cancelled: Json, services: Services) -> None:
        log = services.storage.local_path(f"jobs/{cancelled['id']}/1/trainer.log")
        assert log is not None
        log.parent.mkdir(parents=True)
        log.write_text("x")

        assert client.delete(f"/v1/jobs/{cancelled['id']}").status_code == 204

        assert client.get(f"/v1/jobs/{cancelled['id']}").status_code == 404
        assert not log.parent.parent.exists()

    def test_waiting_job_is_409(self, client: TestClient, job: Json) -> None:
        answer = client.delete(f"/v1/jobs/{job['id']}")

        assert answer.status_code == 409
        assert answer.json()["allowed_actions"] == ["cancel", "pause"]


class TestWishes:
    def test_cancel_ends_a_waiting_job_and_again_is_a_no_op(self, client: TestClient, job: Json) -> None:
        answers = [client.post(f"/v1/jobs/{job['id']}/cancel") for _ in range(2)]

        assert [answer.status_code for answer in answers] == [202, 202]
        assert answers[0].json() == answers[1].json()
        assert answers[0].json()["status"] == "cancelled"

    def test_cancel_of_a_running_job_says_cancelling(self, client: TestClient, job: Json, work: Work) -> None:
        work.claim()

        assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["status"] == "cancelling"

    def test_pause_then_resume_queues_again(self, client: TestClient, job: Json) -> None:
        assert client.post(f"/v1/jobs/{job['id']}/pause").json()["status"] == "paused"
        assert client.post(f"/v1/jobs/{job['id']}/resume").json()["status"] == "queued"

    @pytest.mark.parametrize("action", ["pause", "resume"])
    def test_impossible_one_is_409_with_what_is_possible(
        self, client: TestClient, cancelled: Json, action: str
    ) -> None:
        answer = client.post(f"/v1/jobs/{cancelled['id']}/{action}")

        assert answer.status_code == 409
        assert answer.json()["allowed_actions"] == ["delete"]
