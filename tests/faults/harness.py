"""What fault tests share: a job that takes a while, and the processes and rows of its attempts."""

import contextlib
from typing import Any

import psutil

from tests.faults.watching import Poller
from tests.service import Service, trainers_of, wait_until

__all__ = ["EPOCHS", "MODEL", "SPEC", "Poller", "attempts", "trainers", "wait_for_epochs"]

EPOCHS = 14
SPEC: dict[str, Any] = {
    "name": "disturbed",
    "data": {
        "train": {"type": "synthetic.classification", "samples": 1500, "n_features": 20, "n_classes": 2, "seed": 1},
        "val": {"from": "train", "fraction": 0.2, "stratify": True},
        "preprocess": ["StandardScaler"],
    },
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Linear", "out_features": 32},
            "BatchNorm1d",
            "ReLU",
            {"type": "Dropout", "p": 0.3},
            {"type": "Linear", "out_features": 2},
        ],
    },
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "AdamW", "lr": 0.001},
    "lr_scheduler": {"type": "CosineAnnealingLR", "T_max": "epochs"},
    "gradient_clipping": {"max_norm": 1.0},
    "epochs": EPOCHS,
    "batch_size": 4,
    "checkpoints": {"every": {"epochs": 1}},
    "seed": 11,
    "execution": {"device": "cpu", "threads": 1},
}
"""Dropout, BatchNorm, an optimizer and a scheduler with state: whatever is not restored changes the weights."""
MODEL = "model.safetensors"


def trainers(service: Service, name: str = "worker-0") -> list[psutil.Process]:
    """Return the trainers of a worker that may just have ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return trainers_of(service.processes[name].pid)
    return []


def wait_for_epochs(service: Service, job_id: str, epochs: int) -> None:
    """Wait until so many epochs are published, while the job runs."""

    def has_come() -> bool:
        job = service.job(job_id)
        assert not job["is_terminal"], f"it ended before epoch {epochs}: {job}"
        return len(service.rows(job_id)) >= epochs

    wait_until(has_come, pause=0.02)


def attempts(service: Service, job_id: str) -> list[dict[str, Any]]:
    """Return the attempts of a job."""
    return list(service.client.get(f"/v1/jobs/{job_id}/attempts").json()["data"])
