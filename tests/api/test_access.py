"""Who may call."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.access import Caller
from api.services import Services
from core.db import keys
from core.db.keys import Scope
from tests.api.conftest import near

Json = dict[str, Any]
OPEN = {"/healthz", "/readyz"}
READERS = ["jobs:read", "datasets:read"]


def make_key(services: Services, project: str, *scopes: str) -> dict[str, str]:
    """Make a key and return the header that shows it."""
    with services.database.session_scope() as session:
        _, secret = keys.create(session, project, "test", list(scopes))
    return {"Authorization": f"Bearer {secret}"}


def everything(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield every method and path that is documented, and those that are not."""
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            yield method.upper(), path
    yield from (("GET", "/openapi.json"), ("GET", "/docs"))


def filled(path: str, **values: str) -> str:
    return path.format(**values)


@pytest.fixture
def names(client: TestClient, cancelled: Json) -> dict[str, str]:
    """What exists in the project `default`, by the name of its path parameter."""
    upload = client.post(
        "/v1/datasets", files={"file": ("t.csv", b"a,b\n1,2\n3,4\n")}, data={"format": "csv", "name": "t"}
    )
    assert upload.status_code == 201, upload.text
    return {
        "job_id": cancelled["id"],
        "dataset_id": upload.json()["id"],
        "name": "Adam",
        "kind": "optimizers",
        "key_id": "key_" + "0" * 32,
    }


class TestWithoutKey:
    def test_every_route_but_health_is_401_once_a_key_exists(
        self, app: FastAPI, client: TestClient, services: Services, names: dict[str, str]
    ) -> None:
        make_key(services, "default", "admin")

        answers = {
            (method, path): client.request(method, filled(path, **names)).status_code
            for method, path in everything(app)
        }

        assert len(answers) > 30
        assert {status for (_, path), status in answers.items() if path not in OPEN} == {401}
        assert {status for (_, path), status in answers.items() if path in OPEN} == {200}

    def test_401_says_how_to_show_a_key(self, client: TestClient, services: Services) -> None:
        make_key(services, "default", "admin")

        answer = client.get("/v1/jobs")

        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Content-Type"] == "application/problem+json"

    def test_revoking_the_last_key_does_not_open_the_service(self, client: TestClient, services: Services) -> None:
        header = make_key(services, "default", "admin")
        (key,) = client.get("/v1/keys", headers=header).json()["data"]
        assert client.delete(f"/v1/keys/{key['id']}", headers=header).status_code == 204

        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/v1/jobs", headers=header).status_code == 401


class TestKeyless:
    def test_program_of_another_machine_is_401(self, app: FastAPI, client: TestClient) -> None:
        assert near(app, "192.0.2.7").get("/v1/jobs").status_code == 401

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
    def test_what_a_proxy_passes_on_is_401(self, client: TestClient, header: str) -> None:
        assert client.get("/v1/jobs", headers={header: "192.0.2.7"}).status_code == 401

    @pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
    def test_own_names_are_answered(self, client: TestClient, host: str) -> None:
        assert client.get("/v1/jobs", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""])
    def test_strange_host_name_is_403(self, client: TestClient, host: str) -> None:
        assert client.get("/v1/jobs", headers={"Host": host}).status_code == 403

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:9999"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
        ids=str,
    )
    def test_page_of_another_origin_cannot_change_anything(
        self, client: TestClient, job: Json, headers: dict[str, str]
    ) -> None:
        files = {"file": ("t.csv", b"a,b\n1,2\n")}

        assert client.post(f"/v1/jobs/{job['id']}/cancel", headers=headers).status_code == 403
        assert client.post("/v1/datasets", files=files, data={"format": "csv"}, headers=headers).status_code == 403
        assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued"

    def test_page_of_the_service_itself_may(self, client: TestClient, job: Json) -> None:
        headers = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}

        assert client.post(f"/v1/jobs/{job['id']}/cancel", headers=headers).status_code == 202

    @pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", ""])
    def test_body_that_a_form_can_send_is_415(self, client: TestClient, job: Json, media: str) -> None:
        answer = client.post(f"/v1/jobs/{job['id']}/cancel", content=b"x", headers={"Content-Type": media})

        assert answer.status_code == 415

    def test_no_cors_headers_are_sent(self, client: TestClient) -> None:
        answer = client.get("/v1/jobs", headers={"Origin": "https://evil.example"})

        assert not [name for name in answer.headers if name.startswith("access-control")]


