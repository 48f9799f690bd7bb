"""Components, queue, workers, keys, health and Prometheus over HTTP."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.services import Services
from core.db import workers
from core.process import Template
from core.settings import Settings
from tests.api.conftest import near
from tests.api.work import Work

Json = dict[str, Any]


class TestComponents:
    def test_kinds_name_what_a_spec_can_use(self, client: TestClient) -> None:
        kinds = {kind["kind"]: kind["names"] for kind in client.get("/v1/components").json()["data"]}

        assert "Adam" in kinds["optimizers"]
        assert "LambdaLR" not in kinds["lr_schedulers"]

    def test_one_has_help_arguments_and_schema(self, client: TestClient) -> None:
        body = client.get("/v1/components/optimizers/Adam").json()

        assert body["help"]
        assert "lr" in [parameter["name"] for parameter in body["parameters"]]
        assert body["schema"]["properties"]["type"] == {"const": "Adam"}

    def test_refused_one_says_why(self, client: TestClient) -> None:
        found = {entry["name"]: entry for entry in client.get("/v1/components/lr_schedulers").json()["data"]}

        assert found["LambdaLR"]["refused"]

    @pytest.mark.parametrize("path", ["nothing", "nothing/Adam", "optimizers/Adma"])
    def test_absent_one_is_404(self, client: TestClient, path: str) -> None:
        assert client.get(f"/v1/components/{path}").status_code == 404


class TestQueueAndWorkers:
    def test_queue_counts_by_state(self, client: TestClient, spec: Json, job: Json, work: Work) -> None:
        work.claim()
        client.post("/v1/jobs", json=spec)

        assert client.get("/v1/queue").json()["data"] == [{"name": "cpu", "queued": 1, "running": 1, "paused": 0}]

    def test_worker_is_listed_with_its_jobs(
        self, client: TestClient, services: Services, job: Json, work: Work
    ) -> None:
        work.claim()
        me = workers.Announcement(
            id="wk_" + "0" * 32, name="w", host="h", pid=1, version="1", queues=["cpu"], devices=[], slots=1
        )
        with services.database.session_scope() as session:
            workers.announce(session, me)

        (found,) = client.get("/v1/workers").json()["data"]

        assert (found["name"], found["queues"], found["jobs"]) == ("w", ["cpu"], [job["id"]])


class TestKeys:
    def test_first_one_is_made_without_a_key_and_then_asked_for(self, client: TestClient) -> None:
        made = client.post("/v1/keys", json={"name": "me", "scopes": ["admin"]})

        header = {"Authorization": f"Bearer {made.json()['key']}"}
        assert made.status_code == 201
        assert client.get("/v1/keys").status_code == 401
        (listed,) = client.get("/v1/keys", headers=header).json()["data"]
        assert (listed["name"], listed["hint"]) == ("me", made.json()["key"][:8])
        assert "key" not in listed

    def test_ordinary_scopes_are_the_default(self, client: TestClient) -> None:
        made = client.post("/v1/keys", json={"name": "me"}).json()

        assert (made["project"], "admin" in made["scopes"]) == ("default", False)

    def test_operator_manages_every_project_and_another_admin_its_own(self, client: TestClient) -> None:
        def make(header: dict[str, str] | None, project: str, *scopes: str) -> Any:
            body = {"name": project, "project": project, "scopes": list(scopes)}
            return client.post("/v1/keys", json=body, headers=header)

        operator = {"Authorization": f"Bearer {make(None, 'default', 'admin').json()['key']}"}
        admin = {"Authorization": f"Bearer {make(operator, 'other', 'admin').json()['key']}"}

        listed = {key["project"]: key["id"] for key in client.get("/v1/keys", headers=operator).json()["data"]}

        assert listed.keys() == {"default", "other"}
        assert [key["project"] for key in client.get("/v1/keys", headers=admin).json()["data"]] == ["other"]
        assert make(admin, "default", "admin").status_code == 403
        assert client.delete(f"/v1/keys/{listed['default']}", headers=admin).status_code == 404
        assert client.delete(f"/v1/keys/{listed['other']}", headers=operator).status_code == 204
        assert client.get("/v1/keys", headers=admin).status_code == 401

    @pytest.mark.parametrize(
        "body", [{}, {"name": ""}, {"name": "x", "scopes": ["root"]}, {"name": "x", "project": "a b"}], ids=str
    )
    def test_wrong_wish_is_422(self, client: TestClient, body: Json) -> None:
        assert client.post("/v1/keys", json=body).status_code == 422

    def test_absent_one_is_404(self, client: TestClient) -> None:
        assert client.delete("/v1/keys/key_1").status_code == 404


class TestHealth:
    def test_embedded_service_is_ready_without_a_broker(self, client: TestClient) -> None:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready", "database": "ok", "broker": None}

    def test_broker_that_answers_is_ok(
        self, sqlite_url: str, tmp_path: Any, redis_url: str, no_template: Template
    ) -> None:
        settings = Settings(data_dir=tmp_path / "home", database_url=sqlite_url, broker_url=redis_url)
        with near(create_app(settings, template=no_template)) as client:
            assert client.get("/readyz").json()["broker"] == "ok"

    def test_broker_that_is_away_is_503_and_refuses_no_job(
        self, sqlite_url: str, tmp_path: Any, no_template: Template, spec: Json
    ) -> None:
        url = "redis://127.0.0.1:9/0"
        settings = Settings(data_dir=tmp_path / "home", database_url=sqlite_url, broker_url=url)
        with near(create_app(settings, template=no_template)) as client:
            ready, posted = client.get("/readyz"), client.post("/v1/jobs", json=spec)

        assert (ready.status_code, ready.json()["type"].rpartition("/")[2]) == (503, "broker-away")
        assert posted.status_code == 201


class TestPrometheus:
    def test_counts_requests_by_route_and_jobs_by_state(self, client: TestClient, job: Json) -> None:
        client.get(f"/v1/jobs/{job['id']}")
        client.get("/nowhere/at/all")

        text = client.get("/metrics").text

        assert 'epochd_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1.0' in text
        assert 'route="none",status="404"' in text
        assert 'epochd_jobs{state="queued"} 1.0' in text
        assert job["id"] not in text


class TestDocuments:
    def test_document_and_its_page_are_served(self, client: TestClient) -> None:
        assert client.get("/openapi.json").json()["info"]["title"] == "epochd"
        assert "swagger" in client.get("/docs").text
