"""Sets that are larger than the memory are read from their file, batch by batch, and train the same model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.messages import DatasetFile, Done, TrainOrder
from tests.core.train.test_run import train

MIB = 1 << 20
LIMIT = 32 * MIB
"""Of private memory, on top of what importing torch takes."""
BYTES = 3 * LIMIT
CHILD = """
import json, os, resource, sys
import core.train.preload, core.datasets.uploaded, core.datasets.arrays
import numpy as np
from core.train.run import main

class Channel:
    closed = False
    def send(self, message):
        self.last = message.model_dump(mode="json")
    def receive(self, timeout=None):
        return None

def attempt(limit, set_bytes, order):
    with open("/proc/self/statm") as statm:
        private = int(statm.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (private + limit, private + limit))
    try:
        np.ones(set_bytes // 2, dtype=np.uint8)
        raise SystemExit("the limit does not hold")
    except MemoryError:
        pass
    channel = Channel()
    main(channel, order)
    print(json.dumps(channel.last), flush=True)

limit, set_bytes, orders = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
for order in orders:  # each in a process of its own, as the service forks them
    if (pid := os.fork()) == 0:
        attempt(limit, set_bytes, order)
        os._exit(0)
    os.waitpid(pid, 0)
"""
SPEC: dict[str, Any] = {
    "data": {
        "train": {"type": "dataset", "id": "ds_1"},
        "val": {"from": "train", "fraction": 0.1},
        "preprocess": ["StandardScaler"],
    },
    "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 2}]},
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "SGD", "lr": 0.1},
    "epochs": 1,
    "batch_size": 256,
    "seed": 1,
    "evaluate_at_start": True,
    "execution": {"device": "cpu", "threads": 1},
}
SCALE = [{"type": "ToDtype", "dtype": "float32", "scale": True}]
IMAGES: dict[str, Any] = {
    **SPEC,
    "data": {
        **{key: SPEC["data"][key] for key in ("train", "val")},
        "transforms": {"train": [*SCALE, "RandomHorizontalFlip"], "eval": SCALE},
    },
    "model": {"type": "Sequential", "layers": ["Flatten", {"type": "Linear", "out_features": 2}]},
    "evaluate_at_start": False,
}


def upload(folder: Path, name: str, inputs: Any) -> dict[str, DatasetFile]:
    """Save inputs whose first number says their label."""
    flat = inputs.reshape(len(inputs), -1)
    np.savez(folder / f"{name}.npz", x=inputs, y=(flat[:, 0] > flat[:, 1]).astype(np.int64))
    return {"ds_1@1": DatasetFile(path=str(folder / f"{name}.npz"), format="npz", sha256=name)}


def order(folder: Path, name: str, spec: dict[str, Any], uploads: dict[str, DatasetFile]) -> dict[str, Any]:
    places = {"folder": str(folder / name), "cache_dir": str(folder / "cache"), "datasets_dir": str(folder)}
    return TrainOrder(job_id="job_1", attempt=1, spec=spec, datasets=uploads, **places).model_dump()


def test_sets_of_three_times_the_memory_train(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    orders = [
        order(tmp_path, "table", SPEC, upload(tmp_path, "table", draw.random((BYTES // 1024, 256), dtype=np.float32))),
        order(
            tmp_path, "images", IMAGES, upload(tmp_path, "images", draw.integers(0, 256, (BYTES // 4096, 64, 64), "u1"))
        ),
    ]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(LIMIT), str(BYTES), json.dumps(orders)],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    table, images = map(json.loads, child.stdout.splitlines())
    assert (table["type"], images["type"]) == ("done", "done"), child.stdout + child.stderr
    sizes = [path.stat().st_size for path in (tmp_path / "cache" / "data").glob("*/inputs.npy")]
    assert sorted(size // MIB for size in sizes) == [BYTES // MIB] * 3  # both sets, and one standardised


@pytest.mark.parametrize(
    "data",
    [
        {"train": {"type": "sklearn.digits"}, "preprocess": ["MinMaxScaler", "MaxAbsScaler"]},
        {"train": {"type": "sklearn.digits"}, "preprocess": [{"type": "PolynomialFeatures", "columns": ["pixel_0_3"]}]},
        {"train": {"type": "sklearn.digits", "as": "image"}, "transforms": {"train": SCALE, "eval": SCALE}},
    ],
)
def test_reading_from_the_file_gives_the_same_model(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"type": "Sequential", "layers": ["Flatten", {"type": "Linear", "out_features": 10}]}
    spec = {**SPEC, "model": model, "data": {**data, "val": {"from": "train", "fraction": 0.1}}}
    digests: list[dict[str, str]] = []
    for name, room in (("memory", 1 << 30), ("file", 0)):
        for module in ("core.train.sets", "core.train.feeding", "core.datasets.preprocess"):
            monkeypatch.setattr(f"{module}.room_bytes", lambda room=room: room)
        monkeypatch.setattr("core.datasets.preprocess.CHUNK_NUMBERS", 64 * 500)
        last = train(spec, tmp_path / name / "1").last
        assert isinstance(last, Done), last
        digests.append({file.name: file.sha256 for file in last.artifacts})
    assert digests[0] == digests[1]
