"""Scripts of jobs on uploads read the uploaded file, and refuse any other."""

import csv
import gzip
import hashlib
import io
import json
import math
import os
import random
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.code import CodeRefused, Upload, script
from core.datasets import profile
from core.messages import DatasetFile
from tests.core.code.scripts import Runner, Trained, assert_repeats
from tests.core.code.varieties import FLOAT, IMAGES, IRIS, MOONS
from tests.stripes import striped

KEY = "ds_1@1"
SOURCE: dict[str, Any] = {"type": "dataset", "id": "ds_1", "version": 1}
ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("EPOCHD_TEST_DATA", ROOT.parent / "shared" / "data"))


def flowers() -> bytes:
    """Numbers, words, numbers that are categories, gaps, truth values, groups, and a target in words."""
    draw = random.Random(5)
    text = io.StringIO()
    table = csv.writer(text, delimiter=";")
    table.writerow(["length", " width", "petals", "colour", "scented", "bed", "kind"])
    for row in range(120):
        length, colour = draw.uniform(0, 10), draw.choice(["red", "wh;ite", "blue"])
        kind = "rose" if colour == "red" else ("tulip" if length > 5 else "daisy")
        width = "NA" if row % 7 == 0 else f" {draw.uniform(0, 4):.3f}"
        table.writerow(
            [f"{length:.3f}", width, draw.choice([3, 5, 8]), colour, draw.choice(["True", "false"]), row // 4, kind]
        )
    return text.getvalue().encode()


def arrays() -> bytes:
    generator = np.random.default_rng(1)
    packed = io.BytesIO()
    x = generator.normal(size=(90, 5)).astype(np.float64)
    np.savez(packed, features=x, target=np.where(x[:, 0] > 0, "yes", "no"))
    return packed.getvalue()


def digits() -> bytes:
    generator = np.random.default_rng(2)
    images = generator.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = (images.mean(axis=(1, 2)) > 127).astype(np.uint8)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("images.idx", struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes())
        archive.writestr("labels.idx.gz", gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 60) + labels.tobytes()))
    return packed.getvalue()


TABLE: dict[str, Any] = {
    **IRIS,
    "data": {
        "train": SOURCE,
        "val": {"from": "train", "fraction": 0.2},
        "columns": {"target": "kind", "categorical": ["petals"], "group_by": "bed"},
        "preprocess": [
            "SimpleImputer",
            {"type": "OneHotEncoder", "columns": ["colour"]},
            "OrdinalEncoder",
            {"type": "MinMaxScaler", "columns": ["length", "width"]},
            "StandardScaler",
        ],
    },
    "batch_size": 16,
    "metrics": ["accuracy", "f1"],
}
PICTURES: dict[str, Any] = {
    **IMAGES,
    "model": {
        "type": "Sequential",
        "layers": [*IMAGES["model"]["layers"][:-1], {"type": "Linear", "out_features": 2}],
    },
    "data": {
        "train": SOURCE,
        "val": {"from": "train", "fraction": 0.2, "stratify": True},
        "transforms": {"train": [FLOAT], "eval": [FLOAT]},
    },
}


def series() -> bytes:
    """Waves of two stations, in no order, with a word for the station."""
    rows = [f"{t},{station},{math.sin(t / 3) + at:.6f},{t % 7}\n" for t in range(40) for at, station in enumerate("pq")]
    random.Random(7).shuffle(rows)
    return ("hour,station,level,day\n" + "".join(rows)).encode()


def sentences() -> bytes:
    """Ids whose first says the class, which is a word."""
    draw = random.Random(8)
    lines = [[draw.randrange(9) for _ in range(draw.randrange(2, 7))] for _ in range(70)]
    return "".join(
        json.dumps({"ids": ids, "target": "high" if ids[0] > 4 else "low"}) + "\n\n" for ids in lines
    ).encode()


def paths() -> bytes:
    """Vectors with a number each."""
    draw = random.Random(9)
    lines = [[[draw.gauss(0, 1), draw.randrange(3)] for _ in range(draw.randrange(2, 6))] for _ in range(60)]
    return "\n".join(json.dumps({"vectors": path, "target": path[0][0] * 2}) for path in lines).encode()


