"""What a training loop must do: row by row of the list that the project began with, shown by the answers of a service.

All jobs are submitted at once; each test looks at what has become of its own. The data are small tables that are made
here, so that what a model must answer can be computed beside it, with numpy, from the weights that the job left.

Rows that another test shows through HTTP already stand in `ELSEWHERE`; rows 41 and 42 are later ones.
"""

import gzip
import io
import json
import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load

from tests.service import ROOT, Service

Json = dict[str, Any]
Array = NDArray[np.float64]

ELSEWHERE: dict[int, tuple[str, ...]] = {
    12: (
        "tests/acceptance/test_examples.py::test_cnn_with_augmentation_ema_and_warm_up_learns_the_digits",
        "tests/acceptance/test_examples.py::test_diabetes_regression_reports_errors_in_the_targets_own_units",
        "tests/acceptance/test_howto.py::test_series_forecast_beats_the_mean_by_far",
        "tests/acceptance/test_howto.py::test_text_is_told_apart",
    ),
    13: ("tests/acceptance/test_examples.py::test_mnist_mlp_reaches_92_percent_in_5_epochs",),
    17: ("tests/api/test_preflight.py::test_random_transforms_differ_by_sample_and_draw_and_repeat_by_seed",),
    19: ("tests/acceptance/test_howto.py::test_duplicates_are_one_decision_of_a_job_also_after_a_pause",),
    20: (
        "tests/acceptance/test_memory.py::test_a_set_of_three_times_the_trainers_memory_trains_through_the_api",
        "tests/core/train/test_large_sets.py::test_sets_of_three_times_the_memory_train",
    ),
    27: ("tests/acceptance/test_examples.py::test_resnet18_trains_with_a_frozen_layer_and_a_faster_head",),
    31: ("tests/core/train/build/test_updates.py::test_every_loss_is_torchs_own",),
    36: (
        "tests/core/train/test_oracles.py::test_weights_and_rates_equal_a_plain_loop",
        "tests/core/code/test_code_repeats.py::test_a_job_is_repeated_bit_for_bit",
    ),
    38: ("tests/acceptance/test_watching.py::test_rows_appear_while_it_trains_and_never_change",),
}
"""Tests that show a row, or the part of it that no test here does."""
LATER = (41, 42)

N, N_VAL, CLASSES = 101, 40, ("ant", "bee", "cat")
BATCH = 32
STEPS = 4  # ceil(101 / 32)


def table(rows: int, seed: int, shift: float) -> tuple[Array, NDArray[np.int64], Array]:
    """Return features [rows, 3], class labels and a numeric target; `shift` moves the features."""
    draw = np.random.default_rng(seed)
    features = (draw.normal(size=(rows, 3)) * [1, 2, 3] + [0, 1, 2]).round(4)
    labels = np.argmax(features @ [[2, -1, 0], [0, 1, -1], [-1, 0, 0.7]] + draw.normal(size=(rows, 3)) * 0.3, axis=1)
    target = (300 + features @ [40, -20, 5] + draw.normal(size=rows)).round(3)
    return (features + shift).round(4), labels, target


TRAIN, VAL = table(N, 1, 0.0), table(N_VAL, 2, 0.5)


def csv(data: tuple[Array, NDArray[np.int64], Array], target: str = "label") -> bytes:
    features, labels, values = data
    last = [CLASSES[label] for label in labels] if target == "label" else [str(value) for value in values]
    if target == "is_ant":
        last = [str(int(label == 0)) for label in labels]
    rows = (",".join([*map(str, row), end]) for row, end in zip(features.tolist(), last, strict=True))
    return "\n".join([f"a,b,c,{target}", *rows]).encode()


def sentences() -> bytes:
    """Return sequences of ids: 1 to 3 where the answer is yes, 4 to 6 where it is no."""
    lines = [
        {"ids": [1 + (row + at) % 3 + 3 * (row % 2) for at in range(2 + row % 4)], "target": ("yes", "no")[row % 2]}
        for row in range(80)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def idx(values: NDArray[np.uint8]) -> bytes:
    """Pack bytes as the IDX format does."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def glyphs(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images uint8 [count, 28, 28] of ten patterns that are easy to tell apart, and their labels."""
    draw = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).integers(0, 2, (10, 7, 7)).repeat(4, 1).repeat(4, 2) * 200
    labels = np.arange(count) % 10
    return (patterns[labels] + draw.integers(0, 56, (count, 28, 28))).astype(np.uint8), labels.astype(np.uint8)


def zipped_glyphs() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        images, labels = glyphs(12, 5)
        archive.writestr("images-idx3-ubyte", idx(images))
        archive.writestr("labels-idx1-ubyte", idx(labels))
    return packed.getvalue()


