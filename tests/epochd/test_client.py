"""The client against a real HTTP server that gives chosen answers."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from epochd import Client
from epochd.errors import (
    AccessDenied,
    BadInput,
    ClientError,
    DigestMismatch,
    Missing,
    NotPossibleNow,
    RequestRefused,
    ServiceAway,
    TryLater,
)
from tests.epochd.answers import Answer, Server, serving

AWAY = Answer(503, {"title": "Database not reachable", "detail": "gone"}, {"Retry-After": "0"})


def job(**changes: Any) -> dict[str, Any]:
    return {"id": "job_1", "status": "running", "is_terminal": False, "spec": {"epochs": 3}} | changes


def page(*epochs: int, has_more: bool = False) -> Answer:
    return Answer(body={"object": "list", "data": [{"epoch": epoch} for epoch in epochs], "has_more": has_more})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadInput),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, Missing),
        (409, NotPossibleNow),
        (413, BadInput),
        (415, BadInput),
        (422, BadInput),
        (429, TryLater),
        (500, RequestRefused),
        (503, TryLater),
    ],
)
def test_a_problem_becomes_the_error_of_its_status(status: int, kind: type[RequestRefused]) -> None:
    body = {"status": status, "detail": "what is wrong", "errors": [{"pointer": "/lr", "code": "x", "detail": "y"}]}
    with (
        serving(Answer(status, body)) as server,
        Client(server.url, retry_seconds=0) as client,
        pytest.raises(RequestRefused) as caught,
    ):
        client.job("job_1")
    assert type(caught.value) is kind
    assert str(caught.value) == "what is wrong"
    assert caught.value.status == status
    assert caught.value.problem == body


def test_an_answer_that_is_no_problem_json_is_still_an_error_with_its_text() -> None:
    refused = pytest.raises(RequestRefused, match=r"502.*Bad Gateway")
    with serving(Answer(502, b"<h1>Bad Gateway</h1>")) as server, Client(server.url) as client, refused:
        client.job("job_1")


def test_the_key_travels_as_a_bearer_token() -> None:
    with serving(Answer(body=job())) as server, Client(server.url, "epk_secret") as client:
        client.job("job_1")
    assert server.requests[0].headers["Authorization"] == "Bearer epk_secret"


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EPOCHD_API_KEY", raising=False)
    with serving(Answer(body=job())) as server, Client(server.url) as client:
        client.job("job_1")
    assert "Authorization" not in server.requests[0].headers


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Answer(body=job())) as server:
        monkeypatch.setenv("EPOCHD_URL", server.url)
        monkeypatch.setenv("EPOCHD_API_KEY", "epk_env")
        with Client() as client:
            assert client.job("job_1")["id"] == "job_1"
    assert server.requests[0].headers["Authorization"] == "Bearer epk_env"


@pytest.mark.parametrize("outage", [AWAY, Answer(429, {}, {"Retry-After": "0"}), Answer(is_cut_off=True)])
def test_a_read_is_repeated_until_the_service_is_back(outage: Answer) -> None:
    with serving(outage, outage, Answer(body=job())) as server, Client(server.url) as client:
        assert client.job("job_1")["id"] == "job_1"
    assert len(server.requests) == 3


def test_a_submission_is_repeated_with_one_idempotency_key() -> None:
    with serving(AWAY, Answer(is_cut_off=True), Answer(201, job())) as server, Client(server.url) as client:
        client.submit({"epochs": 3})
    keys = {request.headers["Idempotency-Key"] for request in server.requests}
    assert len(server.requests) == 3
    assert len(keys) == 1


def test_two_submissions_have_two_keys() -> None:
    with serving(Answer(201, job())) as server, Client(server.url) as client:
        client.submit({"epochs": 3})
        client.submit({"epochs": 3})
    assert len({request.headers["Idempotency-Key"] for request in server.requests}) == 2


def test_a_spec_as_text_is_sent_as_it_is() -> None:
    text = b'{"epochs": 3,\n "lr": }'
    with serving(Answer(201, job())) as server, Client(server.url) as client:
        client.submit(text)
    assert server.requests[0].body == text
    assert server.requests[0].headers["Content-Type"] == "application/json"


def test_making_a_key_is_never_repeated() -> None:
    with serving(AWAY) as server, Client(server.url) as client, pytest.raises(TryLater):
        client.create_key("alice")
    assert len(server.requests) == 1


def test_an_outage_that_outlasts_patience_is_told() -> None:
    gone = pytest.raises(TryLater, match="gone")
    with serving(AWAY) as server, Client(server.url, retry_seconds=0.05) as client, gone:
        client.job("job_1")


def test_a_refused_connection_at_first_contact_is_told_at_once_with_what_to_do() -> None:
    with serving(Answer()) as server:
        pass
    with Client(server.url, retry_seconds=3600) as client, pytest.raises(ServiceAway, match="epochd up"):
        client.job("job_1")


def test_an_address_that_is_none_is_told_at_once() -> None:
    with Client("ftp://127.0.0.1:1", retry_seconds=3600) as client, pytest.raises(ServiceAway):
        client.job("job_1")


class TestUpdates:
    def test_they_wait_for_a_change_and_end_with_the_job(self) -> None:
        answers = (
            Answer(body=job(), headers={"ETag": '"1"'}), page(1),
            Answer(304, b""),
            Answer(body=job(status="succeeded", is_terminal=True), headers={"ETag": '"2"'}), page(2, 3),
        )  # fmt: skip
        with serving(*answers) as server, Client(server.url) as client:
            updates = list(client.updates("job_1"))
        assert [[row["epoch"] for row in rows] for _, rows in updates] == [[1], [2, 3]]
        first, _, waiting, *_ = server.requests
        assert "Prefer" not in first.headers
        assert waiting.headers["If-None-Match"] == '"1"'
        assert waiting.headers["Prefer"] == "wait=20"
        assert server.requests[-1].path.endswith("/metrics?after=1")

    def test_rows_are_read_page_by_page(self) -> None:
        answers = (Answer(body=job(is_terminal=True)), page(1, 2, has_more=True), page(3))
        with serving(*answers) as server, Client(server.url) as client:
            assert [row["epoch"] for row in client.follow("job_1")] == [1, 2, 3]
        assert server.requests[-1].path.endswith("/metrics?after=2")

    def test_they_survive_a_service_that_goes_away_in_between(self) -> None:
        answers = (
            Answer(body=job(), headers={"ETag": '"1"'}), page(1),
            Answer(is_cut_off=True), AWAY,
            Answer(body=job(is_terminal=True)), page(2),
        )  # fmt: skip
        with serving(*answers) as server, Client(server.url) as client:
            assert [row["epoch"] for row in client.follow("job_1")] == [1, 2]


class TestDownload:
    content = b"weights" * 1000

    def listed(self, sha256: str) -> Answer:
        return Answer(body={"data": [{"name": "model.safetensors", "sha256": sha256, "size_bytes": 7000}]})

    def fetch(self, server: Server, folder: Path) -> Path:
        with Client(server.url) as client:
            return client.download("job_1", "model.safetensors", folder / "model.safetensors")

    def test_a_file_with_the_recorded_digest_is_kept(self, tmp_path: Path) -> None:
        digest = hashlib.sha256(self.content).hexdigest()
        with serving(self.listed(digest), Answer(body=self.content)) as server:
            assert self.fetch(server, tmp_path).read_bytes() == self.content
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]

    def test_a_file_with_another_digest_is_refused_and_leaves_nothing(self, tmp_path: Path) -> None:
        with serving(self.listed("0" * 64), Answer(body=self.content)) as server, pytest.raises(DigestMismatch):
            self.fetch(server, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_name_that_is_not_there_says_what_is(self, tmp_path: Path) -> None:
        absent = pytest.raises(ClientError, match=r"it has: model\.safetensors")
        with serving(self.listed("0" * 64)) as server, Client(server.url) as client, absent:
            client.download("job_1", "model.pt", tmp_path / "model.pt")