class TestKeys:
    @pytest.mark.parametrize("value", ["epk_wrong", "Bearer", "Bearer x", "Bearer epk_wrong", "Basic epk_x", ""])
    def test_wrong_one_is_401_even_where_none_is_needed(self, client: TestClient, value: str) -> None:
        assert client.get("/v1/jobs", headers={"Authorization": value}).status_code == 401

    def test_good_one_is_answered_from_anywhere(self, app: FastAPI, client: TestClient, services: Services) -> None:
        header = make_key(services, "default", *READERS)

        assert near(app, "192.0.2.7").get("/v1/jobs", headers={**header, "Host": "any.example"}).status_code == 200

    def test_its_use_is_written_down(self, client: TestClient, services: Services) -> None:
        header = make_key(services, "default", "admin")

        (key,) = client.get("/v1/keys", headers=header).json()["data"]

        assert key["last_used_at"] is not None

    def test_missing_scope_is_403(
        self, app: FastAPI, client: TestClient, services: Services, names: dict[str, str]
    ) -> None:
        header = make_key(services, "default", *READERS)
        writing = [
            (method, path)
            for method, path in everything(app)
            if (method != "GET" and path != "/v1/preflight") or path == "/v1/keys"
        ]

        answers = {(m, p): client.request(m, filled(p, **names), headers=header).status_code for m, p in writing}

        assert len(answers) >= 9
        assert set(answers.values()) == {403}


class TestProjects:
    def test_every_route_hides_what_belongs_to_another_project(
        self, app: FastAPI, client: TestClient, services: Services, names: dict[str, str]
    ) -> None:
        header = make_key(services, "other", "jobs:read", "jobs:write", "datasets:read", "datasets:write")
        own = [(m, p) for m, p in everything(app) if "{job_id}" in p or "{dataset_id}" in p]

        answers = {
            (m, p): client.request(m, filled(p, **names), headers=header, json={} if m == "PATCH" else None).status_code
            for m, p in own
        }

        assert len(answers) >= 15
        assert set(answers.values()) == {404}

    @pytest.mark.parametrize("path", ["/v1/jobs", "/v1/datasets", "/v1/queue"])
    def test_lists_are_empty(
        self, client: TestClient, services: Services, names: dict[str, str], job: Json, path: str
    ) -> None:
        header = make_key(services, "other", *READERS)

        assert client.get(path, headers=header).json()["data"] == []

    def test_spec_cannot_name_another_projects_upload(
        self, client: TestClient, services: Services, names: dict[str, str], spec: Json
    ) -> None:
        header = make_key(services, "other", "jobs:write")
        spec["data"]["train"] = {"type": "dataset", "id": names["dataset_id"]}

        answer = client.post("/v1/jobs", json=spec, headers=header)

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/data/train/id"

    def test_idempotency_keys_of_projects_are_apart(self, client: TestClient, services: Services, spec: Json) -> None:
        mine, other = (make_key(services, project, "jobs:write") for project in ("default", "other"))
        post = [client.post("/v1/jobs", json=spec, headers={**h, "Idempotency-Key": "k"}).json() for h in (mine, other)]

        assert post[0]["id"] != post[1]["id"]


@pytest.mark.parametrize(
    ("scopes", "wanted", "may"),
    [
        (["jobs:read"], "jobs:read", True),
        (["jobs:read"], "jobs:write", False),
        (["jobs:write"], "jobs:read", False),
        (["admin"], "datasets:write", True),
        (["datasets:read", "jobs:read"], "admin", False),
    ],
)
def test_a_scope_allows_what_it_says(scopes: list[str], wanted: Scope, may: bool) -> None:
    assert Caller("mine", frozenset(scopes)).may(wanted) is may
