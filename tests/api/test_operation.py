"""Components, queue, workers, keys, health and Prometheus over HTTP."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from starlette.testclient import TestClient

from api.app import create_app
from api.outage import Outage
from api.services import Services
from core.db import workers
from core.db.engine import Database
from core.errors import DatabaseAway
from core.process import Template
from core.settings import Settings
from tests.api.conftest import near
from tests.api.work import Work, row
from tests.core.db import given
from tests.servers import Postgres

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


class Figures:
    """What Prometheus' own parser reads."""

    def __init__(self, client: TestClient, **headers: str) -> None:
        answer = client.get("/metrics", headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        self.families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, frozenset(labels.items())))


class TestFigures:
    """Names, kinds and values of what operators watch."""

    @pytest.fixture
    def client(self, settings: Settings, no_template: Template) -> Iterator[TestClient]:
        app = create_app(settings, template=no_template)
        services: Services = app.state.services
        services.telemetry._settled_seconds = -1.0  # nothing else writes: no event hides
        with near(app) as client:
            client.get("/metrics")  # counters begin with the first look
            yield client

    @pytest.fixture
    def work(self, client: TestClient) -> Work:
        return Work(cast("Any", client.app).state.services.database)

    def test_every_family_has_help_a_kind_and_a_conventional_name(self, client: TestClient) -> None:
        families = Figures(client).families
        own = {name: family for name, family in families.items() if name.startswith("epochd_")}
        assert {
            "epochd_jobs", "epochd_queue_jobs", "epochd_oldest_waiting_seconds", "epochd_leases_over",
            "epochd_workers", "epochd_slots", "epochd_jobs_accepted", "epochd_jobs_ended", "epochd_epochs_published",
            "epochd_attempts_started", "epochd_attempts_ended", "epochd_database_away_seconds", "epochd_free_bytes",
            "epochd_preflight_seconds", "epochd_preflight_failures", "epochd_rings", "epochd_build_info",
            "epochd_http_requests", "epochd_http_request_seconds",
        } <= own.keys()  # fmt: skip
        assert all(family.documentation and family.type != "unknown" for family in own.values())
        counters = [sample.name for family in own.values() if family.type == "counter" for sample in family.samples]
        assert all(name.endswith(("_total", "_created")) for name in counters)
        assert "process_open_fds" in families

    def test_job_is_counted_from_its_creation_to_its_end(self, client: TestClient, spec: Json, work: Work) -> None:
        client.post("/v1/jobs", json=spec)
        waiting = Figures(client)
        mine = work.claim()
        work.publish(mine, row(1), row(2), row(3))
        running = Figures(client)
        work.finish(mine)
        ended = Figures(client)

        assert waiting("epochd_jobs_accepted_total") == 1
        assert waiting("epochd_queue_jobs", queue="cpu", state="queued") == 1
        assert (waiting("epochd_oldest_waiting_seconds", queue="cpu") or 0.0) > 0
        assert running("epochd_oldest_waiting_seconds", queue="cpu") is None
        assert running("epochd_queue_jobs", queue="cpu", state="running") == 1
        assert running("epochd_attempts_started_total") == 1
        assert running("epochd_epochs_published_total") == 3
        assert ended("epochd_queue_jobs", queue="cpu", state="running") is None
        assert ended("epochd_jobs_ended_total", state="succeeded", code="") == 1
        assert ended("epochd_attempts_ended_total", outcome="succeeded", code="") == 1

    def test_lost_and_crashed_attempts_are_counted_by_code(self, client: TestClient, spec: Json, work: Work) -> None:
        database = cast("Any", client.app).state.services.database
        client.post("/v1/jobs", json=spec)
        mine = work.claim()
        given.let_lease_end(database, mine.job_id)
        assert Figures(client)("epochd_leases_over") == 1
        given.reap(database)
        given.crash(database, work.claim(), "oom")
        after = Figures(client)

        assert after("epochd_leases_over") == 0
        assert after("epochd_attempts_ended_total", outcome="lost", code="lost") == 1
        assert after("epochd_attempts_ended_total", outcome="crashed", code="oom") == 1
        assert after("epochd_attempts_ended_total", outcome="crashed", code="killed") == 0

    def test_deleted_jobs_take_nothing_back(self, client: TestClient, spec: Json, work: Work) -> None:
        posted = client.post("/v1/jobs", json=spec).json()
        mine = work.claim()
        work.publish(mine, row(1))
        work.finish(mine)
        Figures(client)
        assert client.delete(f"/v1/jobs/{posted['id']}").status_code == 204
        after = Figures(client)

        assert after("epochd_jobs", state="succeeded") is None
        assert after("epochd_epochs_published_total") == 1
        assert after("epochd_jobs_ended_total", state="succeeded", code="") == 1

    def test_cancelled_job_that_never_ran_is_no_attempt(self, client: TestClient, spec: Json) -> None:
        posted = client.post("/v1/jobs", json=spec).json()
        client.post(f"/v1/jobs/{posted['id']}/cancel")
        after = Figures(client)

        assert after("epochd_jobs_ended_total", state="cancelled", code="") == 1
        assert after("epochd_attempts_ended_total", outcome="cancelled", code="") == 0

    def test_workers_are_counted_by_version_and_their_slots_by_queue(self, client: TestClient) -> None:
        database = cast("Any", client.app).state.services.database
        with database.session_scope() as session:
            for number, queues in enumerate((["cpu"], ["cpu", "gpu"], ["gpu"])):
                me = workers.Announcement(
                    id=f"wk_{number}", name="w", host="h", pid=1, version="1.2", queues=queues, devices=[], slots=2
                )
                workers.announce(session, me)
            workers.drain(session, "wk_2")
        there = Figures(client)

        assert there("epochd_workers", state="ready", version="1.2") == 2
        assert there("epochd_workers", state="draining", version="1.2") == 1
        assert there("epochd_slots", queue="cpu") == 4
        assert there("epochd_slots", queue="gpu") == 2

    def test_project_sees_its_own_jobs_only(self, client: TestClient, spec: Json) -> None:
        def key(header: dict[str, str], project: str, *scopes: str) -> dict[str, str]:
            made = client.post("/v1/keys", json={"name": "k", "project": project, "scopes": scopes}, headers=header)
            return {"Authorization": f"Bearer {made.json()['key']}"}

        operator = key({}, "default", "admin")
        alice = key(operator, "alice", "jobs:read", "jobs:write")
        bob = key(operator, "bob", "jobs:read")
        client.post("/v1/jobs", json=spec, headers=alice)

        assert Figures(client, **alice)("epochd_jobs_accepted_total") == 1
        assert Figures(client, **operator)("epochd_jobs_accepted_total") == 1
        assert Figures(client, **bob)("epochd_jobs_accepted_total") == 0
        assert Figures(client, **bob)("epochd_queue_jobs", queue="cpu", state="queued") is None

    def test_preflight_that_gives_no_report_is_counted(self, client: TestClient, spec: Json) -> None:
        client.post("/v1/jobs", json=spec)
        after = Figures(client)

        assert after("epochd_preflight_seconds_count") == 1
        assert after("epochd_preflight_failures_total") == 1

    def test_free_space_is_told_for_every_folder(self, client: TestClient) -> None:
        found = Figures(client)
        assert all((found("epochd_free_bytes", folder=name) or 0) > 0 for name in ("data", "cache", "artifacts"))


