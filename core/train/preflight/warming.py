"""What a child does that is forked before its request comes: some dry checks, so that its pages are its own by then.

A page that a child shares with its template is copied when it is first written, and counting references writes. The
checks run on the meta device, of sets that nobody looks up: no file is read, no environment variable, no random number
drawn, no operator computes, no thread starts.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.channel import encode
from core.datasets import Facts, Preprocessor, Samples
from core.spec import parse_object
from core.spec import warnings as spec_warnings
from core.spec.job import Component
from core.train import build
from core.train.build import vision
from core.train.build.inference import on_meta
from core.train.components import component_of
from core.train.preflight.checking import judge
from core.train.preflight.data import Described
from core.train.preflight.report import Findings
from core.train.sets import Places

TO_FLOAT = [{"type": "ToDtype", "dtype": "float32", "scale": True}, {"type": "Normalize", "mean": [0.5], "std": [0.5]}]
ENLARGED = [{"type": "RGB"}, {"type": "Resize", "size": [32, 32], "antialias": True}, *TO_FLOAT]
TABLE = {
    "data": {"train": {"type": "sklearn.digits"}, "val": {"from": "train", "fraction": 0.2, "stratify": True}},
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Linear", "out_features": 8}, "BatchNorm1d", "ReLU", {"type": "Dropout", "p": 0.1},
            {"type": "Linear", "out_features": 10},
        ],
    },
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "Adam", "lr": 0.001},
    "early_stopping": {"monitor": "val_loss", "patience": 3},
    "epochs": 1,
    "batch_size": 64,
    "seed": 1,
}  # fmt: skip
IMAGES = {
    **TABLE,
    "data": {
        "train": {"type": "sklearn.digits", "as": "image"},
        "val": {"from": "train", "fraction": 0.2},
        "transforms": {"train": TO_FLOAT, "eval": TO_FLOAT},
    },
    "model": {
        "type": "Sequential",
        "weight_init": {"type": "kaiming_normal_", "nonlinearity": "relu"},
        "layers": [
            {"type": "Conv2d", "out_channels": 4, "kernel_size": 3, "padding": 1}, "BatchNorm2d", "ReLU",
            {"type": "MaxPool2d", "kernel_size": 2},
            {
                "type": "ext.Residual",
                "layers": [{"type": "Conv2d", "out_channels": 8, "kernel_size": 1, "bias": False}, "BatchNorm2d"],
                "shortcut": [{"type": "Conv2d", "out_channels": 8, "kernel_size": 1}],
            },
            {"type": "AdaptiveAvgPool2d", "output_size": 1}, "Flatten", {"type": "Linear", "out_features": 10},
        ],
    },
    "loss": {"type": "CrossEntropyLoss", "label_smoothing": 0.05},
    "optimizer": {"type": "AdamW", "lr": 0.001},
    "lr_scheduler": {
        "type": "SequentialLR",
        "schedulers": [{"type": "LinearLR", "total_iters": 1}, {"type": "CosineAnnealingLR", "T_max": "epochs"}],
        "milestones": [1],
    },
    "epochs": 2,
    "gradient_clipping": {"max_norm": 1.0},
    "ema": {"decay": 0.99},
    "metrics": ["accuracy", {"type": "f1", "average": "macro"}, "confusion_matrix"],
}  # fmt: skip
NUMBERS = {
    **TABLE,
    "data": {"train": {"type": "sklearn.diabetes"}, "val": {"from": "train", "fraction": 0.2}},
    "model": {
        "type": "Sequential",
        "weight_init": "xavier_uniform_",
        "bias_init": "zeros_",
        "layers": [{"type": "Linear", "out_features": 8}, "Tanh", {"type": "Linear", "out_features": 1}],
    },
    "loss": [{"type": "MSELoss", "coefficient": 0.5}, {"type": "SmoothL1Loss", "coefficient": 0.5}],
    "regularization": {"l1": 1e-6, "l2": 1e-4, "exclude": ["bias"]},
    "optimizer": {"type": "RMSprop", "lr": 0.001, "momentum": 0.9},
    "lr_scheduler": {"type": "ReduceLROnPlateau", "monitor": "val_loss", "factor": 0.5, "patience": 5},
    "early_stopping": {"monitor": "val_rmse", "patience": 3, "min_delta": 0.001, "min_delta_mode": "rel"},
    "metrics": ["mae", "rmse", "r2"],
}
VISION = {
    **TABLE,
    "data": {
        "train": {"type": "sklearn.digits", "as": "image"},
        "val": {"from": "train", "fraction": 0.2, "stratify": True},
        "max_samples": 600,
        "transforms": {"train": ENLARGED, "eval": ENLARGED},
    },
    "model": {"type": "torchvision.resnet18", "num_classes": 10, "freeze": ["layer1"]},
    "optimizer": {
        "type": "SGD",
        "lr": 0.02,
        "momentum": 0.9,
        "nesterov": True,
        "param_groups": [{"match": "^fc", "lr": 0.05}],
    },
    "lr_scheduler": {"type": "OneCycleLR", "max_lr": 0.05, "total_steps": "steps", "interval": "step"},
    "metrics": ["accuracy"],
}
REST_SECONDS = 0.2
"""Before what not every check touches: it would take the processors from specs that come one behind the other."""
RANDOM = [
    {"type": "RandomAffine", "degrees": 10, "translate": [0.1, 0.1], "scale": [0.9, 1.1]},
    {"type": "RandomCrop", "size": 8, "padding": 1}, "RandomHorizontalFlip", {"type": "GaussianNoise", "sigma": 0.02},
]  # fmt: skip
"""Built only: they would draw."""
OF_NUMBERS: dict[str, Any] = {
    "target_dtype": "float32", "classes": None, "class_counts": None, "label_min": None, "label_max": None,
}  # fmt: skip
NOWHERE = Places(Path("/dev/null"), Path("/dev/null"), {})
"""A check that looked something up would fail."""


def table() -> Iterator[float]:
    """Warm up for a table, in steps of some milliseconds (`core.spare.WarmUp`): what every job touches, and no more."""
    yield from _check(TABLE, _facts("table", (64,), "float32"))
    rows = Samples(np.ones((4, 2), np.float32), np.zeros(4, np.int64), ["a", "b"], ["target"], ["0"])
    Preprocessor.fit([Component(type="StandardScaler")], rows, np.arange(4))
    yield 0.0


def table_and_images() -> Iterator[float]:
    """Warm up for images, numbers and a large model too: what the examples touch."""
    yield from table()
    yield from _check(IMAGES, _facts("image", (1, 8, 8), "uint8"))
    yield REST_SECONDS
    build.transforms(RANDOM)
    yield 0.0
    with on_meta():
        vision.build(component_of(VISION["model"]), outputs=10)
    yield 0.0
    yield from _check(VISION, _facts("image", (1, 8, 8), "uint8"))
    yield from _check(NUMBERS, replace(_facts("table", (10,), "float32"), **OF_NUMBERS))


def _check(spec: dict[str, Any], facts: Facts) -> Iterator[float]:
    """Check a spec of a set that is not there."""
    parsed = parse_object(spec)
    yield 0.0
    with torch.device("meta"):  # what a check computes of real numbers it only follows here
        report = judge(Findings(spec_warnings(parsed)), parsed, Described(facts, None, None), NOWHERE, 1 << 30)
    encode(report.as_json())
    yield 0.0


def _facts(kind: Any, sample_shape: tuple[int, ...], dtype: str) -> Facts:
    """Return what could be known of digits."""
    return Facts(
        kind=kind,
        samples=1000,
        sample_shape=sample_shape,
        dtype=dtype,
        target_shape=(),
        target_dtype="int64",
        classes=[str(label) for label in range(10)],
        class_counts=[100] * 10,
        label_min=0,
        label_max=9,
        feature_names=[f"pixel_{number}" for number in range(64)] if kind == "table" else [],
        target_names=["target"],
        categories={},
        missing={},
        digest="0" * 64,
    )
