"""What a job tells: metrics, decisions, events, attempts, logs, artifacts."""

import csv
import hashlib
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.services import Services
from core.db.leases import ArtifactFile
from tests.api.work import Work, row

Json = dict[str, Any]
CSV = {"Accept": "text/csv"}


class TestMetrics:
    def test_rows_are_the_trainers_with_attempt_and_time(self, client: TestClient, job: Json, work: Work) -> None:
        work.publish(work.claim(), row(1), row(2))

        body = client.get(f"/v1/jobs/{job['id']}/metrics").json()

        times = [found.pop("recorded_at") for found in body["data"]]
        assert body == {
            "object": "list",
            "data": [{**row(1), "attempt": 1}, {**row(2), "attempt": 1}],
            "has_more": False,
        }
        assert all(time.endswith("Z") for time in times)

    def test_after_and_limit_page_in_order(self, client: TestClient, job: Json, work: Work) -> None:
        work.publish(work.claim(), *(row(epoch) for epoch in range(1, 6)))

        first = client.get(f"/v1/jobs/{job['id']}/metrics", params={"limit": 3}).json()
        rest = client.get(f"/v1/jobs/{job['id']}/metrics", params={"after": 3}).json()

        assert [found["epoch"] for found in first["data"] + rest["data"]] == [1, 2, 3, 4, 5]
        assert (first["has_more"], rest["has_more"]) == (True, False)

    def test_no_rows_yet_is_an_empty_list(self, client: TestClient, job: Json) -> None:
        assert client.get(f"/v1/jobs/{job['id']}/metrics").json()["data"] == []

    @pytest.mark.parametrize("params", [{"after": -2}, {"after": 2**40}, {"limit": 0}, {"limit": 10_001}], ids=str)
    def test_parameter_out_of_range_is_400(self, client: TestClient, job: Json, params: Json) -> None:
        assert client.get(f"/v1/jobs/{job['id']}/metrics", params=params).status_code == 400

    @pytest.mark.parametrize(
        "way", ["after=1&limit=2", "limit=2&after=1", "after=%31&limit=2", "limit=2&after=1&other=3"]
    )
    def test_queries_of_any_form_mean_the_same(self, client: TestClient, job: Json, work: Work, way: str) -> None:
        work.publish(work.claim(), *(row(epoch) for epoch in range(1, 6)))

        body = client.get(f"/v1/jobs/{job['id']}/metrics?{way}").json()

        assert [found["epoch"] for found in body["data"]] == [2, 3]
        assert body["has_more"] is True

    @pytest.mark.parametrize("wrong", ["after=x", "limit=", "after=1&limit=0", "after=1.5"])
    def test_query_that_is_no_number_is_400(self, client: TestClient, job: Json, wrong: str) -> None:
        assert client.get(f"/v1/jobs/{job['id']}/metrics?{wrong}").status_code == 400

    def test_etag_changes_with_a_row_and_with_nothing_else(self, client: TestClient, job: Json, work: Work) -> None:
        mine = work.claim()
        work.publish(mine, row(1))
        seen = {"If-None-Match": client.get(f"/v1/jobs/{job['id']}/metrics").headers["ETag"]}
        client.patch(f"/v1/jobs/{job['id']}", json={"name": "other"})
        assert client.get(f"/v1/jobs/{job['id']}/metrics", headers=seen).status_code == 304

        work.publish(mine, row(2))

        assert client.get(f"/v1/jobs/{job['id']}/metrics", headers=seen).status_code == 200
        assert client.get(f"/v1/jobs/{job['id']}/metrics", headers={**seen, **CSV}).status_code == 200

    def test_csv_is_a_flat_table(self, client: TestClient, job: Json, work: Work) -> None:
        nothing = {"train": {"loss": None}, "val": None, "lr": [0.1, 0.2], "non_finite": {"train.loss": "nan"}}
        work.publish(work.claim(), row(1), row(2, **nothing))

        answer = client.get(f"/v1/jobs/{job['id']}/metrics", headers=CSV)

        first, second = csv.DictReader(answer.text.splitlines())
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert list(first)[:8] == [
            "epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "lr_1",
        ]  # fmt: skip
        assert (first["train_loss"], first["val_accuracy"], first["lr_1"]) == ("1.0", "0.25", "")
        assert (second["train_loss"], second["val_loss"], second["lr_1"]) == ("nan", "", "0.2")