def test_rings_that_the_broker_did_not_take_are_counted(
    sqlite_url: str, tmp_path: Any, no_template: Template, spec: Json
) -> None:
    settings = Settings(data_dir=tmp_path / "home", database_url=sqlite_url, broker_url="redis://127.0.0.1:9/0")
    with near(create_app(settings, template=no_template)) as client:
        client.post("/v1/jobs", json=spec)
        after = Figures(client)

    assert after("epochd_rings_total", result="unanswered") == 1
    assert after("epochd_rings_total", result="taken") == 0


def test_time_without_the_database_is_counted(private_postgres: Callable[[], Postgres]) -> None:
    server = private_postgres()
    database = Database(server.url)
    clock = Seconds()
    outage = Outage(database.engine, clock)
    database.ping()
    assert outage.seconds == 0.0
    with pytest.raises(ProgrammingError), database.session_scope() as session:
        session.execute(text("SELECT nothing"))
    assert outage.seconds == 0.0
    server.stop()
    with pytest.raises(DatabaseAway):
        database.ping()
    clock.now += 7.0
    assert outage.seconds == 7.0
    server.start()
    database.ping()
    clock.now += 1.0
    assert outage.seconds == 7.0
    database.dispose()


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TestDocuments:
    def test_document_and_its_page_are_served(self, client: TestClient) -> None:
        assert client.get("/openapi.json").json()["info"]["title"] == "epochd"
        assert "swagger" in client.get("/docs").text
