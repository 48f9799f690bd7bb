"""How long a user waits: preflight, and POST to the end of a short job, on a warm embedded service.

    .venv/bin/python bench/start.py [--jobs 40]

The rival is what a service without a warm template does: a fresh Python process for each job that imports torch and
trains the same model with a plain loop. Both take turns; medians count.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parents[1]
EXAMPLES = ("digits-early-stopping", "diabetes-regression", "cnn-augmented", "resnet18-digits")
FRESH = """
import torch
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(7)
x, y = load_digits(return_X_y=True)
x, y = torch.from_numpy(StandardScaler().fit_transform(x)).float(), torch.from_numpy(y)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
optimizer, loss_fn = torch.optim.Adam(model.parameters(), lr=0.003), nn.CrossEntropyLoss()
for epoch in range(5):
    for batch in torch.randperm(1258).split(64):
        optimizer.zero_grad()
        loss_fn(model(x[batch]), y[batch]).backward()
        optimizer.step()
"""


@contextmanager
def service() -> Iterator[httpx2.Client]:
    """Start `epochd up` on a folder of its own; its worker is warm when the block begins."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "epochd", "up", "--port", "0", "--data-dir", folder]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:
            try:
                assert up.stdout
                url = next(found[1] for line in up.stdout if (found := re.search(r"ready at (\S+)", line)))
                with httpx2.Client(base_url=url, timeout=120, trust_env=False) as client:
                    finish(client, short())
                    yield client
            finally:
                up.terminate()
                up.communicate()


def example(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "examples" / f"{name}.json").read_text()))


def short() -> dict[str, Any]:
    """The digits job with 5 epochs."""
    spec = example("digits-early-stopping") | {"epochs": 5}
    del spec["early_stopping"]
    return spec


def finish(client: httpx2.Client, spec: dict[str, Any]) -> None:
    job = client.post("/v1/jobs", json=spec).raise_for_status().json()
    while not job["is_terminal"]:
        job = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
        time.sleep(0.005)
    if job["status"] != "succeeded":
        raise RuntimeError(job["error"])


def seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def row(name: str, values: list[float]) -> dict[str, Any]:
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return {"what": name, "runs": len(values), "p50": round(statistics.median(values), 4), "p99": round(p99, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40)
    jobs = parser.parse_args().jobs
    fresh = [sys.executable, "-c", FRESH]
    ours: list[float] = []
    theirs: list[float] = []
    rows: list[dict[str, Any]] = []
    with service() as client:
        for number in range(jobs):
            ours.append(seconds(lambda: finish(client, short())))
            if number % 8 == 0:
                theirs.append(seconds(lambda: subprocess.run(fresh, check=True)))
        for name in EXAMPLES:
            check = partial(client.post, "/v1/preflight", json=example(name))
            rows.append(row(f"preflight {name}", [seconds(check) for _ in range(20)]))
    rows += [row("POST to terminal, digits, 5 epochs", ours), row("fresh process, same training", theirs)]
    ratio = statistics.median(theirs) / statistics.median(ours)
    print(json.dumps({"rows": rows, "fresh_process_over_ours": round(ratio, 1)}, indent=2))


if __name__ == "__main__":
    main()
