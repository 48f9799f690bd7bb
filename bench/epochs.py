"""What checkpoints and published rows cost a job, and whether its thousandth epoch costs more than its first.

    .venv/bin/python -m bench.epochs [--jobs short,long,large] [--threads 2] [--rounds 5] [--quick]

Jobs: `short` has 1,000 epochs of about 5 ms, `long` 12 of about 0.5 s; `large` is resnet18, of which a checkpoint has
171 MiB, with epochs as short as they get. Each is trained with `checkpoints.every` as it is (`auto`), after each epoch
(`each`), and with one checkpoint at the end (`off`), by the trainer as a worker runs it, in a process of its own; they
take turns.

A share is what of the time would not be there without checkpoints: 1 - off / with them. The time of `off` is that of
its epochs; the others' ends with the last publication. Processor time counts all threads and, of `off` too, the last
checkpoint; on a machine that does other things, trust it more. Beside the trainer a worker writes each publication to
its database: that is not in here.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from bench.loop import DIGITS, FLOAT
from bench.measuring import arguments, report
from core.process import FORCED_VARIABLES
from tests.service import ROOT

EVERY: dict[str, Any] = {"off": {"epochs": 10_000_000}, "auto": "auto", "each": {"epochs": 1}}
EPOCHS = {"short": 1000, "long": 12, "large": 12}
QUICK = {"short": 100, "long": 3, "large": 3}
ASKED = {("short", "auto"): 0.30, ("long", "auto"): 0.05}
"""The largest share that was asked for."""
FIRST = 10
"""Epochs that are not looked at: a tape is recorded in them."""


def specs() -> dict[str, dict[str, Any]]:
    """Return the jobs."""
    resnet = {"type": "torchvision.resnet18", "num_classes": 10}
    colors = [{"type": "RGB"}, {"type": "Resize", "size": [32, 32], "interpolation": "nearest"}, FLOAT]
    return {
        "short": {"data": {"train": _made(1_600, 30)}, "model": _perceptron(64)},
        "long": {"data": {"train": _made(20_000, 64)}, "model": _perceptron(256)},
        "large": {
            "data": {"train": DIGITS, "max_samples": 110, "transforms": {"train": colors, "eval": colors}},
            "model": resnet,
        },
    }


def _made(samples: int, features: int) -> dict[str, Any]:
    made = {"samples": samples, "n_features": features, "n_informative": 12, "seed": 1}
    return {"type": "synthetic.classification", **made}


def _perceptron(width: int) -> dict[str, Any]:
    hidden = {"type": "Linear", "out_features": width}
    return {"type": "Sequential", "layers": [hidden, "ReLU", hidden, "ReLU", {"type": "Linear", "out_features": 2}]}


def run(spec: dict[str, Any], folder: str, threads: int) -> dict[str, Any]:
    """Have it trained in a process of its own; return its answer."""
    asked = {"spec": spec, "cache_dir": folder, "datasets_dir": folder}
    environment = {"OMP_NUM_THREADS": str(threads), **FORCED_VARIABLES}
    command = [sys.executable, "-m", "bench.ours", json.dumps(asked)]
    ended = subprocess.run(command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"training failed:\n{ended.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def growth(epochs: Sequence[float]) -> float:
    """Return how many times as long the last tenth of the epochs takes as the first."""
    count = max(1, len(epochs) // 10)
    steady = epochs[FIRST:] if len(epochs) > 2 * FIRST else epochs
    return statistics.median(steady[-count:]) / statistics.median(steady[:count])


def row_of(job: str, every: str, rounds: list[dict[str, Any]], off: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is told of a job with these checkpoints; `off` are its rounds without."""
    row: dict[str, Any] = {
        "job": job,
        "checkpoints": every,
        "epoch ms": round(1000 * statistics.median(statistics.median(one["epochs"]) for one in rounds), 2),
        "publications": statistics.median(one["publications"] for one in rounds),
        "last / first epochs": round(statistics.median(growth(one["epochs"]) for one in rounds), 2),
    }
    if every == "off":
        return row
    wall = [1 - sum(one["epochs"]) / mine["run"] for one, mine in zip(off, rounds, strict=True)]
    cpu = [1 - one["run_cpu"] / mine["run_cpu"] for one, mine in zip(off, rounds, strict=True)]
    for name, shares in (("share", wall), ("share of processor time", cpu)):
        row[name] = round(statistics.median(shares), 3)
        row[f"{name}, least-most"] = f"{min(shares):.3f}-{max(shares):.3f}"
    return row | {"asked for": ASKED.get((job, every), "")}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--jobs", type=lambda text: text.split(","), default=list(EPOCHS))
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds = 1
    epochs = QUICK if asked.quick else EPOCHS
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="epochd-epochs-") as folder:
        for job in asked.jobs:
            spec = specs()[job] | {
                "loss": "CrossEntropyLoss", "optimizer": "Adam", "batch_size": 64, "epochs": epochs[job], "seed": 0,
                "metrics": ["accuracy"], "execution": {"device": "cpu", "threads": asked.threads},
            }  # fmt: skip
            spec["data"]["val"] = {"from": "train", "fraction": 0.1}
            found: dict[str, list[dict[str, Any]]] = {every: [] for every in EVERY}
            for number in range(asked.rounds):
                turn = number % len(EVERY)
                for every in [*EVERY][turn:] + [*EVERY][:turn]:
                    found[every].append(run(spec | {"checkpoints": {"every": EVERY[every]}}, folder, asked.threads))
                    print(job, every, round(found[every][-1]["run"], 2), file=sys.stderr, flush=True)
            rows += [row_of(job, every, rounds, found["off"]) for every, rounds in found.items()]
    report("epochs", rows, threads=asked.threads, rounds=asked.rounds, epochs=epochs)


if __name__ == "__main__":
    main()
