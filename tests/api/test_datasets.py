"""Uploads over HTTP: good ones are kept once, bad ones leave nothing behind."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import create_app
from core.process import Template
from core.settings import Settings
from tests.api.conftest import near

Json = dict[str, Any]
CSV = b"a,b,label\n1,2.5,x\n3,,y\n5,6.5,x\n"


def post(client: TestClient, content: bytes, format: str, name: str = "d", filename: str = "file") -> Any:  # noqa: A002
    files = {"file": (filename, content, "application/octet-stream")}
    return client.post("/v1/datasets", files=files, data={"format": format, "name": name})


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return buffer.getvalue()


def picture(color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def kept(settings: Settings) -> list[Path]:
    """Return every file below the data folder that is not the database's or a log."""
    return [path for path in settings.home.rglob("*") if path.is_file() and path.suffix != ".log"]


class TestUpload:
    def test_new_one_is_201_with_its_profile(self, client: TestClient) -> None:
        answer = post(client, CSV, "csv", filename="t.csv")

        body = answer.json()
        assert (answer.status_code, answer.headers["Location"]) == (201, f"/v1/datasets/{body['id']}")
        assert (body["version"], body["filename"], body["profile"]["rows"]) == (1, "t.csv", 3)
        assert [column["missing"] for column in body["profile"]["columns"]] == [0, 1, 0]

    def test_same_bytes_are_the_same_version(self, client: TestClient, settings: Settings) -> None:
        first = post(client, CSV, "csv").json()

        again = post(client, CSV, "csv")

        assert (again.status_code, again.json()) == (200, first)
        assert len(kept(settings)) == 1

    def test_other_bytes_under_the_name_are_the_next_version(self, client: TestClient) -> None:
        first = post(client, CSV, "csv").json()

        second = post(client, CSV + b"7,8,x\n", "csv").json()

        assert (second["id"], second["version"], len(second["versions"])) == (first["id"], 2, 2)

    def test_name_is_the_files_where_none_is_given(self, client: TestClient) -> None:
        answer = client.post("/v1/datasets", files={"file": ("my.csv", CSV)}, data={"format": "csv"})

        assert answer.json()["name"] == "my.csv"

    @pytest.mark.parametrize(
        ("content", "format"),
        [
            (npz(x=np.zeros((4, 3), np.float32), y=np.arange(4)), "npz"),
            (archive(**{"cat/1.png": picture(1), "dog/2.png": picture(2)}), "images"),
        ],
        ids=["npz", "images"],
    )
    def test_other_formats_are_taken(self, client: TestClient, content: bytes, format: str) -> None:  # noqa: A002
        assert post(client, content, format).status_code == 201


BAD = {
    "csv that is binary": (b"\x00\x01\x02\xff" * 100, "csv"),
    "csv without columns": (b"\n\n\n", "csv"),
    "csv with text in a number column": (b"a,b\n" + b"1,2\n" * 50 + b"1,two,3\n", "csv"),
    "empty file": (b"", "csv"),
    "parquet that is none": (b"PAR1" + b"x" * 100, "parquet"),
    "npz with pickles": (npz(x=np.array([{"a": 1}], dtype=object), y=np.arange(1)), "npz"),
    "npz that is a pickle": (pickle.dumps([1, 2, 3]), "npz"),
    "zip with ..": (archive(**{"../evil/1.png": picture(1), "a/2.png": picture(2)}), "images"),
    "zip with an absolute path": (archive(**{"/etc/evil/1.png": picture(1)}), "images"),
    "zip bomb": (archive(**{"a/1.png": b"\0" * (80 << 20)}), "images"),
    "image that is none": (archive(**{"a/1.png": b"no image", "b/2.png": picture(2)}), "images"),
    "zip that is none": (b"PK no zip", "images"),
    "idx that is none": (b"\x00\x00\x08\x03" + b"\xff" * 12, "idx"),
    "unknown format": (CSV, "xlsx"),
}


