"""Derives the catalog of components from torch, torchvision and scikit-learn.

`python -m core.train.catalog` writes `core/spec/catalog.json`; `--check` compares it with what is installed. The
signatures are facts of those libraries; what is written by hand here is only what no signature says: which sizes are
inferred, what a spec cannot use and why, and our own components.
"""

import json
from importlib.metadata import version
from typing import Any

PACKAGES = ("scikit-learn", "torch", "torchvision")


def installed() -> dict[str, str]:
    """Return the installed versions, major and minor, by package."""
    return {package: ".".join(version(package).split(".")[:2]) for package in PACKAGES}


def derive() -> dict[str, Any]:
    """Return the catalog of what is installed."""
    from core.train.catalog import ours, torch_parts, vision

    return {
        "versions": installed(),
        "kinds": {
            "layers": {**torch_parts.layers(), **ours.layers()},
            "losses": torch_parts.losses(),
            "optimizers": torch_parts.optimizers(),
            "lr_schedulers": torch_parts.lr_schedulers(),
            "initializers": torch_parts.initializers(),
            "transforms": vision.transforms(),
            "metrics": ours.metrics(),
            "models": {**ours.models(), **vision.models()},
            "data_sources": ours.data_sources(),
            "preprocess": ours.preprocess(),
        },
    }


def text(catalog: dict[str, Any]) -> str:
    """Return the catalog as it is committed: sorted, one entry a line, so that differences are readable."""
    lines = ["{", f'"versions": {_compact(catalog["versions"])},', '"kinds": {']
    kinds = list(catalog["kinds"].items())
    for number, (kind, table) in enumerate(kinds, start=1):
        rows = [f"{json.dumps(name)}: {_compact(table[name])}" for name in sorted(table)]
        lines += [f"{json.dumps(kind)}: {{", ",\n".join(rows), "}" if number == len(kinds) else "},"]
    return "\n".join([*lines, "}", "}", ""])


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
