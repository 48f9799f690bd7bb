"""The pages on images, tables, series and text: every command is run, every spec is one that the service takes."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from tests.service import ROOT, Service, wait_until

BLOCK = re.compile(r"(?:<!-- (.*?) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ID = "ds_…"


def blocks(page: str) -> list[tuple[str, str, str]]:
    return BLOCK.findall((ROOT / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8"))


def run(service: Service, folder: Path, language: str, text: str) -> str:
    text = text.replace("http://127.0.0.1:8000", service.url).replace("/tmp/", f"{folder}/")
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "EPOCHD_URL": service.url}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **own, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize(("page", "name"), [("image", "digits"), ("table", "flowers")])
def test_upload_and_its_job_do_what_the_page_says(page: str, name: str, service: Service, tmp_path: Path) -> None:
    said = [run(service, tmp_path, language, text) for mark, language, text in blocks(page) if mark == "run"]
    dataset = json.loads((tmp_path / f"{name}.json").read_text())["id"]
    (text,) = [text for mark, _, text in blocks(page) if mark == "spec"]
    job = service.finish(service.submit(json.loads(text.replace(ID, dataset)))["id"])
    assert job["status"] == "succeeded", job["error"]
    assert job["latest_metrics"]["val"]["accuracy"] > 0.6
    if page == "image":
        with Image.open(tmp_path / "digits.png") as drawn:
            assert drawn.size == (6 * 66 + 2, 4 * 66 + 2)
    else:
        assert '"wet"' in said[-1]


def test_series_forecast_beats_the_mean_by_far(service: Service, tmp_path: Path) -> None:
    (said,) = [run(service, tmp_path, language, text) for mark, language, text in blocks("series") if mark == "run"]
    assert said.startswith("succeeded: ")
    assert float(said.rpartition("R² ")[2].rstrip(")\n")) > 0.9


def test_text_is_told_apart(service: Service, tmp_path: Path) -> None:
    (said,) = [run(service, tmp_path, language, text) for mark, language, text in blocks("text") if mark == "run"]
    assert said.startswith("succeeded: ")
    assert float(said.split()[1].rstrip("%")) > 95


@pytest.mark.parametrize("page", ["series", "text"])
def test_page_shows_the_spec_that_its_example_submits(page: str) -> None:
    example = module(page)
    (shown,) = [json.loads(text) for mark, _, text in blocks(page) if mark == f"examples/{page}.py"]
    arguments: tuple[Any, ...] = (ID,) if page == "series" else (ID, len(example.vocabulary(example.sentences())))
    assert example.spec(*arguments) == shown


def test_duplicates_are_one_decision_of_a_job_also_after_a_pause(service: Service) -> None:
    table = "a,b,label\n" + "".join(f"{row % 25},{row % 7},{row % 2}\n" for row in range(700))
    answer = service.client.post("/v1/datasets", files={"file": ("d.csv", table)}, data={"format": "csv"})
    spec = {
        "data": {"train": {"type": "dataset", "id": answer.json()["id"]}, "val": {"from": "train", "fraction": 0.2}},
        "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 2}]},
        "loss": "CrossEntropyLoss",
        "optimizer": {"type": "SGD", "lr": 0.01},
        "epochs": 20_000,
        "batch_size": 64,
        "seed": 1,
    }
    job = service.submit(spec)
    for action, state, attempt in (("pause", "paused", 1), ("resume", "running", 2)):
        wait_until(lambda: service.rows(job["id"]))
        assert service.client.post(f"/v1/jobs/{job['id']}/{action}").status_code == 202
        wait_until(lambda state=state: service.job(job["id"])["status"] == state)
        wait_until(lambda attempt=attempt: service.job(job["id"])["attempt"] == attempt)
    known = len(service.rows(job["id"]))
    wait_until(lambda: len(service.rows(job["id"])) > known)
    service.client.post(f"/v1/jobs/{job['id']}/cancel")
    service.finish(job["id"])
    decisions = service.client.get(f"/v1/jobs/{job['id']}/decisions").json()["data"]
    (found,) = [decision for decision in decisions if decision["kind"] == "duplicates"]
    assert (found["split"], found["samples"]) == ("val", 140)
    assert 100 < found["duplicates"] <= 140
    assert "look better than they are" in found["reason"]
