"""From a file that somebody has to a model: upload, look at it, train on it."""

import csv
import io
import random
from pathlib import Path
from typing import Any

from tests.service import Service
from tests.stripes import striped


def upload(service: Service, name: str, kind: str, content: bytes) -> dict[str, Any]:
    answer = service.client.post("/v1/datasets", files={"file": (name, content)}, data={"format": kind, "name": name})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def flowers(rows: int) -> bytes:
    """A table with numbers, a categorical column and a target in words, which the others decide."""
    draw = random.Random(5)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["length", "width", "colour", "kind"])
    for _ in range(rows):
        length, width, colour = draw.uniform(0, 10), draw.uniform(0, 4), draw.choice(["red", "white", "blue"])
        kind = "rose" if colour == "red" else ("tulip" if length > 5 else "daisy")
        table.writerow([f"{length:.3f}", f"{width:.3f}", colour, kind])
    return text.getvalue().encode()


def test_a_table_with_words_trains_to_its_classes(service: Service) -> None:
    dataset = upload(service, "flowers.csv", "csv", flowers(900))
    preview = service.client.get(f"/v1/datasets/{dataset['id']}/preview").json()
    assert "colour" in str(preview)
    spec = {
        "data": {
            "train": {"type": "dataset", "id": dataset["id"]},
            "val": {"from": "train", "fraction": 0.2, "stratify": True},
            "columns": {"target": "kind", "categorical": ["colour"]},
            "preprocess": [{"type": "OneHotEncoder", "columns": ["colour"]}, "StandardScaler"],
        },
        "model": {
            "type": "Sequential",
            "layers": [{"type": "Linear", "out_features": 16}, "ReLU", {"type": "Linear", "out_features": 3}],
        },
        "loss": {"type": "CrossEntropyLoss", "weight": "balanced"},
        "optimizer": {"type": "Adam", "lr": 0.02},
        "epochs": 20,
        "batch_size": 32,
        "metrics": ["accuracy", {"type": "accuracy", "top_k": 2}, "f1"],
        "seed": 4,
    }
    job = service.finish(service.submit(spec)["id"])
    assert job["status"] == "succeeded", job["error"]
    last = service.rows(job["id"])[-1]["val"]
    assert last["accuracy"] > 0.93
    assert last["accuracy_top2"] >= last["accuracy"]
    assert job["resolved_spec"]["data"]["train"]["version"] == 1


def test_a_folder_of_images_trains_a_small_cnn(service: Service) -> None:
    dataset = upload(service, "stripes.zip", "images", striped(300))
    convert = [{"type": "ToDtype", "dtype": "float32", "scale": True}]
    spec = {
        "data": {
            "train": {"type": "dataset", "id": dataset["id"]},
            "val": {"from": "train", "fraction": 0.2, "stratify": True},
            "transforms": {"train": [*convert, "RandomHorizontalFlip"], "eval": convert},
        },
        "model": {
            "type": "Sequential",
            "layers": [
                {"type": "Conv2d", "out_channels": 8, "kernel_size": 3, "padding": 1},
                "BatchNorm2d",
                "ReLU",
                {"type": "AdaptiveMaxPool2d", "output_size": 1},
                "Flatten",
                {"type": "Linear", "out_features": 2},
            ],
        },
        "loss": "CrossEntropyLoss",
        "optimizer": {"type": "AdamW", "lr": 0.02},
        "epochs": 15,
        "batch_size": 32,
        "seed": 4,
    }
    job = service.finish(service.submit(spec)["id"])
    assert job["status"] == "succeeded", job["error"]
    assert service.rows(job["id"])[-1]["val"]["accuracy"] > 0.95


def test_real_abalone_gives_its_rings(service: Service, real_data: Path) -> None:
    dataset = upload(service, "abalone.csv", "csv", (real_data / "abalone.csv").read_bytes())
    columns = dataset["profile"]["columns"] if isinstance(dataset.get("profile"), dict) else dataset
    assert columns
    preview = service.client.get(f"/v1/datasets/{dataset['id']}/preview").json()
    names = preview["columns"]
    sex, rings = names[0], names[-1]
    spec = {
        "task": "regression",
        "data": {
            "train": {"type": "dataset", "id": dataset["id"]},
            "val": {"from": "train", "fraction": 0.2},
            "columns": {"target": rings, "categorical": [sex]},
            "preprocess": [
                {"type": "OneHotEncoder", "columns": [sex]},
                "StandardScaler",
                {"type": "StandardScaler", "columns": ["target"]},
            ],
        },
        "model": {
            "type": "Sequential",
            "layers": [{"type": "Linear", "out_features": 32}, "ReLU", {"type": "Linear", "out_features": 1}],
        },
        "loss": "SmoothL1Loss",
        "optimizer": {"type": "Adam", "lr": 0.005},
        "epochs": 15,
        "batch_size": 64,
        "metrics": ["mae", "rmse", "r2"],
        "seed": 2,
    }
    job = service.finish(service.submit(spec)["id"])
    assert job["status"] == "succeeded", job["error"]
    last = service.rows(job["id"])[-1]["val"]
    assert last["r2"] > 0.5
    assert 1.0 < last["mae"] < 1.8  # rings: 1 to 29
