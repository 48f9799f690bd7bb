"""Training against what a user would write or take instead: each in a process of its own, from the first import on.

    .venv/bin/python -m bench.loop [--jobs mlp,tabular] [--rivals plain,skorch] [--threads 2] [--rounds 5] [--epochs 90]
                                   [--copies 1]

Jobs: `mlp` (784-128-10 on MNIST, where ../shared/data has it), `tabular` (20,000 x 30), `cnn` and `cnn-augmented`
(digits), `resnet18` (32 x 32). Everybody has the same samples, batches, threads and epochs, measures loss and accuracy
of both sets in every epoch, and looks whether to stop early. Ours is the trainer as a worker runs it: preflight,
checkpoints and published rows included. `classic` has one transform per sample, as tutorials do; `plain` is a loop
tuned by hand; the frameworks have their data in memory. They take turns; a figure is the median of the rounds.

A steady epoch is the median of the epochs after the second. The whole job counts from the start of the process to
weights on disk. A ratio above 1 says how many times as fast ours is. The rivals need `sh bench/rivals/install.sh`.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.measuring import arguments, ratio, report
from bench.rivals.job import Job
from core import datasets
from core.process import FORCED_VARIABLES
from core.spec.job import Component
from tests.service import ROOT

DATASETS = ROOT.parent / "shared" / "data"
MNIST_MLP = ROOT.parent / "shared" / "specs" / "mnist-mlp.json"
RIVALS_PYTHON = ROOT / ".venv-rivals" / "bin" / "python"
RIVALS: dict[str, tuple[str, dict[str, str]]] = {
    "classic": ("classic", {}),
    "plain": ("plain", {}),
    "lightning": ("lightning_fit", {}),
    "skorch": ("skorch_fit", {}),
    "keras-torch": ("keras_fit", {"KERAS_BACKEND": "torch"}),
    "keras-jax": ("keras_fit", {"KERAS_BACKEND": "jax"}),
}
"""Modules of bench.rivals, with their environment."""
EPOCHS = {"mlp": 4, "tabular": 8, "cnn": 12, "cnn-augmented": 12, "resnet18": 4}
SKIPPED = {
    "tabular": {"classic"},
    "cnn": {"classic"},
    "cnn-augmented": {"lightning", "skorch", "keras-torch", "keras-jax"},
    "resnet18": {"classic"},
}
"""Whom a job has nothing to tell of: samples in memory need no loader, and all frameworks augment as `classic` does."""
FLOAT = {"type": "ToDtype", "dtype": "float32", "scale": True}
GRAY = [FLOAT, {"type": "Normalize", "mean": [0.5], "std": [0.5]}]
MOVED = {"type": "RandomAffine", "degrees": 10, "translate": [0.1, 0.1], "scale": [0.9, 1.1]}
CONVOLUTION = {"type": "Conv2d", "kernel_size": 3, "padding": 1, "bias": False}
CNN = [
    {**CONVOLUTION, "out_channels": 16}, "BatchNorm2d", "ReLU", {"type": "MaxPool2d", "kernel_size": 2},
    {**CONVOLUTION, "out_channels": 32}, "BatchNorm2d", "ReLU",
    {"type": "AdaptiveAvgPool2d", "output_size": 1}, "Flatten", {"type": "Linear", "out_features": 10},
]  # fmt: skip
DIGITS = {"type": "sklearn.digits", "as": "image"}
TABULAR = {
    "type": "synthetic.classification", "samples": 20_000, "n_features": 30, "n_informative": 12, "seed": 1,
}  # fmt: skip


def specs() -> dict[str, dict[str, Any]]:
    """Return the jobs as we are given them; without MNIST there is no `mlp`."""
    wide = [{"type": "RGB"}, {"type": "Resize", "size": [32, 32], "interpolation": "nearest"}]
    three = [FLOAT, {"type": "Normalize", "mean": [0.5] * 3, "std": [0.5] * 3}]
    noise = {"type": "GaussianNoise", "sigma": 0.02}
    hidden = {"type": "Linear", "out_features": 64}
    found = {
        "tabular": _spec(TABULAR, [hidden, "ReLU", hidden, "ReLU", {"type": "Linear", "out_features": 2}]),
        "cnn": _spec(DIGITS, CNN, GRAY),
        "cnn-augmented": _spec(DIGITS, CNN, [MOVED, FLOAT, noise, GRAY[1]], GRAY),
        "resnet18": _spec(DIGITS, {"type": "torchvision.resnet18", "num_classes": 10}, [*wide, *three]),
    }
    found["resnet18"]["data"]["max_samples"] = 600
    if MNIST_MLP.exists() and (DATASETS / "MNIST").exists():
        mlp = json.loads(MNIST_MLP.read_text())
        del mlp["data"]["test"]
        found = {"mlp": mlp, **found}
    return found


def _spec(train: Any, model: Any, transforms: Any = None, judged: Any = None) -> dict[str, Any]:
    data: dict[str, Any] = {"train": train, "val": {"from": "train", "fraction": 0.1, "stratify": True}}
    if transforms:
        data["transforms"] = {"train": transforms, "eval": judged or transforms}
    return {
        "data": data,
        "model": model if isinstance(model, dict) else {"type": "Sequential", "layers": model},
        "loss": "CrossEntropyLoss",
        "optimizer": {"type": "Adam", "lr": 0.001},
        "batch_size": 64,
        "seed": 0,
    }


class Race:
    """One job, and all who train it."""

    def __init__(self, name: str, spec: dict[str, Any], folder: Path, *, threads: int, epochs: int) -> None:
        optimizer = spec["optimizer"]
        self.job = Job(
            name=name, data=str(folder / f"{name}.npz"), weights=str(folder / "weights"), epochs=epochs,
            threads=threads, batch_size=spec["batch_size"], optimizer=optimizer["type"], lr=optimizer["lr"],
        )  # fmt: skip
        self.spec = spec | {
            "epochs": self.job.epochs,
            "early_stopping": {"monitor": "val_loss", "patience": self.job.patience},
            "metrics": ["accuracy"],
            "execution": {"device": "cpu", "threads": threads},
        }
        self.folder, self.threads = folder, threads
        self.samples = self._write_samples()

    def _write_samples(self) -> int:
        """Store the samples for the rivals; return how many there are to train on."""
        data = self.spec["data"]
        source = Component.model_validate(data["train"])
        found = datasets.load(source, datasets_dir=DATASETS, cache_dir=self.folder, uploads={})
        order = np.random.default_rng(0).permutation(len(found))[: data.get("max_samples")]
        x, y = np.asarray(found.inputs)[order], np.asarray(found.target)[order]
        if self.job.name == "resnet18":
            x = np.kron(x, np.ones((1, 3, 4, 4), dtype=np.uint8))  # 8 x 8 in gray as 32 x 32 in color
        count = len(x) - len(x) // 10
        np.savez(self.job.data, x_train=x[:count], y_train=y[:count], x_val=x[count:], y_val=y[count:])
        return count

    def run(self, name: str, copies: int = 1) -> dict[str, Any]:
        """Have so many of `name` train at once; return the first one's answer, with the seconds since they started."""
        environment = {"OMP_NUM_THREADS": str(self.threads)}
        if name == "ours":
            environment |= FORCED_VARIABLES  # as a worker starts it
            folders = {"cache_dir": str(self.folder), "datasets_dir": str(DATASETS)}
            command = [sys.executable, "-m", "bench.ours", json.dumps({"spec": self.spec, **folders})]
        else:
            module, more = RIVALS[name]
            environment |= more
            command = [str(RIVALS_PYTHON), "-m", f"bench.rivals.{module}", json.dumps(dataclasses.asdict(self.job))]
        cores = ["taskset", "--cpu-list", f"0-{self.threads - 1}"]
        begun = time.monotonic()
        started = [
            subprocess.Popen(
                [*cores, *command], env=os.environ | environment, cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for _ in range(copies)
        ]  # fmt: skip
        said = [process.communicate() for process in started]
        for process, (_, errors) in zip(started, said, strict=True):
            if process.returncode:
                raise SystemExit(f"{name} on {self.job.name} failed:\n{errors[-2000:]}")
        answer = json.loads(said[0][0].splitlines()[-1])
        return {**answer, "epoch": statistics.median(answer["epochs"][2:]), "whole": answer["done"] - begun}


def rows_of(race: Race, answers: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each who trained."""

    def seconds(name: str, what: str) -> list[float]:
        return [answer[what] for answer in answers[name]]

    rows: list[dict[str, Any]] = []
    for name in answers:
        row: dict[str, Any] = {"job": race.job.name, "who": name}
        for what in ("epoch", "whole"):
            row[f"{what} s"] = round(statistics.median(seconds(name, what)), 4)
            compared = ratio(seconds(name, what), seconds("ours", what))
            row[f"ours, {what}"] = compared["ratio"]
            row[f"{what} least-most"] = f"{compared['least']}-{compared['most']}"
        row["samples/s"] = round(race.samples / row["epoch s"])
        row["val accuracy"] = round(statistics.median(seconds(name, "val_accuracy")), 3)
        rows.append(row)
    return rows


def chosen(asked: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the jobs and the rivals that were asked for and are here; say what is not."""
    found = specs()
    missing = [name for name in asked.jobs if name not in found]
    if missing:
        print(f"left out, no data: {', '.join(missing)}", file=sys.stderr)
    if asked.rivals and not RIVALS_PYTHON.exists():
        raise SystemExit("the rivals are not installed: sh bench/rivals/install.sh")
    return {name: found[name] for name in asked.jobs if name in found}, asked.rivals


def main() -> None:
    parser = arguments(__doc__)
    words = lambda text: [word for word in text.split(",") if word]  # noqa: E731
    parser.add_argument("--jobs", type=words, default=list(EPOCHS))
    parser.add_argument("--rivals", type=words, default=list(RIVALS))
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help=f"of every job (default: {EPOCHS})")
    parser.add_argument("--copies", type=int, default=1, help="train so many at once on the same cores (default: 1)")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds = 1
    jobs, rivals = chosen(asked)
    epochs = dict.fromkeys(EPOCHS, asked.epochs or 3) if asked.epochs or asked.quick else EPOCHS
    rows: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="epochd-loop-") as folder:
        for name, spec in jobs.items():
            race = Race(name, spec, Path(folder), threads=asked.threads, epochs=epochs[name])
            names = ["ours", *(rival for rival in rivals if rival not in SKIPPED.get(name, ()))]
            answers: dict[str, list[dict[str, Any]]] = {one: [] for one in names}
            for number in range(asked.rounds):
                for one in names[number % len(names) :] + names[: number % len(names)]:
                    answers[one].append(race.run(one, asked.copies))
                    versions |= answers[one][-1].get("versions", {})
                    print(name, one, round(answers[one][-1]["epoch"], 4), round(answers[one][-1]["whole"], 2),
                          file=sys.stderr, flush=True)  # fmt: skip
            rows += rows_of(race, answers)
    report(
        "loop", rows, threads=asked.threads, copies=asked.copies, rounds=asked.rounds, epochs=epochs, rivals=versions
    )


if __name__ == "__main__":
    main()