SERIES: dict[str, Any] = {
    **MOONS,
    "data": {
        "train": {**SOURCE, "window": {"length": 4, "stride": 2, "horizon": 2}},
        "val": {"from": "train", "fraction": 0.2},
        "test": {"from": "train", "fraction": 0.1},
        "columns": {"target": "level", "features": ["level", "day"], "order_by": "hour"},
    },
    "model": {
        "type": "Sequential",
        "layers": [{"type": "GRU", "hidden_size": 4, "batch_first": True}, "ext.LastTimestep",
                   {"type": "Linear", "out_features": 1}],
    },
    "loss": "MSELoss",
    "epochs": 2,
}  # fmt: skip
SENTENCES: dict[str, Any] = {
    **MOONS,
    "data": {"train": {**SOURCE, "length": 5}, "val": {"from": "train", "fraction": 0.2}, "max_samples": 60},
    "model": {
        "type": "Sequential",
        "layers": [{"type": "Embedding", "num_embeddings": 9, "embedding_dim": 4}, "Flatten",
                   {"type": "Linear", "out_features": 2}],
    },
    "metrics": ["accuracy", "f1"],
    "epochs": 2,
}  # fmt: skip
OTHER = {**SOURCE, "id": "ds_2"}
UPLOADS: dict[str, tuple[str, dict[str, Any], list[bytes]]] = {
    "csv": ("csv", TABLE, [flowers()]),
    "csv with a validation set of its own": (
        "csv",
        {**TABLE, "data": {**TABLE["data"], "val": OTHER}},
        [flowers(), b"\n".join(flowers().splitlines()[:80])],
    ),
    "npz": ("npz", {**MOONS, "data": {**MOONS["data"], "train": SOURCE, "max_samples": 70}}, [arrays()]),
    "images": ("images", PICTURES, [striped(60, within="all/")]),
    "idx": ("idx", PICTURES, [digits()]),
    "windows": (
        "csv",
        {**SERIES, "data": {**SERIES["data"], "preprocess": ["StandardScaler"], "max_samples": 30}},
        [series()],
    ),
    "windows of several series": (
        "csv",
        {
            **SERIES,
            "data": {
                **SERIES["data"],
                "columns": {**SERIES["data"]["columns"], "group_by": "station"},
                "preprocess": [
                    {"type": "OneHotEncoder", "columns": ["day"]},
                    {"type": "StandardScaler", "columns": ["level"]},
                    {"type": "MinMaxScaler", "columns": ["target"]},
                ],
            },
        },
        [series()],
    ),
    "windows with a validation set of its own": (
        "csv",
        {
            **SERIES,
            "data": {
                "train": SERIES["data"]["train"],
                "val": {**OTHER, "window": {"length": 4}},
                "columns": {**SERIES["data"]["columns"], "group_by": "station"},
                "preprocess": ["StandardScaler"],
            },
        },
        [series(), b"\n".join(series().splitlines()[:50])],
    ),
    "ids": ("jsonl", SENTENCES, [sentences()]),
    "vectors": (
        "jsonl",
        {**SERIES, "data": {"train": SOURCE, "val": {"from": "train", "fraction": 0.2}}},
        [paths()],
    ),
    "ids with a validation set of its own": (
        "jsonl",
        {**SENTENCES, "data": {"train": {**SOURCE, "length": 5}, "val": {**OTHER, "length": 5}}},
        [sentences(), sentences()[:900].rpartition(b"\n")[0]],
    ),
}


@pytest.mark.parametrize("name", list(UPLOADS))
def test_an_upload_is_read_as_the_job_read_it(name: str, tmp_path: Path, runner: Runner) -> None:
    kind, spec, contents = UPLOADS[name]
    paths, files, known = [], {}, {}
    for number, content in enumerate(contents, 1):
        path = tmp_path / f"upload-{number}"
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        paths.append(path)
        files[f"ds_{number}@1"] = DatasetFile(path=str(path), format=kind, sha256=sha256)
        known[f"ds_{number}@1"] = Upload(kind, sha256, profile(path, kind))
    job = Trained(spec, tmp_path, datasets_dir=tmp_path, uploads=files)
    text = job.script(known)
    given = [f"{option}={path}" for option, path in zip(("--data", "--val-data"), paths, strict=False)]
    assert_repeats(job, text, runner.run(tmp_path, text, *given), tmp_path)
    paths[-1].write_bytes(contents[-1] + b"\n")
    with pytest.raises(AssertionError, match="is not the file that was uploaded"):
        runner.run(tmp_path, text, *given)


def test_parquet_is_refused_with_what_to_do() -> None:
    known = {KEY: Upload("parquet", "0" * 64, {})}
    with pytest.raises(CodeRefused) as refused:
        script({**MOONS, "data": {"train": SOURCE}}, uploads=known)
    (issue,) = refused.value.issues
    assert issue.pointer == "/data/train"
    assert "CSV" in str(issue.hint)


def test_the_mnist_example_is_repeated_bit_for_bit(tmp_path: Path, runner: Runner) -> None:
    if not (DATA / "MNIST").is_dir():
        pytest.skip(f"the real MNIST is not in {DATA}; set EPOCHD_TEST_DATA")
    spec = json.loads((ROOT / "examples" / "mnist-mlp.json").read_text(encoding="utf-8"))
    spec |= {"epochs": 1, "execution": {"threads": 1}}
    spec["data"]["max_samples"] = 3000
    raw = tmp_path / "datasets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (DATA / "MNIST" / "raw").glob("*.gz"):
        with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    job = Trained(spec, tmp_path, datasets_dir=DATA)
    text = job.script()
    said = runner.run(tmp_path, text, "--datasets", str(tmp_path / "datasets"))
    assert_repeats(job, text, said, tmp_path)
