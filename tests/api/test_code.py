"""`GET /v1/jobs/{id}/code`: the script, its name, and when there is none."""

import ast
from typing import Any

from sqlalchemy import update
from starlette.testclient import TestClient

from api.routes.code import file_name
from api.services import Services
from core.db.tables import Job

SPEC: dict[str, Any] = {
    "name": "two moons",
    "task": "classification",
    "data": {"train": {"type": "synthetic.moons"}, "val": {"from": "train", "fraction": 0.2}},
    "model": {"type": "Sequential", "layers": [{"type": "Linear", "in_features": 2, "out_features": 2}]},
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "SGD", "lr": 0.1},
    "epochs": 3,
    "batch_size": 16,
    "metrics": ["accuracy"],
    "seed": 1,
    "execution": {"device": "cpu", "threads": 1},
}


def submitted(client: TestClient, services: Services, resolved: dict[str, Any] | None) -> str:
    """Return a job as preflight or an attempt has left it."""
    answer = client.post("/v1/jobs", json=SPEC)
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["id"]
    with services.database.session_scope() as session:
        session.execute(update(Job).where(Job.id == job_id).values(resolved_spec=resolved))
    return job_id


class TestCode:
    def test_a_resolved_job_is_answered_with_python_under_its_name(
        self, client: TestClient, services: Services
    ) -> None:
        answer = client.get(f"/v1/jobs/{submitted(client, services, SPEC)}/code")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/x-python")
        assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''two-moons.py"
        assert "nn.Linear(2, 2)" in answer.text
        ast.parse(answer.text)

    def test_the_same_job_gives_the_same_text_and_its_etag_a_304(self, client: TestClient, services: Services) -> None:
        path = f"/v1/jobs/{submitted(client, services, SPEC)}/code"
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(path).text == first.text

    def test_a_job_whose_sizes_are_not_known_yet_is_a_409(self, client: TestClient, services: Services) -> None:
        answer = client.get(f"/v1/jobs/{submitted(client, services, None)}/code")
        assert answer.status_code == 409
        assert "once it has started" in answer.json()["detail"]

    def test_a_data_set_that_was_deleted_is_a_409_that_names_the_field(
        self, client: TestClient, services: Services
    ) -> None:
        source = {"type": "dataset", "id": "ds_0199a1b2c3d47e5f8a9b0c1d2e3f4a5b", "version": 1}
        resolved = SPEC | {"data": {"train": source}}
        answer = client.get(f"/v1/jobs/{submitted(client, services, resolved)}/code")
        assert answer.status_code == 409
        assert answer.json()["type"].endswith("/code-refused")
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/data/train/id"
        assert error["hint"]

    def test_an_unknown_job_is_a_404(self, client: TestClient) -> None:
        assert client.get("/v1/jobs/job_0199a1b2c3d47e5f8a9b0c1d2e3f4a5b/code").status_code == 404


def test_any_name_of_a_job_gives_a_file_name() -> None:
    assert file_name("Größe 3: a/b") == "Größe-3-a-b.py"
    assert file_name("../..") == "train.py"
