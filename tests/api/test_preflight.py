"""Preflight over HTTP: in a real warm child, and without one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from api.preflight import PRELOAD
from core.errors import ChildFailed
from core.process import Template
from core.settings import Settings
from tests.api.conftest import EXAMPLES, near

Json = dict[str, Any]
ISSUE = "/model/layers/3/in_features"


@pytest.fixture(scope="module")
def warm_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    with Template(PRELOAD, log=tmp_path_factory.mktemp("log") / "template.log") as template:
        template.wait_ready()
        yield template


class Kept(Template):
    """A template that outlives the applications that use it."""

    def __init__(self, template: Template) -> None:
        self.__dict__ = template.__dict__

    def close(self) -> None:
        """Do nothing: the module's fixture closes it."""


@pytest.fixture
def warm(sqlite_url: str, tmp_path: Path, warm_template: Template) -> Iterator[TestClient]:
    """A client of a service whose preflight is warm."""
    settings = Settings(data_dir=tmp_path / "home", database_url=sqlite_url, preflight_seconds=60.0)
    with near(create_app(settings, template=Kept(warm_template))) as client:
        yield client


@pytest.fixture
def mistaken(spec: Json) -> Json:
    """A spec whose second linear layer does not fit the first."""
    spec["model"]["layers"][3]["in_features"] = 63
    return spec


def no_child(*_: object, **__: object) -> None:
    raise ChildFailed("no child may be asked")


class TestWarm:
    @pytest.mark.parametrize(
        "name", ["digits-early-stopping", "diabetes-regression", "cnn-augmented", "resnet18-digits"]
    )
    def test_examples_can_run(self, warm: TestClient, name: str) -> None:
        answer = warm.post(
            "/v1/preflight",
            content=(EXAMPLES / f"{name}.json").read_bytes(),
            headers={"Content-Type": "application/json"},
        )

        body = answer.json()
        assert (answer.status_code, body["ok"], body["errors"]) == (200, True, [])
        assert body["summary"]["parameters"] == sum(layer["parameters"] for layer in body["summary"]["layers"])
        assert body["resolved_spec"]["seed"] is not None

    def test_mistake_is_reported_at_its_pointer(self, warm: TestClient, mistaken: Json) -> None:
        body = warm.post("/v1/preflight", json=mistaken).json()

        assert not body["ok"]
        assert ISSUE in [issue["pointer"] for issue in body["errors"]]

    def test_wrong_word_is_reported_the_same_way(self, warm: TestClient, spec: Json) -> None:
        answer = warm.post("/v1/preflight", json={**spec, "epoch": 1})

        assert (answer.status_code, answer.json()["ok"]) == (200, False)
        assert answer.json()["errors"][0]["pointer"] == "/epoch"

    def test_job_with_a_mistake_is_422_and_not_queued(self, warm: TestClient, mistaken: Json) -> None:
        answer = warm.post("/v1/jobs", json=mistaken)

        assert answer.status_code == 422
        assert ISSUE in [issue["pointer"] for issue in answer.json()["errors"]]
        assert warm.get("/v1/jobs").json()["data"] == []

    def test_accepted_job_has_its_resolved_spec(self, warm: TestClient, spec: Json) -> None:
        job = warm.post("/v1/jobs", json=spec).json()

        assert job["spec"] == spec
        assert job["resolved_spec"]["model"]["layers"][0]["in_features"] == 64

    def test_the_same_spec_is_not_built_again_under_another_name(
        self, warm: TestClient, spec: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = warm.post("/v1/jobs", json=spec | {"seed": 7, "name": "first", "metadata": {"who": "me"}}).json()
        monkeypatch.setattr(Template, "spawn", no_child)

        second = warm.post("/v1/jobs", json=spec | {"seed": 7, "name": "second"}).json()
        third = warm.post("/v1/jobs", json={key: spec[key] for key in spec if key != "name"} | {"seed": 7}).json()
        other = warm.post("/v1/jobs", json=spec | {"seed": 8}).json()

        resolved = {key: value for key, value in first["resolved_spec"].items() if key not in ("name", "metadata")}
        assert first["resolved_spec"] == resolved | {"name": "first", "metadata": {"who": "me"}}
        assert second["resolved_spec"] == resolved | {"name": "second", "metadata": {}}
        assert third["resolved_spec"] == resolved | {"metadata": {}}
        assert other["resolved_spec"] is None, "there was no child to ask"

    def test_jobs_without_a_seed_get_one_each(self, warm: TestClient, spec: Json) -> None:
        del spec["seed"]

        seeds = {warm.post("/v1/jobs", json=spec).json()["resolved_spec"]["seed"] for _ in range(3)}

        assert len(seeds) == 3

    def test_upload_is_looked_at(self, warm: TestClient, spec: Json) -> None:
        rows = "".join(f"{index},{index * 2},{'xyz'[index % 3]}\n" for index in range(60))
        files = {"file": ("t.csv", f"a,b,label\n{rows}".encode())}
        made = warm.post("/v1/datasets", files=files, data={"format": "csv"}).json()
        spec["data"]["train"] = {"type": "dataset", "id": made["id"]}
        spec["model"]["layers"][-1]["out_features"] = 3

        job = warm.post("/v1/jobs", json=spec).json()

        assert job["resolved_spec"]["data"]["train"]["version"] == 1


class TestWithoutAnAnswer:
    @pytest.fixture(params=["closed", "importing", "hung"])
    def app(self, request: pytest.FixtureRequest, sqlite_url: str, tmp_path: Path, no_template: Template) -> FastAPI:
        """A service whose preflight cannot answer, for three reasons."""
        log = tmp_path / "template.log"
        template = {
            "closed": no_template,
            "importing": Template(["time.sleep.does.not.exist"], log=log),
            "hung": Template([], log=log),
        }[request.param]
        settings = Settings(data_dir=tmp_path / "home", database_url=sqlite_url, preflight_seconds=0.3)
        return create_app(settings, template=template)

    def test_job_is_accepted_and_resolved_later(self, client: TestClient, spec: Json) -> None:
        answer = client.post("/v1/jobs", json=spec)

        assert (answer.status_code, answer.json()["resolved_spec"]) == (201, None)

    def test_the_upload_of_today_is_what_it_will_train_on(self, client: TestClient, spec: Json) -> None:
        files = {"file": ("t.csv", b"a,label\n1,x\n2,y\n")}
        made = client.post("/v1/datasets", files=files, data={"format": "csv"}).json()

        job = client.post("/v1/jobs", json={**spec, "data": {"train": {"type": "dataset", "id": made["id"]}}}).json()

        assert job["resolved_spec"]["data"]["train"] == {"type": "dataset", "id": made["id"], "version": 1}

    def test_preflight_is_503_with_retry_after(self, client: TestClient, spec: Json) -> None:
        answer = client.post("/v1/preflight", json=spec)

        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (503, "child-failed")
        assert int(answer.headers["Retry-After"]) > 0

    def test_wrong_word_is_still_refused(self, client: TestClient, spec: Json) -> None:
        assert client.post("/v1/jobs", json={**spec, "epoch": 1}).status_code == 422
