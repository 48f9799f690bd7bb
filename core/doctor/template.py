"""Whether a trainer could start: torch is imported in a process of its own, a child is forked and builds a model."""

import time
from collections.abc import Iterator
from typing import Any

from core.doctor.findings import Finding, error, ok
from core.errors import ChildFailed
from core.process import Limits, Template, call
from core.settings import Settings

PRELOAD = ("core.train.preload", "core.train.preflight")
ENTRY = "core.train.preflight.main"
SPEC: dict[str, Any] = {
    "data": {"train": {"type": "synthetic.classification", "samples": 64, "n_features": 4, "n_classes": 2, "seed": 1}},
    "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 2}]},
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "SGD", "lr": 0.1},
    "epochs": 1,
    "batch_size": 8,
}


def look(settings: Settings) -> Iterator[Finding]:
    """Start a template and have a child check a small spec."""
    request: dict[str, Any] = {
        "spec": SPEC,
        "datasets_dir": str(settings.torchvision_dir),
        "cache_dir": str(settings.caches),
        "uploads": {},
        "max_parameters": settings.max_parameters,
    }
    began = time.perf_counter()
    try:
        with Template(PRELOAD) as template:
            template.wait_ready()
            ready_seconds = time.perf_counter() - began
            answer = call(template, ENTRY, request, seconds=settings.preflight_seconds, limits=Limits())
    except ChildFailed as failure:
        advice = "Its own words stand above; does `python -c 'import torch, torchvision'` work here?"
        yield error("template.fork", f"No trainer could be started: {failure.detail}", advice)
        return
    seconds = time.perf_counter() - began - ready_seconds
    numbers = {"ready_seconds": ready_seconds, "child_seconds": seconds}
    if not answer["ok"]:
        words = answer["errors"][0]["detail"]
        yield error("template.fork", f"A child refused a small spec: {words}", "Report this; it is a bug.", **numbers)
        return
    found = f"torch was imported in {ready_seconds:.1f} s; a child was forked and built a model in {seconds:.2f} s."
    yield ok("template.fork", found, **numbers)
