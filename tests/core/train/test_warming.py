"""A child that warmed up before its request came computes what a fresh one computes, to the last bit."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.messages import TrainOrder
from core.process import Child, Template
from core.train.preflight.warming import REST_SECONDS
from tests.core.test_process import first
from tests.service import eventually, example, spares

CHILDREN = Path(__file__).parents[1] / "children"
SPARE = "core.train.preflight.warming.table_and_images"


@pytest.fixture(scope="module")
def shared_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    log = tmp_path_factory.mktemp("log") / "template.log"
    env = {"PYTHONPATH": str(CHILDREN)}
    with Template(["core.train.preload", "warm_entries"], env=env, log=log, spare=SPARE) as template:
        template.wait_ready()
        yield template
        assert log.read_text() == ""  # no step of the warm-up failed


@pytest.fixture
def template(shared_template: Template) -> Template:
    assert eventually(lambda: spares(shared_template.pid))
    return shared_template


def warmed(template: Template) -> int:
    """Return the pid of a spare that waits for nothing but its request."""
    [spare] = spares(template.pid)
    for seconds in (2 * REST_SECONDS, 0):  # it rests once before it has done everything
        assert eventually(lambda: spare.status() == psutil.STATUS_SLEEPING)
        time.sleep(seconds)
    return spare.pid


def test_warm_child_has_the_state_of_a_fresh_one_and_computes_with_two_threads(template: Template) -> None:
    spare = warmed(template)
    with (
        template.spawn("warm_entries.state", {}) as warm,
        template.spawn("warm_entries.state", {}) as cold,
    ):
        ours, theirs = first(warm), first(cold)
    assert ours["pid"] == spare
    assert theirs["pid"] != spare
    assert ours["before"] == theirs["before"]
    assert ours["before"]["threads"] == 1  # type: ignore[index]
    assert ours["total"] == theirs["total"] == 8e8
    assert ours["threads"] == theirs["threads"]
    assert ours["chance"] != theirs["chance"]


def test_warm_trainer_gives_the_weights_and_numbers_of_a_fresh_one(template: Template, tmp_path: Path) -> None:
    spare = warmed(template)
    spec = example("cnn-augmented") | {
        "epochs": 2,
        "early_stopping": None,
        "execution": {"device": "cpu", "threads": 2},
    }

    def start(name: str) -> Child:
        folder = tmp_path / name
        folder.mkdir()
        cache = str(tmp_path / "cache" / name)
        order = TrainOrder(
            job_id="job_warm", attempt=1, spec=spec, folder=str(folder), cache_dir=cache, datasets_dir=str(tmp_path)
        )
        return template.spawn("core.train.run.main", order)

    def outcome(child: Child) -> tuple[list[Any], list[Any]]:
        messages = list(child.messages())
        assert messages[-1]["type"] == "done", messages[-1]
        rows = [row for one in messages if one["type"] == "publish" for row in one["rows"]]
        for row in rows:
            del row["seconds"], row["samples_per_second"]
        return rows, [one["resolved_spec"] for one in messages if one["type"] == "started"]

    with start("warm") as warm, start("cold") as cold:
        assert warm.pid == spare != cold.pid
        ours, theirs = outcome(warm), outcome(cold)
    assert ours == theirs
    assert len(ours[0]) == 2
    weights = [hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()) for name in ("warm", "cold")]
    assert weights[0].digest() == weights[1].digest()
