# ruff: noqa: INP001 - a script, no package
"""Forecast an hourly series: make a table, upload it, train an LSTM on windows of a day.

python examples/series.py    # on the service at EPOCHD_URL, or http://127.0.0.1:8000
"""

import math
import os
import random
import sys
from typing import Any

import httpx2

from epochd.client import DEFAULT_URL, Client

DAYS = 60


def table(days: int = DAYS) -> str:
    """Return hourly load and temperature as CSV: a day's rhythm, a week's, and chance."""
    draw = random.Random(3)  # noqa: S311 - made-up data
    rows = ["hour,load,temperature"]
    for hour in range(24 * days):
        phase = 2 * math.pi * hour / 24
        temperature = 15 - 6 * math.cos(phase) + draw.gauss(0, 0.5)
        load = 300 + 80 * math.sin(phase - 1.2) + (40 if hour // 24 % 7 < 5 else 0) + draw.gauss(0, 6)
        rows.append(f"{hour},{load:.1f},{temperature:.2f}")
    return "\n".join(rows) + "\n"


def spec(dataset: str) -> dict[str, Any]:
    """Return the job: the next hour's load from the load and the temperature of the 24 hours before it."""
    return {
        "name": "load-forecast",
        "data": {
            "train": {"type": "dataset", "id": dataset, "window": {"length": 24, "stride": 1, "horizon": 1}},
            "val": {"from": "train", "fraction": 0.2},
            "columns": {"order_by": "hour", "target": "load", "features": ["load", "temperature"]},
            "preprocess": ["StandardScaler", {"type": "StandardScaler", "columns": ["target"]}],
        },
        "model": {
            "type": "Sequential",
            "layers": [
                {"type": "LSTM", "hidden_size": 32, "batch_first": True},
                "ext.LastTimestep",
                {"type": "Linear", "out_features": 1},
            ],
        },
        "loss": "MSELoss",
        "optimizer": {"type": "Adam", "lr": 0.01},
        "epochs": 12,
        "batch_size": 64,
        "metrics": ["mae", "r2"],
        "seed": 4,
    }


def upload(url: str, name: str, kind: str, content: str) -> str:
    """Send a file; return the data set's id."""
    key = os.environ.get("EPOCHD_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx2.post(
        f"{url}/v1/datasets", headers=headers, files={"file": (name, content)}, data={"format": kind, "name": name}
    )
    answer.raise_for_status()
    return str(answer.json()["id"])


def main() -> int:
    """Upload, train, say how good it became."""
    url = os.environ.get("EPOCHD_URL", DEFAULT_URL)
    dataset = upload(url, "load.csv", "csv", table())
    with Client(url) as client:
        job = client.wait(client.submit(spec(dataset))["id"])
        *_, row = client.metrics(job["id"])
    sys.stdout.write(f"{job['status']}: next hour's load within {row['val']['mae']:.1f} (R² {row['val']['r2']:.3f})\n")
    return 0 if job["status"] == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main())