def put_torchvision(folder: Path) -> None:
    for name in ("MNIST", "FashionMNIST"):
        raw = folder / name / "raw"
        raw.mkdir(parents=True)
        for part, (images, labels) in {"train": glyphs(300, 3), "t10k": glyphs(50, 4)}.items():
            (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
            (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def linear(width: int, **more: Any) -> Json:
    return {"type": "Linear", "out_features": width, **more}


def sequential(*layers: Any, **more: Any) -> Json:
    return {"type": "Sequential", "layers": list(layers), **more}


def converged(window: int) -> Json:
    return {"monitor": "train_loss", "converged": {"window": window, "tolerance": 1e-6}}


class Lab:
    """A service, the data sets in it, and the jobs that run on them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.ids: dict[str, str] = {}
        self.jobs: dict[str, str] = {}
        self.ended: dict[str, Json] = {}

    def upload(self, name: str, kind: str, content: bytes) -> None:
        answer = self.service.client.post(
            "/v1/datasets", files={"file": (f"{name}.{kind}", content)}, data={"format": kind, "name": name}
        )
        assert answer.status_code == 201, answer.text
        self.ids[name] = answer.json()["id"]

    def source(self, name: str, **more: Any) -> Json:
        return {"type": "dataset", "id": self.ids[name], **more}

    def spec(self, **changes: Any) -> Json:
        """Return a job of softmax regression on the table, changed."""
        data = {"train": self.source("train"), "val": self.source("val")}
        return {
            "data": data,
            "model": sequential(linear(3)),
            "loss": "CrossEntropyLoss",
            "optimizer": {"type": "SGD", "lr": 0.1},
            "epochs": 1,
            "batch_size": BATCH,
            "seed": 9,
            "execution": {"threads": 1},
            **changes,
        }

    def still(self, **changes: Any) -> Json:
        """Return a job that measures without learning: its rate is 0, and val is train."""
        data = {"train": self.source("train"), "val": self.source("train")}
        return self.spec(**{"data": data, "optimizer": {"type": "SGD", "lr": 0.0}, **changes})

    def done(self, name: str) -> Json:
        """Return a job that has succeeded."""
        while name not in self.ended:
            job = self.service.client.get(f"/v1/jobs/{self.jobs[name]}", headers={"Prefer": "wait=30"}).json()
            if job["is_terminal"]:
                self.ended[name] = job
        assert self.ended[name]["status"] == "succeeded", (name, self.ended[name]["error"])
        return self.ended[name]

    def rows(self, name: str) -> list[Json]:
        self.done(name)
        return self.service.rows(self.jobs[name])

    def weights(self, name: str, file: str = "model") -> dict[str, Any]:
        return load(self.bytes(name, f"{file}.safetensors"))

    def bytes(self, name: str, file: str) -> bytes:
        self.done(name)
        return self.service.artifact(self.jobs[name], file)

    def manifest(self, name: str) -> Json:
        return dict(json.loads(self.bytes(name, "manifest.json")))

    def decisions(self, name: str, kind: str) -> list[Json]:
        self.done(name)
        answer = self.service.client.get(f"/v1/jobs/{self.jobs[name]}/decisions", params={"limit": 1000})
        return [decision for decision in answer.json()["data"] if decision["kind"] == kind]

    def preflight(self, **changes: Any) -> Json:
        answer = self.service.client.post("/v1/preflight", json=self.spec(**changes))
        assert answer.status_code in (200, 422), answer.text
        return dict(answer.json())

    def errors(self, **changes: Any) -> list[tuple[str, str]]:
        return [(issue["pointer"], issue["code"]) for issue in self.preflight(**changes)["errors"]]

    def warnings(self, **changes: Any) -> list[tuple[str, str]]:
        found = self.preflight(**changes)
        assert found["ok"], found["errors"]
        return [(issue["pointer"], issue["code"]) for issue in found["warnings"]]


def one_cycle(step: int) -> float:
    """Return the rate of step 0 to 5 of six, of which 30 % rise: the top is at 0.8, the end at 5; a cosine each way."""
    begin, top, end = 0.4 / 25, 0.4, 0.4 / 25 / 1e4
    low, at = (begin, step / 0.8) if step <= 0.8 else (end, 1 - (step - 0.8) / 4.2)
    return low + (top - low) * (1 - math.cos(math.pi * at)) / 2


OPTIMIZERS: dict[str, tuple[Json, Json | None, Callable[[int], float]]] = {
    "SGD": (
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"type": "StepLR", "step_size": 2, "gamma": 0.1},
        lambda epoch: 0.1 * 0.1 ** (epoch // 2),
    ),
    "Adam": (
        {"lr": 0.05},
        {"type": "CosineAnnealingLR", "T_max": "epochs"},
        lambda epoch: 0.05 * (1 + math.cos(math.pi * epoch / 6)) / 2,
    ),
    "AdamW": (
        {"lr": 0.05},
        {"type": "LinearLR", "start_factor": 0.25, "total_iters": 3},
        lambda epoch: 0.05 * min(1, 0.25 + 0.75 * epoch / 3),
    ),
    "Adagrad": (  # a threshold that no loss reaches: every epoch but the first is one too many
        {"lr": 0.1},
        {"type": "ReduceLROnPlateau", "patience": 0, "factor": 0.5, "threshold": 0.99},
        lambda epoch: 0.1 * 0.5 ** max(0, epoch - 1),
    ),
    "RMSprop": (
        {"lr": 0.01, "momentum": 0.5},
        {"type": "OneCycleLR", "max_lr": 0.4, "total_steps": "steps", "interval": "step", "cycle_momentum": False},
        one_cycle,
    ),
    "LBFGS": ({"lr": 0.5, "max_iter": 3}, None, lambda _: 0.5),
}
"""Arguments, a schedule, and the formula of the rate in epoch e (from 0) of six, each of one update."""
GRAYS = ["ToTensor", {"type": "Normalize", "mean": [0.5], "std": [0.5]}, {"type": "CenterCrop", "size": [20, 20]}]


def specs(lab: Lab) -> dict[str, Json]:
    """Return every job, by name."""
    split = {"from": "train", "fraction": 0.2, "stratify": True}
    digits = {"train": "sklearn.digits", "val": split, "max_samples": 300}
    pixels = {"train": "torchvision.MNIST", "val": {"type": "torchvision.MNIST", "train": False}}
    numbers = {
        "train": lab.source("numbers"), "val": lab.source("numbers val"),
        "preprocess": ["StandardScaler", {"type": "StandardScaler", "columns": ["target"]}],
    }  # fmt: skip
    he = {"type": "kaiming_normal_", "nonlinearity": "relu"}
    wide = sequential(linear(512), "ReLU", linear(10), weight_init=he)
    slow = {"type": "SGD", "lr": 1e-3}
    still, spec = lab.still, lab.spec
    net = sequential(linear(8), "BatchNorm1d", "ReLU", {"type": "Dropout", "p": 0.25}, linear(3))
    sigmoids = sequential(*[layer for _ in range(8) for layer in (linear(8), "Sigmoid")], linear(3))
    full = {"batch_size": "full", "shuffle": False}
    jobs = {
        "base": spec(
            data={
                "train": lab.source("train"), "val": lab.source("val"), "test": lab.source("val"),
                "preprocess": ["StandardScaler"],
            },
            model=net, optimizer={"type": "SGD", "lr": 0.1, "momentum": 0.9}, epochs=5, evaluate_at_start=True,
            profile=True, execution={"device": "auto", "threads": 1},
        ),
        "still": still(epochs=2, regularization={"l1": 0.01, "l2": 0.02, "exclude": ["bias"]}),
        "still full": still(**full),
        "dropout": still(
            execution={"threads": 1, "gpus": 2},
            model=sequential({"type": "Dropout", "p": 0.5}, linear(3)), accumulate_grad_batches=2, epochs=2
        ),
        "order": still(batch_size=10, max_steps=11, epochs=2, drop_last=True),
        "order of epoch 1": still(batch_size=10, max_steps=1),
        "in order": still(batch_size=10, max_steps=12, epochs=2, shuffle=False),
        "converged": still(epochs=9, stop_when=converged(window=3)),
        "threshold": spec(epochs=9, early_stopping={"stopping_threshold": 100.0}),
        "max steps": spec(
            epochs=9, max_steps=6, validate_every={"steps": 3}, early_stopping={"patience": 8},
            model=sequential(linear(3, bias=False)),
        ),
        "all limits": still(
            epochs=9, max_steps=11, early_stopping={"stopping_threshold": 0.0, "patience": 8},
            stop_when=converged(window=4),
        ),
        "stopped": spec(
            optimizer={"type": "AdamW", "lr": 1.0}, epochs=40, early_stopping={"patience": 3},
            checkpoints={"keep_best": 2, "keep_last": 2},
        ),
        "min max": spec(
            data={"train": lab.source("train"), "val": lab.source("val"), "preprocess": ["MinMaxScaler"]},
        ),
        "pixels": still(
            data={**pixels, "transforms": {"train": GRAYS, "eval": GRAYS}}, model=sequential("Flatten", linear(10))
        ),
        "simple net": spec(
            data={**pixels, "transforms": {"train": GRAYS[:2], "eval": GRAYS[:2]}},
            model=sequential("Flatten", linear(128), "ReLU", linear(10)), optimizer={"type": "Adam", "lr": 1e-3},
            epochs=3,
        ),
        "digits": spec(data=digits, model=wide, optimizer=slow),
        "digits again": spec(data=digits, model=wide, optimizer=slow),
        "digits otherwise": spec(data=digits, model=wide, optimizer=slow, seed=10),
        "numbers": spec(
            data=numbers, model=sequential(linear(1)), metrics=["rmse", "mae"], epochs=3,
            loss=[{"type": "MSELoss"}, {"type": "SmoothL1Loss", "coefficient": 0.5}],
        ),
        "binary": spec(
            data={"train": lab.source("binary"), "val": lab.source("binary")}, model=sequential(linear(1)),
            loss="BCEWithLogitsLoss", metrics=["log_loss", "accuracy"], epochs=2,
        ),
        "layers": spec(
            data={"train": "sklearn.digits", "max_samples": 40},
            model=sequential(
                {"type": "Unflatten", "dim": 1, "unflattened_size": [1, 64]},
                {"type": "Conv1d", "out_channels": 2, "kernel_size": 3, "padding": 1},
                {"type": "MaxPool1d", "kernel_size": 2}, {"type": "AvgPool1d", "kernel_size": 2},
                {"type": "AdaptiveAvgPool1d", "output_size": 16},
                {"type": "Unflatten", "dim": 2, "unflattened_size": [4, 4]},
                {"type": "Conv2d", "out_channels": 4, "kernel_size": 3, "padding": 1},
                {"type": "MaxPool2d", "kernel_size": 2}, {"type": "AvgPool2d", "kernel_size": 1},
                {"type": "AdaptiveMaxPool2d", "output_size": 2},
                {"type": "Unflatten", "dim": 1, "unflattened_size": [1, 4]},
                {"type": "Conv3d", "out_channels": 2, "kernel_size": 1},
                {"type": "MaxPool3d", "kernel_size": 2}, {"type": "AvgPool3d", "kernel_size": 1},
                {"type": "AdaptiveAvgPool3d", "output_size": 1}, "Flatten", "Tanh", linear(10),
            ),
        ),
        "residual": spec(
            model={"type": "Graph", "inputs": ["x"], "outputs": ["out"], "nodes": [
                {"name": "block", "inputs": ["x"], "type": "ext.Residual", "layers": [linear(3), "ReLU"]},
                {"name": "sum", "inputs": ["x", "block"], "type": "ext.Add"},
                {"name": "out", "inputs": ["sum"], **linear(3)}]},
            optimizer={"type": "SGD", "lr": 0.0},
        ),
        "words": spec(
            data={"train": lab.source("words"), "val": {"from": "train", "fraction": 0.2}}, epochs=4,
            optimizer={"type": "Adam", "lr": 0.02}, batch_size=16,
            model=sequential(
                {"type": "Embedding", "num_embeddings": 8, "embedding_dim": 8, "padding_idx": 0},
                {"type": "TransformerEncoderLayer", "nhead": 2, "dim_feedforward": 8, "batch_first": True},
                {"type": "GRU", "hidden_size": 8, "batch_first": True},
                {"type": "LSTM", "hidden_size": 8, "batch_first": True}, "ext.LastTimestep", linear(2),
            ),
        ),
        "clipped norm": still(**full, optimizer={"type": "SGD", "lr": 1.0}, gradient_clipping={"max_norm": 0.01}),
        "clipped value": still(**full, optimizer={"type": "SGD", "lr": 1.0}, gradient_clipping={"clip_value": 0.02}),
        "vanishing": spec(model=sigmoids, epochs=2),
        "exploding": spec(
            data=numbers, model=sequential(linear(1)), loss="MSELoss", epochs=4, optimizer={"type": "SGD", "lr": 1.5},
        ),
        "overfitting": spec(
            data={"train": lab.source("noise"), "val": lab.source("noise val")}, epochs=14,
            model=sequential(linear(64), "ReLU", linear(3)), optimizer={"type": "Adam", "lr": 0.03},
        ),
        "underfitting": spec(optimizer={"type": "SGD", "lr": 1e-3}, epochs=4, data={
            "train": lab.source("train"), "val": lab.source("val"), "preprocess": ["StandardScaler"]}),
    }  # fmt: skip
    for name, (arguments, scheduler, _) in OPTIMIZERS.items():
        jobs[name] = spec(**full, epochs=6, optimizer={"type": name, **arguments}, lr_scheduler=scheduler)
    jobs["Muon"] = spec(**full, epochs=3, optimizer={"type": "Muon", "lr": 0.05})
    return jobs


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A service with all the jobs of this file, submitted at once."""
    folder = tmp_path_factory.mktemp("seeds")
    put_torchvision(folder / "torchvision")
    with Service(folder, {"EPOCHD_DATASETS_DIR": str(folder / "torchvision")}) as service:
        lab = Lab(service)
        lab.upload("train", "csv", csv(TRAIN))
        lab.upload("val", "csv", csv(VAL))
        lab.upload("numbers", "csv", csv(TRAIN, "target"))
        lab.upload("numbers val", "csv", csv(VAL, "target"))
        lab.upload("binary", "csv", csv(TRAIN, "is_ant").replace(b"is_ant", b"label"))
        draw = np.random.default_rng(7)
        for name in ("noise", "noise val"):
            lab.upload(name, "csv", csv((draw.normal(size=(60, 3)), draw.integers(0, 3, 60), np.zeros(60))))
        lab.upload("words", "jsonl", sentences())
        lab.upload("glyphs", "idx", zipped_glyphs())
        for name, spec in specs(lab).items():
            lab.jobs[name] = service.submit(spec | {"name": name})["id"]
        yield lab


def logits(weights: dict[str, Any], features: Array) -> Array:
    return (
        np.asarray(features, dtype=np.float32).astype(float) @ weights["0.weight"].astype(float).T + weights["0.bias"]
    )


def cross_entropy(scores: Array, labels: NDArray[Any]) -> float:
    probabilities = softmax(scores)
    assert np.allclose(probabilities.sum(axis=1), 1)
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def softmax(scores: Array) -> Array:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def near(value: float, relative: float = 1e-5) -> Any:
    return pytest.approx(value, rel=relative, abs=1e-6)


def test_row_01_an_epoch_is_one_pass_over_the_training_set(lab: Lab) -> None:
    assert [row["epoch"] for row in lab.rows("base")] == [0, 1, 2, 3, 4, 5]
    assert lab.done("base")["progress"]["epoch"] == 5
    assert [row["epoch"] for row in lab.rows("still")] == [1, 2]


def test_row_02_mini_batches_hold_every_sample_once_but_for_those_that_are_dropped(lab: Lab) -> None:
    assert [row["step"] for row in lab.rows("still")] == [STEPS, 2 * STEPS]
    assert lab.preflight()["summary"]["steps_per_epoch"] == STEPS
    (whole,), dropped = lab.rows("still full"), lab.rows("order")[0]
    assert dropped["step"] == N // 10
    assert lab.rows("still")[0]["train"]["data_loss"] == near(whole["train"]["loss"])
    assert dropped["train"]["loss"] != near(whole["train"]["loss"])


def test_row_03_batch_stochastic_and_mini_batch_descent(lab: Lab) -> None:
    assert lab.rows("still full")[0]["step"] == 1
    assert [lab.preflight(batch_size=size)["summary"]["steps_per_epoch"] for size in ("full", 1, 64)] == [1, N, 2]


def test_row_04_order_differs_between_epochs_and_is_the_same_for_a_seed(lab: Lab) -> None:
    """The weights never change: the loss of the first batch alone says which samples were in it."""
    first = lab.rows("order of epoch 1")[0]["train"]["loss"]
    whole, first_of_2 = lab.rows("order")
    assert (whole["step"], first_of_2["step"]) == (10, 11)
    assert first_of_2["train"]["loss"] != near(first)
    assert [row["train"] for row in lab.rows("digits")] == [row["train"] for row in lab.rows("digits again")]
    assert lab.bytes("digits", "last.safetensors") == lab.bytes("digits again", "last.safetensors")
    unshuffled = cross_entropy(logits(lab.weights("in order"), TRAIN[0][:10]), TRAIN[1][:10])
    assert lab.rows("in order")[1]["train"]["loss"] == near(unshuffled)


def test_row_05_time_is_split_over_the_five_steps_on_request(lab: Lab) -> None:
    for row in lab.rows("base")[1:]:
        assert set(row["profile"]) == {"batch", "forward", "loss", "backward", "update"}
        assert 0 < sum(row["profile"].values()) <= row["seconds"]
    assert "profile" not in lab.rows("still")[0]


def test_row_06_updates_are_counted_and_accumulation_divides_them(lab: Lab) -> None:
    assert [row["step"] for row in lab.rows("dropout")] == [STEPS // 2, STEPS]
    assert lab.done("dropout")["progress"]["steps"] == STEPS


def test_row_07_without_a_gpu_auto_falls_back_to_the_cpu_and_says_so(lab: Lab) -> None:
    job = lab.done("base")
    assert job["spec"]["execution"]["device"] == "auto"
    assert job["resolved_spec"]["execution"]["device"] in ("cpu", "gpu")
    assert job["resolved_spec"]["execution"]["device"] == lab.manifest("base")["numerics"]["device"].replace(
        "cuda", "gpu"
    )


def test_row_08_validating_twice_gives_the_same_loss_with_dropout_and_batch_norm(lab: Lab) -> None:
    """The test set is the validation set, looked at once more with the weights of the best epoch."""
    job = lab.done("base")
    best = lab.rows("base")[job["best"]["epoch"]]
    assert job["test_metrics"] == best["val"]


def test_row_09_initial_state_is_the_row_of_epoch_0(lab: Lab) -> None:
    row = lab.rows("base")[0]
    assert (row["epoch"], row["step"]) == (0, 0)
    assert row["val"]["loss"] > 0
    assert lab.rows("still")[0]["epoch"] == 1


def test_row_10_average_loss_is_the_mean_over_all_samples(lab: Lab) -> None:
    """Batches of 32, 32, 32 and 5; the formula over all 101 at once."""
    wanted = cross_entropy(logits(lab.weights("still"), TRAIN[0]), TRAIN[1])
    row = lab.rows("still")[0]
    assert row["train"]["data_loss"] == near(wanted)
    assert row["val"]["loss"] == near(wanted)


@pytest.mark.parametrize(
    ("name", "reason", "epochs", "steps"),
    [
        ("base", "completed", 5, 5 * STEPS),
        ("converged", "converged", 3, 3 * STEPS),
        ("threshold", "stopping_threshold", 1, STEPS),
        ("max steps", "max_steps", 2, 6),
        ("all limits", "max_steps", 3, 11),  # in mid-epoch, before the fourth loss that would be the same
    ],
)
def test_row_11_first_limit_that_is_reached_ends_the_job_and_is_named(
    lab: Lab, name: str, reason: str, epochs: int, steps: int
) -> None:
    job = lab.done(name)
    assert (job["stop_reason"], job["progress"]["epoch"], job["progress"]["step"]) == (reason, epochs, steps)


def test_row_12_one_runnable_example_of_each_kind_of_input() -> None:
    names = {path.name for path in (ROOT / "examples").iterdir()}
    assert {"cnn-augmented.json", "diabetes-regression.json", "series.py", "text.py"} <= names


def test_row_13_mnist_by_name_from_the_operators_folder_and_real_data_without_a_network(lab: Lab) -> None:
    data = lab.manifest("simple net")["data"]
    assert data["classes"] == [str(digit) for digit in range(10)]
    assert re.fullmatch("[0-9a-f]{64}", data["digest"])
    fashion = {"train": "torchvision.FashionMNIST", "transforms": {"train": GRAYS, "eval": GRAYS}}
    assert lab.preflight(data=fashion, model=sequential("Flatten", linear(10)))["ok"]
    assert len(lab.manifest("digits")["data"]["classes"]) == 10
    assert lab.errors(data={"train": "torchvision.CIFAR10"}) == [("/data/train/type", "dataset_missing")]


@pytest.mark.parametrize("name", ["base", "min max"])
def test_row_14_scaling_is_fitted_on_train_only(lab: Lab, name: str) -> None:
    """The validation set is shifted by 0.5: its own mean, or its own range, would be others."""
    (step,) = lab.manifest(name)["preprocess"]["steps"]
    state, train = step["state"], TRAIN[0].astype(np.float32).astype(float)
    if name == "base":
        assert state["mean_"] == near(train.mean(axis=0))
        assert state["scale_"] == near(train.std(axis=0))
        return
    assert state["data_min_"] == near(train.min(axis=0))
    scaled = (VAL[0].astype(np.float32) - train.min(axis=0)) / (train.max(axis=0) - train.min(axis=0))
    assert scaled.max() > 1
    assert lab.rows(name)[0]["val"]["loss"] == near(cross_entropy(logits(lab.weights(name), scaled), VAL[1]))


def test_row_15_to_tensor_and_normalize_give_the_values_of_torchvision(lab: Lab) -> None:
    """As torchvision says: the byte through 255, minus the mean, through the deviation."""
    images, labels = glyphs(50, 4)
    values = ((images / 255 - 0.5) / 0.5)[:, 4:24, 4:24].reshape(50, -1)
    weights = {name.replace("1.", "0.", 1): value for name, value in lab.weights("pixels").items()}
    assert lab.rows("pixels")[0]["val"]["loss"] == near(cross_entropy(logits(weights, values), labels))


def test_row_16_resize_and_crop_in_eval(lab: Lab) -> None:
    found = lab.preflight(
        data={
            "train": "torchvision.MNIST",
            "transforms": {
                "train": ["ToTensor", {"type": "RandomResizedCrop", "size": [14, 14]}],
                "eval": ["ToTensor", {"type": "Resize", "size": [16, 16]}, {"type": "CenterCrop", "size": [14, 14]}],
            },
        },
        model=sequential("Flatten", linear(10)),
    )
    assert found["ok"], found["errors"]
    assert found["summary"]["layers"][0]["input_shape"][-3:] == [1, 14, 14]
    assert lab.done("pixels")["status"] == "succeeded"


AUGMENTATIONS: tuple[Json, ...] = (
    {"type": "RandomRotation", "degrees": 45},
    {"type": "RandomAffine", "degrees": 0, "scale": [0.5, 1.5], "translate": [0.3, 0.3]},
    {"type": "RandomHorizontalFlip"},
    {"type": "RandomVerticalFlip"},
    {"type": "RandomCrop", "size": [20, 20]},
    {"type": "RandomResizedCrop", "size": [20, 20]},
    {"type": "GaussianNoise"},
)


def test_row_17_augmentation_draws_anew_repeats_by_seed_and_is_for_train_only(lab: Lab) -> None:
    as_floats = {"type": "ToDtype", "dtype": "float32", "scale": True}

    def drawn(seed: int, *transforms: Json) -> bytes:
        query = {"transforms": json.dumps([as_floats, *transforms]), "rows": 4, "draws": 2, "seed": seed}
        answer = lab.service.client.get(f"/v1/datasets/{lab.ids['glyphs']}/preview.png", params=query)
        assert answer.status_code == 200, answer.text
        return bytes(answer.content)

    for transform in AUGMENTATIONS:
        assert drawn(1, transform) != drawn(2, transform), transform
    assert drawn(1, *AUGMENTATIONS) == drawn(1, *AUGMENTATIONS)
    transforms = [as_floats, *AUGMENTATIONS]
    data = {"train": lab.source("glyphs"), "transforms": {"train": transforms, "eval": transforms}}
    found = lab.errors(data=data, model=sequential("Flatten", linear(10)))
    assert found == [(f"/data/transforms/eval/{place}", "random_in_eval") for place in range(1, 8)]


def test_row_18_a_data_set_without_a_target_is_refused_with_a_pointer(lab: Lab) -> None:
    lab.upload("aimless", "csv", b"x,y\n1,2\n3,4\n")
    answer = lab.service.client.post("/v1/jobs", json=lab.spec(data={"train": lab.source("aimless")}))
    assert answer.status_code == 422
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert [issue["pointer"] for issue in answer.json()["errors"]] == ["/data/columns/target"]


def test_row_19_validation_is_apart_from_train_seeded_stratified_and_hashed(lab: Lab) -> None:
    digest, again, other = (
        lab.manifest(name)["data"]["split_sha256"] for name in ("digits", "digits again", "digits otherwise")
    )
    assert digest == again != other
    data = {"train": "sklearn.iris", "val": {"from": "train", "fraction": 0.2, "stratify": True}}
    found = lab.preflight(data=data, batch_size=1)
    assert found["summary"]["steps_per_epoch"] == 120  # of 150: what is in val is not in train
    matrix = lab.rows("simple net")[-1]["val"]
    assert matrix["accuracy"] <= 1


def test_row_21_dense_convolutional_and_pooling_layers_train(lab: Lab) -> None:
    used = {layer["type"] for layer in lab.done("layers")["spec"]["model"]["layers"] if isinstance(layer, dict)}
    assert {"Linear", "Conv1d", "Conv2d", "Conv3d", "MaxPool1d", "AvgPool2d", "AdaptiveAvgPool3d"} <= used
    assert lab.rows("layers")[0]["grad_norm"] > 0


def test_row_22_a_bias_can_be_left_out_and_preflight_tables_the_parameters(lab: Lab) -> None:
    assert [name for name in lab.weights("max steps") if "bias" in name] == []
    found = lab.preflight(model=sequential(linear(5, bias=False), "ReLU", linear(3)))
    assert [layer["parameters"] for layer in found["summary"]["layers"]] == [15, 0, 18]


def test_row_23_activations_by_name_and_a_softmax_before_cross_entropy_is_warned_of(lab: Lab) -> None:
    for name in ("ReLU", "Sigmoid", "Tanh"):
        assert lab.warnings(model=sequential(linear(4), name, linear(3))) == []
    softmax_last = sequential(linear(3), {"type": "Softmax", "dim": 1})
    ((pointer, code),) = lab.warnings(model=softmax_last)
    assert pointer == "/model/layers/1"
    assert "softmax" in code


def test_row_24_the_simple_net_has_101770_parameters_and_learns(lab: Lab) -> None:
    spec = lab.done("simple net")["spec"]
    assert lab.preflight(**spec)["summary"]["parameters"] == 101_770
    assert sum(value.size for value in lab.weights("simple net").values()) == 101_770
    assert lab.rows("simple net")[-1]["val"]["accuracy"] > 0.9


def test_row_25_classes_have_probabilities_in_order_and_numbers_their_own_units(lab: Lab) -> None:
    assert lab.manifest("still")["data"]["classes"] == list(CLASSES)
    scores = logits(lab.weights("binary", "last"), TRAIN[0])[:, 0]
    is_ant, chance = TRAIN[1] == 0, 1 / (1 + np.exp(-scores))
    last = lab.rows("binary")[-1]["val"]
    assert last["log_loss"] == near(float(-np.log(np.where(is_ant, chance, 1 - chance)).mean()))
    assert last["accuracy"] == near(float(((chance > 0.5) == is_ant).mean()))
    predicted = scaled_numbers(lab) * TRAIN[2].std() + TRAIN[2].mean()
    row = lab.rows("numbers")[-1]["val"]
    assert row["rmse"] == near(float(np.sqrt(((predicted - VAL[2]) ** 2).mean())), 1e-4)
    assert row["mae"] == near(float(np.abs(predicted - VAL[2]).mean()), 1e-4)


def scaled_numbers(lab: Lab) -> Array:
    """Return what the regression's last weights answer for the validation set, in units of the scaled target."""
    train = TRAIN[0]
    return logits(lab.weights("numbers", "last"), (VAL[0] - train.mean(axis=0)) / train.std(axis=0))[:, 0]


def test_row_26_batch_norm_keeps_its_statistics_and_a_last_batch_of_one_is_found(lab: Lab) -> None:
    weights = lab.weights("base")
    hidden = logits(weights, (VAL[0] - TRAIN[0].mean(axis=0)) / TRAIN[0].std(axis=0))
    hidden = (hidden - weights["1.running_mean"]) / np.sqrt(weights["1.running_var"] + 1e-5)
    hidden = np.maximum(hidden * weights["1.weight"] + weights["1.bias"], 0)
    scores = hidden @ weights["4.weight"].T + weights["4.bias"]
    assert lab.done("base")["test_metrics"]["loss"] == near(cross_entropy(scores, VAL[1]), 1e-4)
    found = lab.errors(model=sequential(linear(4), "BatchNorm1d", linear(3)), batch_size=50)
    assert found == [("/batch_size", "batch_norm_of_one")]


def test_row_27_residual_connections_add(lab: Lab) -> None:
    weights, inputs = lab.weights("residual"), TRAIN[0]
    inner = np.maximum(inputs @ weights["block.layers.0.weight"].T + weights["block.layers.0.bias"], 0)
    scores = (inputs + inputs + inner) @ weights["out.weight"].T + weights["out.bias"]
    assert lab.rows("residual")[0]["train"]["loss"] == near(cross_entropy(scores, TRAIN[1]))


def test_row_28_recurrent_and_attention_layers_tell_sequences_apart(lab: Lab) -> None:
    assert lab.rows("words")[-1]["val"]["accuracy"] > 0.8


def test_row_29_dropout_acts_in_training_only(lab: Lab) -> None:
    row = lab.rows("dropout")[0]
    weights = {name.replace("1.", "0.", 1): value for name, value in lab.weights("dropout").items()}
    assert row["val"]["loss"] == near(cross_entropy(logits(weights, TRAIN[0]), TRAIN[1]))
    assert row["train"]["loss"] != near(row["val"]["loss"], 1e-3)


def test_row_30_initial_weights_follow_their_formula_and_their_seed(lab: Lab) -> None:
    first = lab.weights("digits", "last")["0.weight"]  # eight small steps later
    assert first.std() == pytest.approx(math.sqrt(2 / 64), rel=0.03)  # He: the fan-in is 64
    weights = {name: lab.weights(name)["0.weight"] for name in ("digits", "digits again", "digits otherwise")}
    assert (weights["digits"] == weights["digits again"]).all()
    assert (weights["digits"] != weights["digits otherwise"]).any()
    for name in ("kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "normal_", "uniform_", "trunc_normal_",
                 "orthogonal_"):  # fmt: skip
        assert lab.preflight(model=sequential(linear(3), weight_init=name))["ok"]


def test_row_31_losses_are_their_formulas_and_add_up_with_coefficients(lab: Lab) -> None:
    target = (VAL[2] - TRAIN[2].mean()) / TRAIN[2].std()
    apart = np.abs(scaled_numbers(lab) - target)
    smooth = np.where(apart < 1, apart**2 / 2, apart - 0.5).mean()
    assert lab.rows("numbers")[-1]["val"]["loss"] == near(float((apart**2).mean() + 0.5 * smooth), 1e-4)


def test_row_32_penalties_are_reported_beside_the_data_loss(lab: Lab) -> None:
    row, weight = lab.rows("still")[0]["train"], lab.weights("still")["0.weight"].astype(float)
    penalty = 0.01 * np.abs(weight).sum() + 0.02 * (weight**2).sum()
    assert row["penalty"] == near(float(penalty))
    assert row["loss"] == near(row["data_loss"] + row["penalty"])


def test_row_33_weight_decay_is_the_optimizers_and_a_penalty_beside_it_is_warned_of(lab: Lab) -> None:
    """That weights decay as in a plain loop is row 36's: its SGD has a weight_decay."""
    assert lab.done("SGD")["resolved_spec"]["optimizer"]["weight_decay"] == 0.01
    decayed = {"type": "SGD", "lr": 0.1, "weight_decay": 0.1}
    assert lab.warnings(regularization={"l2": 0.05}, optimizer=decayed) == [("/regularization/l2", "decays_twice")]


def gradients(lab: Lab) -> tuple[Array, Array]:
    """Return the gradients of the mean cross-entropy at the initial weights, for weight and bias."""
    error = softmax(logits(lab.weights("still full"), TRAIN[0])) - np.eye(3)[TRAIN[1]]
    return error.T @ TRAIN[0] / N, error.mean(axis=0)


def test_row_34_gradient_norm_is_in_every_row(lab: Lab) -> None:
    weight, bias = gradients(lab)
    wanted = math.sqrt((weight**2).sum() + (bias**2).sum())
    assert lab.rows("still full")[0]["grad_norm"] == near(wanted)
    assert all(row["grad_norm"] > 0 for row in lab.rows("base")[1:])


def test_row_35_gradients_are_clipped_and_diagnosed(lab: Lab) -> None:
    begin, weight = lab.weights("still full"), gradients(lab)[0]
    moved = {name: lab.weights("clipped norm")[name] - value for name, value in begin.items()}
    assert math.sqrt(sum(float((value.astype(float) ** 2).sum()) for value in moved.values())) == near(0.01, 1e-3)
    by_value = begin["0.weight"] - lab.weights("clipped value")["0.weight"]
    np.testing.assert_allclose(by_value, weight.clip(-0.02, 0.02), atol=1e-6)
    (vanished,) = [one for one in lab.decisions("vanishing", "diagnosis") if one["code"] == "vanishing_gradients"]
    assert vanished["epoch"] == 2
    assert vanished["suggestion"]
    assert {"exploding_gradients", "lr_too_high"} <= {one["code"] for one in lab.decisions("exploding", "diagnosis")}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_row_36_weights_equal_those_of_a_plain_loop_bit_for_bit(lab: Lab, name: str) -> None:
    import torch
    from safetensors.torch import load as load_tensors

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    model.load_state_dict(load_tensors(lab.bytes("still full", "model.safetensors")))
    optimizer = getattr(torch.optim, name)(model.parameters(), **OPTIMIZERS[name][0])
    inputs, target = torch.tensor(TRAIN[0], dtype=torch.float32), torch.tensor(TRAIN[1])

    def closure() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), target)
        loss.backward()
        return loss

    for row in lab.rows(name):
        optimizer.param_groups[0]["lr"] = row["lr"][0]
        if name == "LBFGS":
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    found = load_tensors(lab.bytes(name, "last.safetensors"))
    torch.testing.assert_close(found, dict(model.state_dict()), rtol=0, atol=0)


def test_row_36_muon_takes_matrices_and_leaves_the_rest_to_adamw(lab: Lab) -> None:
    begin, end = lab.weights("still full"), lab.weights("Muon", "last")
    assert all((begin[name] != end[name]).all() for name in begin)
    losses = [row["train"]["loss"] for row in lab.rows("Muon")]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_row_37_recorded_rate_is_the_formulas_at_every_epoch_and_step(lab: Lab, name: str) -> None:
    rate = OPTIMIZERS[name][2]
    assert [row["lr"] for row in lab.rows(name)] == [[near(rate(epoch))] for epoch in range(6)]
    assert [row["step"] for row in lab.rows(name)] == [1, 2, 3, 4, 5, 6]


def test_row_38_both_sets_are_measured_after_epochs_and_after_every_n_steps(lab: Lab) -> None:
    for row in lab.rows("base"):
        assert all({"loss", "accuracy"} <= set(row[part]) for part in ("train", "val"))
    checks = lab.decisions("max steps", "early_stopping")
    assert [check["step"] for check in checks] == [3, 6]
    assert [check["value"] for check in checks] == [row["val"]["loss"] for row in lab.rows("max steps")]


def test_row_39_over_and_underfitting_are_told_apart_with_numbers(lab: Lab) -> None:
    over = {one["code"]: one for one in lab.decisions("overfitting", "diagnosis")}["overfitting"]
    under = {one["code"]: one for one in lab.decisions("underfitting", "diagnosis")}["underfitting"]
    by_epoch = {row["epoch"]: row for row in lab.rows("overfitting")}
    assert over["val_loss"] == by_epoch[over["epoch"]]["val"]["loss"]
    assert over["val_loss"] > 1.1 * over["best_val_loss"]
    assert under["epoch"] == 4
    assert over["suggestion"]
    assert under["suggestion"]


def test_row_40_early_stopping_stops_exactly_at_the_best_epoch_plus_patience(lab: Lab) -> None:
    job, rows = lab.done("stopped"), lab.rows("stopped")
    losses = [row["val"]["loss"] for row in rows]
    best = 1 + losses.index(min(losses))
    assert (job["stop_reason"], job["best"]["epoch"], len(rows)) == ("early_stopping", best, best + 3)
    checks = lab.decisions("stopped", "early_stopping")
    assert [check["epoch"] for check in checks] == [row["epoch"] for row in rows]
    assert [check["action"] for check in checks] == ["continue"] * (len(rows) - 1) + ["stop"]
    assert (checks[-1]["wait"], checks[-1]["patience"], checks[-1]["best_epoch"]) == (3, 3, best)
    scores = logits(lab.weights("stopped"), VAL[0])
    assert cross_entropy(scores, VAL[1]) == near(min(losses), 1e-4)
    assert job["saved"]["epochs"] == 40 - len(rows)
    assert job["saved"]["seconds"] > 0
    assert lab.done("base")["saved"] is None


def test_row_40_the_next_best_and_the_latest_weights_are_left_as_asked(lab: Lab) -> None:
    answer = lab.service.client.get(f"/v1/jobs/{lab.jobs['stopped']}/artifacts").json()["data"]
    assert {one["name"] for one in answer if one["name"].endswith(".safetensors")} == {
        "model.safetensors", "best-2.safetensors", "last.safetensors", "last-2.safetensors",
    }  # fmt: skip
    kept = lab.manifest("stopped")["kept"]
    losses = {row["epoch"]: row["val"]["loss"] for row in lab.rows("stopped")}
    assert [one["epoch"] for one in kept["best"]] == sorted(losses, key=lambda epoch: losses[epoch])[:2]
    assert [one["epoch"] for one in kept["last"]] == [len(losses), len(losses) - 1]
    for one in (kept["best"][1], kept["last"][1]):
        scores = logits(lab.weights("stopped", one["file"].removesuffix(".safetensors")), VAL[0])
        assert cross_entropy(scores, VAL[1]) == near(losses[one["epoch"]], 1e-4)


def test_row_42_several_gpus_are_for_later_and_the_job_says_so(lab: Lab) -> None:
    (said,) = lab.decisions("dropout", "no_effect")
    assert (said["pointer"], said["reason"]) == ("/execution/gpus", "This version trains on one GPU.")
    assert lab.warnings(execution={"gpus": 2}) == [("/execution/gpus", "no_effect")]
    assert lab.errors(execution={"device": "cpu", "gpus": 2}) == [("/execution/gpus", "contradicts")]


def test_row_43_test_set_is_looked_at_once_on_the_best_weights_and_stored_apart(lab: Lab) -> None:
    job = lab.done("base")
    assert job["test_metrics"]["loss"] == lab.manifest("base")["test_metrics"]["loss"]
    assert job["best"]["value"] == job["test_metrics"]["loss"]
    assert all("test" not in row for row in lab.rows("base"))
    assert lab.done("still")["test_metrics"] is None


def test_row_44_artifacts_answer_for_raw_new_samples(lab: Lab) -> None:
    """From the manifest: which columns, how they are scaled, what the classes are called."""
    manifest, weights = lab.manifest("min max"), lab.weights("min max")
    assert (manifest["data"]["feature_names"], manifest["data"]["target_names"]) == (["a", "b", "c"], ["label"])
    (step,) = manifest["preprocess"]["steps"]
    scaled = VAL[0] * step["state"]["scale_"] + step["state"]["min_"]
    answers = [manifest["data"]["classes"][best] for best in logits(weights, scaled).argmax(axis=1)]
    right = [answer == CLASSES[label] for answer, label in zip(answers, VAL[1], strict=True)]
    assert lab.rows("min max")[-1]["val"]["accuracy"] == near(sum(right) / len(right))
    script = lab.service.client.get(f"/v1/jobs/{lab.jobs['digits']}/code")
    assert script.status_code == 200
    compile(script.text, "job.py", "exec")


def test_every_row_is_shown_and_every_test_named_elsewhere_exists() -> None:
    names = "\n".join(name for name in globals() if name.startswith("test_row_"))
    here = {int(number) for number in re.findall(r"^test_row_(\d\d)_", names, re.MULTILINE)}
    assert here | set(ELSEWHERE) | set(LATER) == set(range(1, 45))
    for test in [test for tests in ELSEWHERE.values() for test in tests]:
        path, _, name = test.partition("::")
        assert re.search(rf"^ *def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), test
