"""Preflight over HTTP: in a real warm child, and without one."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from api.app import create_app
from api.preflight import PRELOAD
from core.errors import ChildFailed
from core.process import Template
from core.settings import Settings
from tests.api.conftest import EXAMPLES, near
from tests.api.test_datasets import archive, post

Json = dict[str, Any]
ISSUE = "/model/layers/3/in_features"


@pytest.fixture(scope="module")
def warm_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    with Template(PRELOAD, log=tmp_path_factory.mktemp("log") / "template.log") as template:
        template.wait_ready()
        yield template


def test_template_with_everything_preloaded_has_one_thread(warm_template: Template) -> None:
    assert warm_template.pid is not None
    assert psutil.Process(warm_template.pid).num_threads() == 1


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

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            (
                {"epochs": "3", "ema": {"decay": 2}, "metrics": [3], "checkpoints": {"every": 5}},
                {"/epochs": "wrong_type", "/ema/decay": "out_of_range", "/metrics/0": "wrong_type",
                 "/checkpoints/every": "not_allowed"},
            ),
            (
                {"execution": {"device": "cpu", "gpus": 2}, "validate_every": {}, "metrics": ["f1", "f1"]},
                {"/execution/gpus": "contradicts", "/validate_every": "exactly_one", "/metrics/1": "repeated"},
            ),
        ],
        ids=["types and ranges", "combinations"],
    )  # fmt: skip
    def test_each_of_several_mistakes_has_its_pointer_in_both_answers(
        self, warm: TestClient, spec: Json, changes: Json, found: dict[str, str]
    ) -> None:
        """What each field refuses is in tests/core/spec/test_fields.py; here, that it comes through."""
        checked, refused = (warm.post(path, json={**spec, **changes}) for path in ("/v1/preflight", "/v1/jobs"))

        assert (checked.status_code, refused.status_code) == (200, 422)
        for answer in (checked, refused):
            assert {issue["pointer"]: issue["code"] for issue in answer.json()["errors"]} == found

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


class TestPicture:
    TURN = '[{"type": "RandomRotation", "degrees": 90}, {"type": "ToDtype", "dtype": "float32", "scale": true}]'

    @pytest.fixture
    def cats(self, warm: TestClient) -> str:
        def gradient(step: int) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray((np.arange(64).reshape(8, 8) * step).astype(np.uint8)).save(buffer, "PNG")
            return buffer.getvalue()

        body = archive(**{"cat/1.png": gradient(1), "cat/2.png": gradient(2), "dog/1.png": gradient(3)})
        return str(post(warm, body, "images").json()["id"])

    def cells(self, content: bytes, rows: int, columns: int) -> list[list[bytes]]:
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (columns * 66 + 2, rows * 66 + 2)
            pixels = np.asarray(image.convert("RGB"))
        starts = [[(2 + 66 * row, 2 + 66 * column) for column in range(columns)] for row in range(rows)]
        return [[pixels[top : top + 64, left : left + 64].tobytes() for top, left in row] for row in starts]

    def test_random_transforms_differ_by_sample_and_draw_and_repeat_by_seed(self, warm: TestClient, cats: str) -> None:
        query = {"transforms": self.TURN, "rows": 2, "draws": 3, "seed": 5}

        answer = warm.get(f"/v1/datasets/{cats}/preview.png", params=query)

        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png"), answer.text
        cells = self.cells(answer.content, 2, 3)
        assert len({cell for row in cells for cell in row}) == 6
        assert warm.get(f"/v1/datasets/{cats}/preview.png", params=query).content == answer.content
        other = warm.get(f"/v1/datasets/{cats}/preview.png", params={**query, "seed": 6})
        assert other.content != answer.content

    def test_without_transforms_the_images_stand_as_they_are(self, warm: TestClient, cats: str) -> None:
        answer = warm.get(f"/v1/datasets/{cats}/preview.png", params={"rows": 3, "draws": 2})

        cells = self.cells(answer.content, 3, 2)
        assert [row[0] == row[1] for row in cells] == [True] * 3
        enlarged = (np.arange(64).reshape(8, 8) * 3).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        assert cells[2][0] == np.stack([enlarged] * 3, axis=-1).tobytes()

    @pytest.mark.parametrize(
        ("transforms", "pointer"),
        [
            ("[oops", "/transforms"),
            ('"RandomCrop"', "/transforms"),
            ("[3]", "/transforms"),
            ('["RandomRotate"]', "/transforms/0"),
            ('["ToImage", {"type": "RandomCrop"}]', "/transforms/1/size"),
            ('[{"type": "RandomCrop", "size": 20}]', "/transforms/0"),
        ],
    )
    def test_transform_that_cannot_be_is_422_with_its_place(
        self, warm: TestClient, cats: str, transforms: str, pointer: str
    ) -> None:
        answer = warm.get(f"/v1/datasets/{cats}/preview.png", params={"transforms": transforms})

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text

    def test_a_table_has_no_pictures(self, warm: TestClient) -> None:
        dataset = post(warm, b"a,label\n1,x\n2,y\n", "csv").json()["id"]

        answer = warm.get(f"/v1/datasets/{dataset}/preview.png")

        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "no_images")
