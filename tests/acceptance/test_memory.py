"""A set larger than the memory that a trainer may have is uploaded, and a job trains on it under that limit."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.service import Service

LIMIT_BYTES = 48 << 20
"""Of private memory, on top of what importing torch takes. What reads uploads takes 27 MiB of it; 36 do not suffice."""
SET_BYTES = 3 * LIMIT_BYTES
SIDE = 128
SPEC: dict[str, Any] = {
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "SGD", "lr": 0.001},
    "epochs": 1,
    "batch_size": 64,
    "seed": 1,
    "execution": {"device": "cpu", "threads": 1},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("memory")
    with Service(folder, {"EPOCHD_TRAINER_MEMORY_BYTES": str(LIMIT_BYTES)}) as running:
        yield running


def large_images() -> bytes:
    """Return dark and bright noise, more than so many bytes of it, as a file."""
    labels = np.arange(SET_BYTES // SIDE**2) % 2
    dark = np.random.default_rng(0).integers(0, 128, (len(labels), SIDE, SIDE), np.uint8)
    file = io.BytesIO()
    np.savez(file, x=dark + 127 * labels[:, None, None].astype(np.uint8), y=labels)
    return file.getvalue()


def test_a_set_of_three_times_the_trainers_memory_trains_through_the_api(service: Service) -> None:
    content = large_images()
    assert len(content) > SET_BYTES
    answer = service.client.post("/v1/datasets", files={"file": ("large.npz", content)}, data={"format": "npz"})
    assert answer.status_code == 201, answer.text
    scale = [{"type": "ToDtype", "dtype": "float32", "scale": True}, {"type": "Normalize", "mean": [0.5], "std": [0.3]}]
    data = {
        "train": {"type": "dataset", "id": answer.json()["id"]},
        "val": {"from": "train", "fraction": 0.1},
        "transforms": {"train": [*scale, "RandomHorizontalFlip"], "eval": scale},
    }
    model = {"type": "Sequential", "layers": ["Flatten", {"type": "Linear", "out_features": 2}]}
    job = service.finish(service.submit({**SPEC, "data": data, "model": model, "metrics": ["accuracy"]})["id"])
    assert (job["status"], job["attempt"]) == ("succeeded", 1), job["error"]
    assert service.rows(job["id"])[-1]["val"]["accuracy"] > 0.99


def test_the_limit_holds_for_a_model_that_is_larger(service: Service) -> None:
    wide = {"type": "Linear", "out_features": LIMIT_BYTES // (4 * 30)}  # float32 weights of 30 features
    model = {"type": "Sequential", "layers": [wide, {"type": "Linear", "out_features": 2}]}
    data = {"train": {"type": "sklearn.breast_cancer"}, "val": {"from": "train", "fraction": 0.1}}
    job = service.finish(service.submit({**SPEC, "data": data, "model": model})["id"])
    assert job["status"] == "failed"
    assert "the last ended with 'oom'" in job["error"]["message"]