class TestRecords:
    def test_decisions_carry_their_numbers(self, client: TestClient, job: Json, work: Work) -> None:
        decision = {"kind": "early_stopping", "epoch": 1, "monitor": "val_loss", "wait": 3, "action": "stop"}
        work.publish(work.claim(), row(1), decisions=(decision,))

        (found,) = client.get(f"/v1/jobs/{job['id']}/decisions").json()["data"]

        assert found.items() >= {**decision, "attempt": 1}.items()

    def test_events_are_numbered_and_end_with_the_terminal_one(self, client: TestClient, job: Json, work: Work) -> None:
        work.finish(work.claim())

        events = client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
        rest = client.get(f"/v1/jobs/{job['id']}/events", params={"after": events[0]["id"]}).json()["data"]

        assert [event["is_terminal"] for event in events] == [False] * (len(events) - 1) + [True]
        assert rest == events[1:]

    def test_attempts_tell_outcome_and_cause(self, client: TestClient, job: Json, work: Work) -> None:
        work.finish(work.claim())

        (attempt,) = client.get(f"/v1/jobs/{job['id']}/attempts").json()["data"]

        assert (attempt["number"], attempt["outcome"], attempt["exit_code"]) == (1, "succeeded", 0)


@pytest.fixture
def log(services: Services, job: Json, work: Work) -> str:
    """The path of the log of a running attempt, which has two lines."""
    path = services.storage.local_path(f"jobs/{job['id']}/{work.claim().fence}/trainer.log")
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_text("one\ntwo\n")
    return f"/v1/jobs/{job['id']}/logs"


class TestLogs:
    def test_before_the_first_attempt_it_is_empty(self, client: TestClient, job: Json) -> None:
        answer = client.get(f"/v1/jobs/{job['id']}/logs")

        assert (answer.status_code, answer.text) == (200, "")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"

    @pytest.mark.parametrize(
        ("query", "text"), [("", "one\ntwo\n"), ("?tail=4", "two\n"), ("?attempt=1", "one\ntwo\n")]
    )
    def test_text_is_the_trainers(self, client: TestClient, log: str, query: str, text: str) -> None:
        assert client.get(log + query).text == text

    def test_absent_attempt_is_404(self, client: TestClient, job: Json) -> None:
        assert client.get(f"/v1/jobs/{job['id']}/logs", params={"attempt": 9}).status_code == 404


CONTENT = b"0123456789" * 1000


@pytest.fixture
def artifact(services: Services, job: Json, work: Work, tmp_path: Any) -> str:
    """The path of an artifact."""
    mine = work.claim()
    file = tmp_path / "model"
    file.write_bytes(CONTENT)
    key = f"jobs/{job['id']}/{mine.fence}/model.safetensors"
    sha256, size = services.storage.put_file(file, key)
    work.finish(mine, ArtifactFile(name="model.safetensors", key=key, sha256=sha256, size_bytes=size))
    return f"/v1/jobs/{job['id']}/artifacts/model.safetensors"


class TestArtifacts:
    def test_list_has_digest_size_and_address(self, client: TestClient, job: Json, artifact: str) -> None:
        (found,) = client.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"]

        assert (found["name"], found["size_bytes"], found["href"]) == ("model.safetensors", len(CONTENT), artifact)
        assert found["sha256"] == hashlib.sha256(CONTENT).hexdigest()

    def test_content_is_the_file(self, client: TestClient, artifact: str) -> None:
        answer = client.get(artifact)

        assert answer.content == CONTENT
        assert answer.headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
        assert answer.headers["Content-Disposition"] == 'attachment; filename="model.safetensors"'

    def test_range_is_a_part(self, client: TestClient, artifact: str) -> None:
        answer = client.get(artifact, headers={"Range": "bytes=5-9"})

        assert (answer.status_code, answer.content) == (206, CONTENT[5:10])

    def test_range_outside_is_416(self, client: TestClient, artifact: str) -> None:
        answer = client.get(artifact, headers={"Range": "bytes=999999-"})

        assert answer.status_code == 416
        assert answer.headers["Content-Type"] == "application/problem+json"

    def test_digest_that_was_seen_is_304(self, client: TestClient, artifact: str) -> None:
        etag = client.get(artifact).headers["ETag"]

        assert client.get(artifact, headers={"If-None-Match": etag}).status_code == 304

    @pytest.mark.parametrize("name", ["nothing", "..%2Fmodel.safetensors", "%00"])
    def test_absent_name_is_404(self, client: TestClient, artifact: str, name: str) -> None:
        assert client.get(artifact.replace("model.safetensors", name)).status_code == 404
