"""Sequences and windows before they train: ids against Embedding, sizes, counts of what a border leaves out."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.messages import DatasetFile
from core.spec import parse_object
from core.train import preflight
from core.train.preflight import Report
from tests.core.train.specs import mended

IDS = [{"ids": [row % 7, 19, row % 3], "target": "ab"[row % 2]} for row in range(20)]
TEXT: dict[str, Any] = {
    "data": {"train": {"type": "dataset", "id": "ds_1"}},
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Embedding", "num_embeddings": 12, "embedding_dim": 4, "padding_idx": 0},
            {"type": "GRU", "hidden_size": 8, "batch_first": True},
            "ext.LastTimestep",
            {"type": "Linear", "out_features": 2},
        ],
    },
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "Adam", "lr": 0.01},
    "epochs": 2,
    "batch_size": 8,
    "seed": 1,
}
SERIES: dict[str, Any] = {
    **TEXT,
    "data": {
        "train": {"type": "dataset", "id": "ds_1", "window": {"length": 6}},
        "val": {"from": "train", "fraction": 0.2},
        "columns": {"order_by": "hour", "target": "load", "features": ["load", "sun"]},
        "preprocess": ["StandardScaler"],
    },
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "LSTM", "hidden_size": 8, "batch_first": True},
            "ext.LastTimestep",
            {"type": "Linear", "out_features": 1},
        ],
    },
    "loss": "MSELoss",
}
TABLE = "hour,load,sun\n" + "".join(f"{hour},{hour % 24}.5,{hour % 5}\n" for hour in range(106))


def checked(spec: dict[str, Any], folder: Path, content: str, kind: str, **others: str) -> Report:
    files = {"ds_1@1": content, **{f"{name}@1": text for name, text in others.items()}}
    uploads: dict[str, DatasetFile] = {}
    for name, text in files.items():
        (folder / name).write_text(text)
        uploads[name] = DatasetFile(path=str(folder / name), format=kind, sha256=str(hash(text)))
    return preflight.check(
        parse_object(spec), datasets_dir=folder, cache_dir=folder / "cache", uploads=uploads, max_parameters=10**9
    )


def jsonl(lines: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_embedding_without_a_row_for_the_largest_id_is_refused_with_a_fix(tmp_path: Path) -> None:
    report = checked(TEXT, tmp_path, jsonl(IDS), "jsonl")
    (issue,) = report.errors
    assert (issue.pointer, issue.code) == ("/model/layers/0/num_embeddings", "too_few_embeddings")
    assert "ids 0 to 11; the largest id of the data is 19" in issue.detail
    spec = mended(TEXT, issue)
    assert spec["model"]["layers"][0]["num_embeddings"] == 20
    report = checked(spec, tmp_path, jsonl(IDS), "jsonl")
    assert not report.errors
    assert report.summary["layers"][0]["input_shape"] == [3]


def test_ids_of_a_validation_set_of_its_own_count_too(tmp_path: Path) -> None:
    spec = json.loads(json.dumps(TEXT).replace('"num_embeddings": 12', '"num_embeddings": 20'))
    spec["data"]["val"] = {"type": "dataset", "id": "ds_2"}
    report = checked(spec, tmp_path, jsonl(IDS), "jsonl", ds_2=jsonl([{"ids": [1, 2, 30], "target": "a"}]))
    assert [issue.code for issue in report.errors] == ["too_few_embeddings"]


def test_sets_of_other_lengths_are_told_of_length(tmp_path: Path) -> None:
    spec = json.loads(json.dumps(TEXT).replace('"num_embeddings": 12', '"num_embeddings": 20'))
    spec["data"]["val"] = {"type": "dataset", "id": "ds_2"}
    val = jsonl([{"ids": [1], "target": "a"}])
    (issue,) = checked(spec, tmp_path, jsonl(IDS), "jsonl", ds_2=val).errors
    assert (issue.pointer, issue.code) == ("/data/val", "other_columns")
    assert '"length"' in str(issue.hint)
    for name in ("train", "val"):
        spec["data"][name]["length"] = 4
    assert not checked(spec, tmp_path, jsonl(IDS), "jsonl", ds_2=val).errors


def test_windows_across_the_border_are_not_counted(tmp_path: Path) -> None:
    report = checked(SERIES, tmp_path, TABLE, "csv")
    assert not report.errors, report.errors
    # 100 windows: 20 for val, the 6 before them share a row with val
    assert report.summary["steps_per_epoch"] == -(-74 // 8)
    assert report.summary["layers"][0]["input_shape"] == [6, 2]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"length": 200}, "/data/train/window/length"),
        ({"length": 0}, "/data/train/window/length"),
        ({"length": 3, "horizon": "1"}, "/data/train/window/horizon"),
        ({"stride": 3}, "/data/train/window/length"),
    ],
)
def test_window_that_cannot_be_is_refused_at_its_place(change: dict[str, Any], pointer: str, tmp_path: Path) -> None:
    spec = {**SERIES, "data": {**SERIES["data"], "train": {"type": "dataset", "id": "ds_1", "window": change}}}
    try:
        issues = checked(spec, tmp_path, TABLE, "csv").errors
    except Exception as error:  # noqa: BLE001 - refused by the spec itself
        issues = getattr(error, "issues", ())
    assert [issue.pointer for issue in issues] == [pointer]
