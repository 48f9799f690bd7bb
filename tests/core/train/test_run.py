"""Whole attempts through `core.train.run.main`, over a channel that keeps what is said."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from core.messages import Done, Failed, Publish, Started, Stopped, TrainOrder, from_trainer
from core.spec import parse_object
from core.train.run import main

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("EPOCHD_TEST_DATA", ROOT.parent / "shared" / "data"))


class Ends:
    """A channel: messages pass through JSON as on the pipe; `stop` may ask for a stop after any of them."""

    def __init__(self, stop: Callable[["Ends"], str | None] = lambda _ends: None) -> None:
        self.messages: list[Any] = []
        self.stop = stop
        self.closed = False

    def send(self, message: Any) -> None:
        self.messages.append(from_trainer.validate_json(message.model_dump_json()))

    def receive(self, timeout: float | None = 0) -> dict[str, Any] | None:
        reason = self.stop(self)
        self.stop = self.stop if reason is None else lambda _ends: None
        return None if reason is None else {"type": "stop", "reason": reason}

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for publication in self.of(Publish) for row in publication.rows]

    @property
    def last(self) -> Any:
        return self.messages[-1]


def order(spec: dict[str, Any], folder: Path, **more: Any) -> dict[str, Any]:
    places = {"folder": str(folder), "cache_dir": str(folder.parent / "cache"), "datasets_dir": str(DATA)}
    return TrainOrder(job_id="job_1", attempt=1, spec=spec, **{**places, **more}).model_dump()


def train(spec: dict[str, Any], folder: Path, ends: Ends | None = None, **more: Any) -> Ends:
    ends = ends or Ends()
    main(ends, order(spec, folder, **more))
    return ends


def example(name: str, **changes: Any) -> dict[str, Any]:
    return {**json.loads((ROOT / "examples" / f"{name}.json").read_text()), **changes}


def digits(**changes: Any) -> dict[str, Any]:
    return example("digits-early-stopping", **changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ends, Path]:
    folder = tmp_path_factory.mktemp("digits") / "1"
    return train(digits(), folder), folder


def test_digits_reach_their_accuracy_and_stop_early(done: tuple[Ends, Path]) -> None:
    ends, _ = done
    assert isinstance(ends.last, Done)
    best = ends.rows[ends.last.best["epoch"] - 1]
    assert best["val"]["accuracy"] >= 0.95
    assert ends.last.stop_reason in ("early_stopping", "completed")
    assert [row["epoch"] for row in ends.rows] == list(range(1, len(ends.rows) + 1))


def test_the_artifacts_stand_with_their_digests(done: tuple[Ends, Path]) -> None:
    ends, folder = done
    assert [file.name for file in ends.last.artifacts] == [
        "model.safetensors", "last.safetensors", "spec.json", "manifest.json",
    ]  # fmt: skip
    for file in ends.last.artifacts:
        data = (folder / file.name).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.size_bytes)


def test_the_manifest_holds_what_is_needed_to_feed_the_model(done: tuple[Ends, Path]) -> None:
    ends, folder = done
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["task"] == "classification"
    assert len(manifest["data"]["classes"]) == 10
    assert manifest["preprocess"]["steps"][0]["type"] == "StandardScaler"
    assert manifest["best"] == ends.last.best
    assert manifest["test_metrics"] == ends.last.test_metrics
    assert ends.last.test_metrics["accuracy"] > 0.9


def test_the_resolved_spec_parses_and_gives_the_same_bytes_again(done: tuple[Ends, Path], tmp_path: Path) -> None:
    ends, folder = done
    (started,) = ends.of(Started)
    spec = parse_object(started.resolved_spec)
    assert (spec.seed, spec.execution.device, spec.execution.threads) == (7, "cpu", started.numerics["threads"])
    again = train(started.resolved_spec, tmp_path / "2")
    assert (tmp_path / "2" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert [row["train"] for row in again.rows] == [row["train"] for row in ends.rows]


@pytest.mark.parametrize("name", ["diabetes-regression", "cnn-augmented"])
def test_example_succeeds(name: str, tmp_path: Path) -> None:
    spec = example(name)
    if name == "cnn-augmented":
        spec["epochs"] = 4  # each epoch costs seconds; the whole run is shown through HTTP
    ends = train(spec, tmp_path / "1")
    assert isinstance(ends.last, Done), ends.last
    assert ends.rows[-1]["train"]["loss"] < ends.rows[0]["train"]["loss"]
    assert load_file(tmp_path / "1" / "model.safetensors")


def resumed(ends: Ends, folder: Path) -> dict[str, Any]:
    """Return what the supervisor of the next attempt would order."""
    publications = ends.of(Publish)[-2:][::-1]
    return {
        "checkpoints": [str(folder / publication.checkpoint.name) for publication in publications],
        "checkpoint_digests": [publication.checkpoint.digest for publication in publications],
        "published_epochs": max((row["epoch"] for row in ends.rows), default=0),
        "threads": ends.of(Started)[0].numerics["threads"],
        "numerics": ends.of(Started)[0].numerics,
        "active_seconds": publications[0].active_seconds,
    }


def test_paused_and_resumed_the_model_has_the_same_bytes(done: tuple[Ends, Path], tmp_path: Path) -> None:
    whole, folder = done

    def after_the_first_rows(ends: Ends) -> str | None:
        return "pause" if ends.rows else None

    first = train(digits(), tmp_path / "1", Ends(after_the_first_rows))
    assert isinstance(first.last, Stopped)
    second = train(first.of(Started)[0].resolved_spec, tmp_path / "2", **resumed(first, tmp_path / "1"))
    assert second.of(Started)[0].from_epoch >= 1
    assert (tmp_path / "2" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    rows = first.rows + second.rows
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in whole.rows]
    assert [row["train"] for row in rows] == [row["train"] for row in whole.rows]


def test_a_bad_newest_checkpoint_falls_back_and_says_so(done: tuple[Ends, Path], tmp_path: Path) -> None:
    _, folder = done
    first = train(
        digits(checkpoints={"every": {"epochs": 1}}), tmp_path / "1",
        Ends(lambda ends: "drain" if len(ends.of(Publish)) >= 2 else None),
    )  # fmt: skip
    again = resumed(first, tmp_path / "1")
    Path(again["checkpoints"][0]).write_bytes(b"not a checkpoint")
    second = train(digits(), tmp_path / "2", **again)
    assert isinstance(second.last, Done), second.last
    assert [warning["code"] for warning in second.of(Started)[0].warnings].count("checkpoint_passed_over") == 1
    assert (tmp_path / "2" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert second.rows[0]["epoch"] == again["published_epochs"] + 1


def test_cancelled_while_loading_it_stops_at_once(tmp_path: Path) -> None:
    ends = train(digits(), tmp_path / "1", Ends(lambda _ends: "cancel"))
    assert ends.last == Stopped(reason="cancel", active_seconds=ends.last.active_seconds)
    assert ends.of(Publish) == []


def test_the_time_limit_fails_the_job_and_publishes_what_waited(tmp_path: Path) -> None:
    spec = digits(epochs=100_000, early_stopping=None, execution={"max_runtime_seconds": 2.0})
    ends = train(spec, tmp_path / "1", active_seconds=0.5)
    assert isinstance(ends.last, Failed)
    assert (ends.last.code, ends.last.stop_reason) == ("time_limit", "time_limit")
    assert ends.rows
    assert ends.rows[-1]["epoch"] == ends.of(Publish)[-1].checkpoint.epoch


def test_a_spec_that_cannot_run_is_refused_with_pointers(tmp_path: Path) -> None:
    spec = digits(model={"type": "Sequential", "layers": [{"type": "Linear", "in_features": 3, "out_features": 10}]})
    ends = train(spec, tmp_path / "1")
    assert ends.last.code == "spec_invalid"
    assert ends.last.issues[0]["pointer"].startswith("/model/layers/0")


def test_data_that_is_not_there_is_data_invalid(tmp_path: Path) -> None:
    spec = digits(data={"train": {"type": "torchvision.FashionMNIST", "train": True}})
    ends = train(spec, tmp_path / "1", datasets_dir=str(tmp_path))
    assert isinstance(ends.last, Failed)
    assert ends.last.code in ("data_invalid", "spec_invalid")
    assert ends.last.issues


def test_a_loss_that_is_not_finite_fails_the_job(tmp_path: Path) -> None:
    spec = digits(optimizer={"type": "SGD", "lr": 1e30}, early_stopping=None)
    ends = train(spec, tmp_path / "1")
    assert (ends.last.code, ends.last.stop_reason) == ("non_finite", "non_finite")
    assert ends.rows[-1]["train"]["loss"] is None


def test_regression_metrics_are_in_the_targets_own_units(tmp_path: Path) -> None:
    spec = example("diabetes-regression", epochs=2, early_stopping=None)
    ends = train(spec, tmp_path / "1")
    assert 20 < ends.rows[-1]["val"]["mae"] < 200  # disease progression runs from 25 to 346
    assert ends.rows[-1]["train"]["loss"] < 5  # of a standardised target


def test_stop_asked_within_training_publishes_a_checkpoint_first(tmp_path: Path) -> None:
    ends = train(digits(epochs=5000, early_stopping=None), tmp_path / "1", Ends(lambda e: "pause" if e.rows else None))
    assert isinstance(ends.last, Stopped)
    assert isinstance(ends.messages[-2], Publish)
    assert (tmp_path / "1" / ends.messages[-2].checkpoint.name).is_file()


def test_other_numerics_than_the_first_attempts_are_a_warning(tmp_path: Path) -> None:
    before = {"device": "cpu", "threads": 1, "isa": "OTHER", "torch": "1", "torchvision": "1"}
    ends = train(digits(epochs=1), tmp_path / "1", numerics=before, threads=1)
    codes = [warning["code"] for warning in ends.of(Started)[0].warnings]
    assert "numerics_changed" in codes


def test_an_epochs_time_is_split_over_its_phases_on_request(tmp_path: Path) -> None:
    ends = train(digits(profile=True, epochs=2, accumulate_grad_batches=2), tmp_path / "1")
    assert [set(row["profile"]) for row in ends.rows] == [{"batch", "forward", "loss", "backward", "update"}] * 2
    for row in ends.rows:
        assert all(seconds > 0 for seconds in row["profile"].values())
        assert sum(row["profile"].values()) <= row["seconds"]


def test_profiling_changes_no_bit(tmp_path: Path) -> None:
    for name, profile in (("plain", False), ("profiled", True)):
        train(digits(profile=profile, epochs=2), tmp_path / name)
    plain, profiled = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "profiled"))
    assert plain == profiled
