"""`checkpoints.keep_best` and `keep_last`: which weights a job leaves, whatever interrupted it."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from core.messages import Done, Stopped
from core.spec.job import EarlyStopping
from core.train.checkpoint import load as read_checkpoint
from core.train.early_stopping import EarlyStopper
from core.train.judging import Best, Judge
from core.train.keeping import Shelf
from core.train.stopping import StopRules
from tests.core.train.attempts import SPEC, Job

KEPT: dict[str, Any] = {
    **SPEC,
    "optimizer": {"type": "AdamW", "lr": 0.3},  # high: the best epoch is not the last
    "epochs": 7,
    "checkpoints": {"every": {"epochs": 1}, "keep_best": 3, "keep_last": 3},
}
FILES = {"best-2.safetensors", "best-3.safetensors", "last-2.safetensors", "last-3.safetensors"}


def files(job: Job) -> dict[str, bytes]:
    """Return every artifact of weights, and what the manifest says of them."""
    done = job.attempts[-1].last
    assert isinstance(done, Done), done
    names = [file.name for file in done.artifacts if file.name.endswith(".safetensors")]
    kept = json.dumps(json.loads(job.artifact("manifest.json"))["kept"])
    return {name: job.artifact(name) for name in names} | {"kept": kept.encode()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(KEPT, tmp_path_factory.mktemp("undisturbed"))
    job.attempt()
    return job


def after(epoch: int, folder: Path) -> dict[str, torch.Tensor]:
    """Return the last weights of a job that has so many epochs only."""
    job = Job({**KEPT, "epochs": epoch, "checkpoints": {}}, folder)
    job.attempt()
    return load(job.artifact("last.safetensors"))


def test_best_and_last_weights_are_those_of_their_epochs(undisturbed: Job, tmp_path: Path) -> None:
    kept = json.loads(files(undisturbed)["kept"])
    by_loss = sorted((row["val"]["loss"], row["epoch"], row["step"]) for row in undisturbed.rows)
    assert [(one["value"], one["epoch"], one["step"]) for one in kept["best"]] == by_loss[:3]
    assert [(one["epoch"], one["step"]) for one in kept["last"]] == [(7, 28), (6, 24), (5, 20)]
    assert [one["file"] for one in kept["best"]] == [
        "model.safetensors", "best-2.safetensors", "best-3.safetensors",
    ]  # fmt: skip
    assert {name for name in files(undisturbed) if "-" in name} == FILES
    runner_up = kept["best"][1]["epoch"]
    for epoch, name in ((runner_up, "best-2.safetensors"), (6, "last-2.safetensors")):
        torch.testing.assert_close(
            load(undisturbed.artifact(name)), after(epoch, tmp_path / f"{epoch}{name}"), rtol=0, atol=0
        )


@pytest.mark.parametrize("publications", [1, 4, 6])
def test_a_killed_job_leaves_the_weights_of_an_undisturbed_one(
    publications: int, undisturbed: Job, tmp_path: Path
) -> None:
    job = undisturbed.killed_after(publications, tmp_path)
    job.attempt()
    assert files(job) == files(undisturbed)


def test_a_job_paused_within_epochs_leaves_the_weights_of_an_undisturbed_one(
    undisturbed: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.train.watch.POLL_SECONDS", 0.0)
    job = Job(KEPT, tmp_path)
    assert isinstance(job.attempt(stop_at=20).last, Stopped)
    assert isinstance(job.attempt(stop_at=12).last, Stopped)
    job.attempt()
    assert files(job) == files(undisturbed)


def test_best_weights_that_are_the_newest_take_no_room_of_their_own(undisturbed: Job, tmp_path: Path) -> None:
    found: set[bool] = set()
    for publication in undisturbed.publications:
        path = tmp_path / publication.checkpoint.name
        path.write_bytes(undisturbed.files[path.name])
        state = read_checkpoint(path, publication.checkpoint.digest)
        best = state["judge"]["best"]
        is_newest = best["step"] == state["position"]["step"]
        found.add(is_newest)
        for name, weights in state["model"].items():
            kept = best["weights"][name]
            assert (kept.data_ptr() == weights.data_ptr()) == is_newest
            assert torch.equal(kept, weights) or not is_newest
    assert found == {True, False}


def test_last_weights_are_those_of_every_so_many_epochs(tmp_path: Path) -> None:
    job = Job({**KEPT, "checkpoints": {"every": {"epochs": 2}, "keep_last": 3}}, tmp_path)
    job.attempt()
    assert [one["epoch"] for one in json.loads(files(job)["kept"])["last"]] == [7, 6, 4]


def test_best_weights_are_left_also_where_the_last_ones_are_the_result(tmp_path: Path) -> None:
    stopping = {"patience": 99, "restore_best": False}
    job = Job({**KEPT, "early_stopping": stopping, "checkpoints": {"keep_best": 2}}, tmp_path)
    job.attempt()
    assert {name for name in files(job) if "-" in name} == {"best-1.safetensors", "best-2.safetensors"}
    best = json.loads(files(job)["kept"])["best"]
    assert [one["epoch"] for one in best] == [
        epoch for _, epoch in sorted((row["val"]["loss"], row["epoch"]) for row in job.rows)[:2]
    ]
    assert job.artifact("model.safetensors") == job.artifact("last.safetensors")


@pytest.mark.parametrize("stopping", [None, EarlyStopping(patience=1000, min_delta=0.05)], ids=["none", "min_delta"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_next_best_are_the_best_of_all_but_the_best(stopping: EarlyStopping | None, mode: Any) -> None:
    draw = random.Random(11)
    for keep in (1, 2, 5):
        model = torch.nn.Linear(1, 1)
        stopper = EarlyStopper(stopping, mode) if stopping else None
        best = Best("val_loss", mode)
        judge = Judge(stopper, StopRules(()), best, Shelf(keep, sign=best.sign))
        seen: list[tuple[float, int]] = []
        for epoch in range(1, 40):
            value = (
                draw.choice([draw.random(), 0.5, float("inf")])
                if stopping is None
                else draw.choice([0.1, 0.5, draw.random()])
            )
            torch.nn.init.constant_(model.weight, epoch)
            judge.check({"val_loss": value}, epoch, 10 * epoch, model)
            if value != float("inf"):
                seen.append((value if mode == "min" else -value, epoch))
            others = sorted(one for one in seen if one[1] != best.epoch)[: keep - 1]
            assert [copy.epoch for copy in judge.shelf.next_best] == [epoch for _, epoch in others]
        assert [float(copy.weights["weight"]) for copy in judge.shelf.next_best] == [float(e) for _, e in others]
