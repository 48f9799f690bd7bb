"""Every error is a problem (RFC 9457); bad input harms nothing."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from core.process import Template
from core.settings import Settings
from tests.api.conftest import listening, near

Json = dict[str, Any]
JSON = {"Content-Type": "application/json"}
PROBLEM = {"type", "title", "status", "detail", "instance", "errors"}
MIB = 1 << 20


def check(answer: Any, status: int, slug: str) -> Json:
    """Check that an answer is a whole problem, and return it."""
    body = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert body.keys() >= PROBLEM
    assert (answer.status_code, body["status"], body["type"].rpartition("/")[2]) == (status, status, slug)
    return body


class TestBodies:
    @pytest.mark.parametrize("path", ["/v1/jobs", "/v1/preflight", "/v1/keys"])
    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 100_000], ids=repr)
    def test_no_json_is_400(self, client: TestClient, path: str, body: bytes) -> None:
        check(client.post(path, content=body, headers=JSON), 400, "malformed")

    def test_malformed_json_says_line_and_column(self, client: TestClient) -> None:
        body = check(client.post("/v1/jobs", content=b'{\n  "model": ,\n}', headers=JSON), 400, "malformed")

        assert (body["line"], body["column"]) == (2, 12)

    @pytest.mark.parametrize("media", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
    def test_another_content_type_is_415(self, client: TestClient, media: str) -> None:
        answer = client.post("/v1/jobs", content=b"{}", headers={"Content-Type": media})

        check(answer, 415, "unsupported-media-type")

    def test_content_type_with_charset_is_json(self, client: TestClient, spec: Json) -> None:
        import json

        headers = {"Content-Type": "application/json; charset=utf-8"}

        assert client.post("/v1/jobs", content=json.dumps(spec), headers=headers).status_code == 201

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"epoch": 3}, "/epoch"),
            ({"epochs": "5"}, "/epochs"),
            ({"batch_size": 0}, "/batch_size"),
            ({"loss": 5}, "/loss"),
            ({"model": {"type": "Sequential", "layers": [{"type": "Linaer"}]}}, "/model/layers/0/type"),
        ],
        ids=str,
    )
    def test_wrong_spec_is_422_at_its_pointer(self, client: TestClient, spec: Json, change: Json, pointer: str) -> None:
        body = check(client.post("/v1/jobs", json={**spec, **change}), 422, "spec-invalid")

        assert pointer in [issue["pointer"] for issue in body["errors"]]

    def test_declared_length_over_the_limit_is_413(self, client: TestClient) -> None:
        check(client.post("/v1/jobs", content=b" " * (MIB + 1), headers=JSON), 413, "too-large")

    def test_undeclared_length_over_the_limit_is_413(self, client: TestClient) -> None:
        check(client.post("/v1/jobs", content=iter([b" " * MIB] * 3), headers=JSON), 413, "too-large")


@pytest.fixture
def sqlite_app(sqlite_url: str, tmp_path: Any, no_template: Template) -> FastAPI:
    return create_app(Settings(data_dir=tmp_path / "home", database_url=sqlite_url), template=no_template)


class TestLargeBodies:
    @pytest.mark.parametrize("is_declared", [True, False])
    def test_100_mb_are_413_and_read_by_the_client(self, sqlite_app: FastAPI, *, is_declared: bool) -> None:
        chunk = b" " * MIB
        with listening(sqlite_app) as (client, _):
            headers = {**JSON, "Content-Length": str(100 * MIB)} if is_declared else JSON

            check(client.post("/v1/jobs", content=iter([chunk] * 100), headers=headers), 413, "too-large")

            assert client.get("/v1/jobs").json()["data"] == []


class TestOthers:
    def test_unknown_path_is_404(self, client: TestClient) -> None:
        check(client.get("/v2/jobs"), 404, "not-found")

    def test_unknown_method_is_405_and_names_the_others(self, client: TestClient) -> None:
        answer = client.put("/v1/jobs")

        check(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"]

    @pytest.mark.parametrize("job_id", ["x", "job_1", "job_" + "G" * 32, "%00", "..%2f..", "job_" + "0" * 32])
    def test_what_is_no_job_is_404(self, client: TestClient, job_id: str) -> None:
        check(client.get(f"/v1/jobs/{job_id}/metrics"), 404, "not-found")

    def test_parameter_of_another_type_is_400(self, client: TestClient, job: Json) -> None:
        body = check(client.get(f"/v1/jobs/{job['id']}/metrics", params={"after": "x"}), 400, "malformed")

        assert "after" in body["errors"][0]["detail"]

    def test_crash_is_500_without_its_internals(self, app: FastAPI) -> None:
        @app.get("/crash")
        def crash() -> None:
            raise RuntimeError("the secret")

        with near(app) as client:
            answer = client.get("/crash")

        check(answer, 500, "error")
        assert "secret" not in answer.text

    def test_absent_database_is_503_with_retry_after(self, tmp_path: Any, no_template: Template) -> None:
        url = "postgresql+psycopg://nobody@127.0.0.1:9/none"
        app = create_app(Settings(data_dir=tmp_path, database_url=url), template=no_template)
        with near(app) as client:
            answers = [client.get("/readyz"), client.get("/v1/jobs"), client.post("/v1/jobs", json={})]
            alive = client.get("/healthz")

        for answer in answers:
            check(answer, 503, "database-away")
            assert int(answer.headers["Retry-After"]) > 0
        assert alive.status_code == 200
