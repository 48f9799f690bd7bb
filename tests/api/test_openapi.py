"""The OpenAPI document: committed, complete, and true."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis.strategies import booleans
from schemathesis import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api import openapi
from api.app import create_app
from core import spec as specs
from core.process import Template
from core.settings import Settings
from tests.api.conftest import near
from tests.api.test_access import make_key

Json = dict[str, Any]
CHECKS: list[CheckFunction] = [status_code_conformance, content_type_conformance, response_schema_conformance]

OPERATIONS = [
    (method, path)
    for path, operations in json.loads(openapi.FILE.read_text())["paths"].items()
    for method in operations
]


def test_committed_document_is_the_applications(no_template: Template) -> None:
    app = create_app(Settings(), template=no_template)

    assert openapi.FILE.read_text() == openapi.text(app), "run `python -m api.openapi`"


def test_headers_are_called_as_clients_send_them() -> None:
    found = {
        parameter["name"]
        for operations in json.loads(openapi.FILE.read_text())["paths"].values()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "header"
    }
    assert found == {"Idempotency-Key", "If-None-Match", "Last-Event-ID", "Prefer"}


def test_every_operation_documents_its_problems_and_who_may_call(no_template: Template) -> None:
    document = create_app(Settings(), template=no_template).openapi()

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"]
            assert operation["description"], (method, path)
            if path not in {"/healthz", "/readyz"}:
                assert operation["security"], (method, path)
                assert operation["responses"].keys() >= {"401", "403", "503"}, (method, path)


def test_every_reference_leads_somewhere(no_template: Template) -> None:
    document = create_app(Settings(), template=no_template).openapi()

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= document["components"]["schemas"].keys()


def test_spec_examples_are_those_of_the_repository_and_parse(no_template: Template) -> None:
    document = create_app(Settings(), template=no_template).openapi()
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]

    for file in (Path(__file__).resolve().parents[2] / "examples").glob("*.json"):
        assert body["examples"][file.stem]["value"] == json.loads(file.read_text())
        specs.parse_object(body["examples"][file.stem]["value"])


@pytest.fixture
def new_app(sqlite_url: str, tmp_path: Path, no_template: Template) -> Callable[[], FastAPI]:
    """Return what makes services over the same database: each belongs to one event loop."""
    settings = Settings(data_dir=tmp_path / "home", database_url=sqlite_url, max_wait_seconds=0.1)
    return lambda: create_app(settings, template=no_template)


@pytest.fixture
def there(new_app: Callable[[], FastAPI], spec: Json) -> dict[str, str]:
    """Ids of an ended job and of a data set, by their parameter's name."""
    with near(new_app()) as client:
        job = client.post("/v1/jobs", json=spec).json()
        client.post(f"/v1/jobs/{job['id']}/cancel")
        files = {"file": ("t.csv", b"a,b\n1,2\n3,4\n")}
        dataset = client.post("/v1/datasets", files=files, data={"format": "csv"}).json()
    return {"job_id": job["id"], "dataset_id": dataset["id"]}


@pytest.fixture
def described(new_app: Callable[[], FastAPI], there: dict[str, str]) -> schemathesis.BaseSchema:
    """The service, as its own document describes it to a caller with a key."""
    app = new_app()
    header = make_key(app.state.services, "default", "admin")
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=header)
    schema.config.update(headers=header)
    return schema


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_answer_is_a_crash_or_undocumented(
    described: schemathesis.BaseSchema, there: dict[str, str], method: str, path: str
) -> None:
    operation = described[path][method]
    good, bad = (operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode)

    @hypothesis_settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=good | bad, is_there=booleans())
    def check(case: schemathesis.Case, *, is_there: bool) -> None:
        known = {name: value for name, value in there.items() if is_there and name in case.path_parameters}
        case.path_parameters.update(known)
        answer = case.call()
        assert answer.status_code != 500
        case.validate_response(answer, checks=CHECKS)

    check()
