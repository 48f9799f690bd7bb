"""Every example job, as it is, through HTTP to its trained model."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from tests.service import Service, example

ARTIFACTS = {"model.safetensors", "last.safetensors", "spec.json", "manifest.json"}


def trained(service: Service, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run an example to its end; return the job and its rows, after what must hold for each."""
    job = service.finish(service.submit(example(name))["id"])
    assert job["status"] == "succeeded", job["error"]
    rows = service.rows(job["id"])
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert job["progress"]["epoch"] == len(rows)
    listed = service.client.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"]
    assert {artifact["name"] for artifact in listed} == ARTIFACTS
    for artifact in listed:
        content = service.artifact(job["id"], artifact["name"])
        assert hashlib.sha256(content).hexdigest() == artifact["sha256"]
    return job, rows


def test_digits_stop_early_at_best_epoch_plus_patience_with_95_percent(service: Service) -> None:
    job, rows = trained(service, "digits-early-stopping")
    best = max(row["val"]["accuracy"] for row in rows)
    assert best >= 0.95
    assert job["test_metrics"]["accuracy"] >= 0.93
    assert job["best"]["monitor"] == "val_loss"
    decisions = service.client.get(f"/v1/jobs/{job['id']}/decisions", params={"limit": 1000}).json()["data"]
    checks = [decision for decision in decisions if decision["kind"] == "early_stopping"]
    assert [check["epoch"] for check in checks] == [row["epoch"] for row in rows]
    if job["stop_reason"] == "early_stopping":
        assert (checks[-1]["action"], checks[-1]["reason"]) == ("stop", "patience")
        assert checks[-1]["wait"] == 5
    else:
        assert job["stop_reason"] == "completed"
        assert len(rows) == 60


def test_best_weights_are_the_model_and_last_weights_stay_available(service: Service) -> None:
    job, _ = trained(service, "digits-early-stopping")
    best, last = (load(service.artifact(job["id"], f"{name}.safetensors")) for name in ("model", "last"))
    assert {name: value.shape for name, value in best.items()} == {name: value.shape for name, value in last.items()}
    assert sum(value.size for value in best.values()) == 64 * 64 + 64 + 64 * 10 + 10


def test_the_same_seed_gives_the_same_bytes(service: Service) -> None:
    spec = example("digits-early-stopping") | {"epochs": 5}
    first, second = (service.finish(service.submit(spec)["id"])["id"] for _ in range(2))
    assert service.artifact(first, "model.safetensors") == service.artifact(second, "model.safetensors")
    assert [row["train"] for row in service.rows(first)] == [row["train"] for row in service.rows(second)]


def test_diabetes_regression_reports_errors_in_the_targets_own_units(service: Service) -> None:
    job, rows = trained(service, "diabetes-regression")
    assert job["best"]["monitor"] == "val_rmse"
    assert 40 < min(row["val"]["rmse"] for row in rows) < 70  # the target's deviation is 77
    assert max(row["val"]["r2"] for row in rows) > 0.3
    assert all(row["train"]["loss"] >= row["train"]["data_loss"] for row in rows)


def test_cnn_with_augmentation_ema_and_warm_up_learns_the_digits(service: Service) -> None:
    _, rows = trained(service, "cnn-augmented")
    assert max(row["val"]["accuracy"] for row in rows) >= 0.95
    assert rows[0]["lr"][0] < rows[3]["lr"][0]
    matrix = rows[-1]["val"]["confusion_matrix"]
    assert len(matrix) == 10
    assert sum(map(sum, matrix)) == 359  # a fifth of 1797, stratified


def test_resnet18_trains_with_a_frozen_layer_and_a_faster_head(service: Service) -> None:
    job, rows = trained(service, "resnet18-digits")
    assert len(rows) == 3
    assert all(len(row["lr"]) == 2 for row in rows)
    assert job["resolved_spec"]["model"]["type"] == "torchvision.resnet18"


@pytest.mark.usefixtures("real_data")
def test_mnist_mlp_reaches_92_percent_in_5_epochs(service: Service) -> None:
    job, rows = trained(service, "mnist-mlp")
    assert len(rows) == 5
    assert rows[-1]["val"]["accuracy"] >= 0.92
    assert job["test_metrics"]["accuracy"] >= 0.92
    manifest = json.loads(service.artifact(job["id"], "manifest.json"))
    assert manifest["data"]["classes"] == [str(digit) for digit in range(10)]


def test_every_shared_example_is_here() -> None:
    names = {path.stem for path in (Path(__file__).parents[2] / "examples").glob("*.json")}
    assert names >= {"digits-early-stopping", "diabetes-regression", "cnn-augmented", "mnist-mlp", "resnet18-digits"}
