"""Scripts of jobs on uploads read the uploaded file, and refuse any other."""

import csv
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.code import CodeRefused, Upload, script
from core.datasets import profile
from core.messages import DatasetFile
from tests.core.code.scripts import Runner, Trained, assert_repeats
from tests.core.code.varieties import FLOAT, IMAGES, IRIS, MOONS

KEY = "ds_1@1"
SOURCE = {"type": "dataset", "id": "ds_1", "version": 1}
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


def stripes() -> bytes:
    draw = random.Random(6)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("__MACOSX/upright/._0.png", b"")
        for number in range(60):
            is_upright = number % 2 == 0
            image = Image.new("L", (8, 8))
            at = draw.randrange(8)
            for place in range(8):
                image.putpixel((at, place) if is_upright else (place, at), 200 + draw.randrange(50))
            content = io.BytesIO()
            image.save(content, "PNG")
            archive.writestr(f"all/{'upright' if is_upright else 'lying'}/{number}.png", content.getvalue())
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
UPLOADS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "csv": (flowers(), TABLE),
    "npz": (arrays(), {**MOONS, "data": {**MOONS["data"], "train": SOURCE, "max_samples": 70}}),
    "images": (stripes(), PICTURES),
    "idx": (digits(), PICTURES),
}


@pytest.mark.parametrize("kind", list(UPLOADS))
def test_an_upload_is_read_as_the_job_read_it(kind: str, tmp_path: Path, runner: Runner) -> None:
    content, spec = UPLOADS[kind]
    path = tmp_path / "upload"
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    known = {KEY: Upload(kind, sha256, profile(path, kind))}
    file = DatasetFile(path=str(path), format=kind, sha256=sha256)
    job = Trained(spec, tmp_path, datasets_dir=tmp_path, uploads={KEY: file})
    text = job.script(known)
    assert_repeats(job, text, runner.run(tmp_path, text, "--data", str(path)), tmp_path)
    path.write_bytes(content + b"\n")
    with pytest.raises(AssertionError, match="is not the file that was uploaded"):
        runner.run(tmp_path, text, "--data", str(path))


def test_parquet_is_refused_with_what_to_do() -> None:
    known = {KEY: Upload("parquet", "0" * 64, {})}
    with pytest.raises(CodeRefused) as refused:
        script({**MOONS, "data": {"train": SOURCE}}, uploads=known)
    (issue,) = refused.value.issues
    assert issue.pointer == "/data/train"
    assert "CSV" in str(issue.hint)


@pytest.mark.parametrize(
    ("kind", "source", "pointer"),
    [("jsonl", SOURCE, "/data/train"), ("csv", {**SOURCE, "window": {"length": 3}}, "/data/train/window")],
)
def test_sequences_and_windows_are_refused_with_what_to_do(kind: str, source: dict[str, Any], pointer: str) -> None:
    with pytest.raises(CodeRefused) as refused:
        script({**MOONS, "data": {"train": source}}, uploads={KEY: Upload(kind, "0" * 64, {})})
    (issue,) = refused.value.issues
    assert issue.pointer == pointer
    assert "NPZ" in str(issue.hint)


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