class TestBadUpload:
    @pytest.mark.parametrize("what", BAD)
    def test_is_a_clear_422_and_leaves_nothing(self, client: TestClient, settings: Settings, what: str) -> None:
        answer = post(client, *BAD[what])

        body = answer.json()
        assert answer.status_code == 422, body
        assert body["type"].endswith(("/data-invalid", "/invalid"))
        assert body["errors"][0]["pointer"] in {"/file", "/format"}
        assert kept(settings) == []
        assert client.get("/v1/datasets").json()["data"] == []

    def test_missing_file_is_422_at_its_field(self, client: TestClient) -> None:
        answer = client.post("/v1/datasets", files={"other": ("x", b"1")}, data={"format": "csv"})

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/file")

    def test_unknown_field_is_422_at_its_name(self, client: TestClient) -> None:
        answer = client.post("/v1/datasets", files={"file": ("x", CSV)}, data={"format": "csv", "nmae": "x"})

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/nmae")

    @pytest.mark.parametrize("media", ["multipart/form-data", "multipart/form-data; boundary=x"])
    def test_unreadable_form_is_400(self, client: TestClient, media: str) -> None:
        answer = client.post("/v1/datasets", content=b"--y\r\nnothing", headers={"Content-Type": media})

        assert answer.status_code == 400

    def test_json_is_415(self, client: TestClient) -> None:
        assert client.post("/v1/datasets", json={"format": "csv"}).status_code == 415

    @pytest.mark.parametrize("is_declared", [True, False])
    def test_more_bytes_than_allowed_are_413(
        self, sqlite_url: str, tmp_path: Path, no_template: Template, *, is_declared: bool
    ) -> None:
        settings = Settings(data_dir=tmp_path / "home", database_url=sqlite_url, max_upload_bytes=1000)
        files = {"file": ("t.csv", b"a,b\n" + b"1,2\n" * (20_000 if is_declared else 300))}
        with near(create_app(settings, template=no_template)) as client:
            answer = client.post("/v1/datasets", files=files, data={"format": "csv", "name": "x"})

        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (413, "too-large")
        assert kept(settings) == []


class TestRead:
    def test_list_and_show_agree(self, client: TestClient) -> None:
        made = post(client, CSV, "csv").json()

        listed = client.get("/v1/datasets").json()

        assert listed["data"] == [made]
        assert client.get(f"/v1/datasets/{made['id']}").json() == made

    def test_preview_shows_the_first_rows(self, client: TestClient) -> None:
        made = post(client, CSV, "csv").json()

        body = client.get(f"/v1/datasets/{made['id']}/preview", params={"limit": 2}).json()

        assert (body["version"], body["columns"], len(body["rows"])) == (1, ["a", "b", "label"], 2)
        assert body["rows"][1][1] is None

    def test_preview_of_an_absent_version_is_404(self, client: TestClient) -> None:
        made = post(client, CSV, "csv").json()

        assert client.get(f"/v1/datasets/{made['id']}/preview", params={"version": 2}).status_code == 404

    @pytest.mark.parametrize("dataset_id", ["x", "ds_" + "0" * 32, "%00"])
    def test_absent_one_is_404(self, client: TestClient, dataset_id: str) -> None:
        assert client.get(f"/v1/datasets/{dataset_id}").status_code == 404


class TestNamedBySpec:
    def test_job_on_an_upload_is_accepted(self, client: TestClient, spec: Json) -> None:
        made = post(client, CSV, "csv").json()
        spec["data"] = {"train": {"type": "dataset", "id": made["id"]}}
        spec.pop("early_stopping", None)

        assert client.post("/v1/jobs", json=spec).status_code == 201

    def test_absent_version_is_422(self, client: TestClient, spec: Json) -> None:
        made = post(client, CSV, "csv").json()
        spec["data"]["val"] = {"type": "dataset", "id": made["id"], "version": 9}

        answer = client.post("/v1/jobs", json=spec)

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/data/val/id")
