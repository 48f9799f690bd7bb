"""Samples of val that train holds too are told once, at the job's first start."""

from pathlib import Path
from typing import Any

from core.messages import DatasetFile, Done, Started
from tests.core.train.test_run import Ends, train

TABLE = "a,b,label\n" + "".join(f"{row % 25},{row % 25},{row % 2}\n" for row in range(100))
SPEC: dict[str, Any] = {
    "data": {"train": {"type": "dataset", "id": "ds_1"}, "val": {"from": "train", "fraction": 0.2}},
    "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 2}]},
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "SGD", "lr": 0.1},
    "epochs": 1,
    "batch_size": 32,
    "seed": 1,
}


def duplicates(ends: Ends) -> list[dict[str, Any]]:
    assert isinstance(ends.last, Done), ends.last
    (started,) = ends.of(Started)
    return [warning for warning in started.warnings if warning["code"] == "duplicates"]


def test_duplicates_are_told_at_the_first_start_only(tmp_path: Path) -> None:
    (tmp_path / "table").write_text(TABLE)
    uploads = {"ds_1@1": DatasetFile(path=str(tmp_path / "table"), format="csv", sha256="0")}
    ends = train(SPEC, tmp_path / "1", datasets=uploads)
    (found,) = duplicates(ends)
    assert (found["pointer"], found["split"], found["duplicates"], found["samples"]) == ("/data/val", "val", 20, 20)
    numerics = ends.of(Started)[0].numerics
    assert duplicates(train(SPEC, tmp_path / "2", datasets=uploads, numerics=numerics)) == []
