"""What each rival is told, and what it answers: a job as JSON on its command line, a line of JSON at its end.

The samples lie ready in a file: reading data costs a rival nothing that it could do better.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, the same for all."""

    name: str
    data: str
    """An .npz with x_train[N, ...], y_train[N], x_val[M, ...], y_val[M]; images are uint8."""
    weights: str
    """Where the trained weights go."""
    epochs: int
    threads: int
    batch_size: int
    optimizer: str
    lr: float
    patience: int = 100
    """Of early stopping on the validation loss; it looks at every epoch and never has to stop."""
    seed: int = 0


def given() -> Job:
    """Return the job on the command line."""
    return Job(**json.loads(sys.argv[1]))


def raw(job: Job) -> list[np.ndarray]:
    """Return x_train, y_train, x_val, y_val as they were stored."""
    with np.load(job.data) as data:
        return [data[name] for name in ("x_train", "y_train", "x_val", "y_val")]


def arrays(job: Job) -> list[np.ndarray]:
    """Return the same with pixels as float32 from -1 to 1."""
    return [(part.astype(np.float32) / 255 - 0.5) / 0.5 if part.dtype == np.uint8 else part for part in raw(job)]


@dataclass
class Watch:
    """Measures epochs: training, its metrics, validation and the decision to go on."""

    began: float = field(default_factory=time.perf_counter)
    epochs: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.began = time.perf_counter()

    def lap(self) -> None:
        """Note that an epoch is over, and the next begins."""
        now = time.perf_counter()
        self.epochs.append(now - self.began)
        self.began = now


def answer(watch: Watch, val_accuracy: float, save: Callable[[], object], *packages: str) -> None:
    """Write the weights, and tell what was measured."""
    save()
    done = time.monotonic()  # one clock for all processes of a machine
    versions = {package: version(package) for package in packages}
    print(json.dumps({"epochs": watch.epochs, "done": done, "val_accuracy": val_accuracy, "versions": versions}))
