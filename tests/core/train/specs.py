"""Specs as small as they can be, and preflight over them."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch

from core.errors import Issue
from core.spec import parse_object
from core.train import preflight
from core.train.preflight import Report

EXAMPLES = Path(__file__).parents[3] / "examples"
DIGITS: dict[str, Any] = {
    "data": {"train": {"type": "sklearn.digits"}, "val": {"from": "train", "fraction": 0.2}},
    "model": {
        "type": "Sequential",
        "layers": [{"type": "Linear", "out_features": 32}, "ReLU", {"type": "Linear", "out_features": 10}],
    },
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "SGD", "lr": 0.1},
    "epochs": 3,
    "batch_size": 64,
    "seed": 1,
}
IMAGES: dict[str, Any] = {
    **DIGITS,
    "data": {
        "train": {"type": "sklearn.digits", "as": "image"},
        "val": {"from": "train", "fraction": 0.2},
        "transforms": {
            "train": [{"type": "ToDtype", "dtype": "float32", "scale": True}],
            "eval": [{"type": "ToDtype", "dtype": "float32", "scale": True}],
        },
    },
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Conv2d", "out_channels": 4, "kernel_size": 3},
            "ReLU",
            "Flatten",
            {"type": "Linear", "out_features": 10},
        ],
    },
}
DIABETES: dict[str, Any] = {
    **DIGITS,
    "data": {"train": {"type": "sklearn.diabetes"}, "val": {"from": "train", "fraction": 0.2}},
    "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 1}]},
    "loss": "MSELoss",
}


def example(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    return body


def changed(body: dict[str, Any], *operations: tuple[str, str, Any]) -> dict[str, Any]:
    """Return a copy with `(op, path, value)` of JSON Patch applied."""
    patch = [{"op": op, "path": path, "value": value} for op, path, value in operations]
    made: dict[str, Any] = jsonpatch.apply_patch(copy.deepcopy(body), patch)
    return made


def mended(body: dict[str, Any], issue: Issue) -> dict[str, Any]:
    """Return a copy with the issue's fix applied."""
    made: dict[str, Any] = jsonpatch.apply_patch(copy.deepcopy(body), list(issue.fix or ()))
    return made


def checked(
    body: dict[str, Any], cache: Path, *, max_parameters: int = 10**9, datasets_dir: Path | None = None
) -> Report:
    return preflight.check(
        parse_object(body),
        datasets_dir=datasets_dir or cache / "datasets",
        cache_dir=cache,
        uploads={},
        max_parameters=max_parameters,
    )
