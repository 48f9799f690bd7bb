"""What fault tests share: a job that takes a while, a poller that trusts nothing, and the trainers' processes."""

import contextlib
import threading
import time
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil

from tests.service import TERMINAL, Service, wait_until

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
    """Return the trainers of a worker: the children of its template."""
    with contextlib.suppress(psutil.NoSuchProcess):
        worker = psutil.Process(service.processes[name].pid)
        return [trainer for template in worker.children() for trainer in template.children()]
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


def resumes(service: Service, job_id: str) -> int:
    """Count the attempts that went on from a checkpoint."""
    return sum(attempt["from_epoch"] > 0 for attempt in attempts(service, job_id))


def assert_undisturbed(service: Service, job_id: str, model: bytes) -> None:
    """Check that a job ended as if nothing had happened."""
    job = service.finish(job_id)
    assert job["status"] == "succeeded", (job["error"], attempts(service, job_id), service.log("worker-0"))
    assert [row["epoch"] for row in service.rows(job_id)] == list(range(1, EPOCHS + 1))
    assert service.artifact(job_id, MODEL) == model


class Poller:
    """Polls a job all the time and notes whatever was taken back."""

    def __init__(self, service: Service, job_id: str) -> None:
        self._url = f"{service.url}/v1/jobs/{job_id}"
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self.rows: dict[int, dict[str, Any]] = {}
        self.partial_looks = 0
        """Looks at a job that had some rows, but not all."""
        self.violations: list[str] = []
        self._status = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _poll(self) -> None:
        with httpx2.Client(timeout=10, trust_env=False) as client:
            is_last = False
            while not is_last:
                is_last = self._is_over.is_set()  # one more look at what came last
                with contextlib.suppress(httpx2.TransportError):
                    self._look(client)
                time.sleep(0.05)

    def _look(self, client: httpx2.Client) -> None:
        job = client.get(self._url)
        answer = client.get(f"{self._url}/metrics", params={"limit": 10000})
        if 503 in (job.status_code, answer.status_code):
            return
        status = job.json()["status"]
        if self._status in TERMINAL and status != self._status:
            self.violations.append(f"{self._status} became {status}")
        self._status = status
        self._compare(answer.json()["data"])

    def _compare(self, rows: list[dict[str, Any]]) -> None:
        if len(rows) < len(self.rows):
            self.violations.append(f"{len(self.rows)} rows became {len(rows)}")
        self.partial_looks += 0 < len(rows) < EPOCHS
        for row in rows:
            if self.rows.setdefault(row["epoch"], row) != row:
                self.violations.append(f"row {row['epoch']} changed")
