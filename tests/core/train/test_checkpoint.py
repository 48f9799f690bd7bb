import hashlib
from pathlib import Path

import pytest
import torch

from core.train.checkpoint import CheckpointInvalid, FolderStore, load, load_first


def save(folder: Path, step: int) -> tuple[str, str]:
    reference = FolderStore(folder).save({"weight": torch.full((3,), float(step))}, epoch=step, step=step)
    return str(folder / reference.name), reference.sha256


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path, sha256 = save(tmp_path, 4)
    assert load(Path(path), sha256)["weight"].tolist() == [4.0, 4.0, 4.0]
    assert Path(path).name == "checkpoint-4-4.pt"
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == sha256


def test_the_last_two_are_kept_and_no_temporary_file_stays(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for epoch in range(1, 5):
        store.save({}, epoch=epoch, step=epoch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3-3.pt", "checkpoint-4-4.pt"]


def test_a_published_file_is_never_written_over(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first, second = (store.save({"number": number}, epoch=1, step=4) for number in (1, 2))
    assert [load(tmp_path / one.name, one.sha256)["number"] for one in (first, second)] == [1, 2]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage: str, tmp_path: Path) -> None:
    (before, before_sha256), (newest, newest_sha256) = save(tmp_path, 1), save(tmp_path, 2)
    data = Path(newest).read_bytes()
    if damage == "gone":
        Path(newest).unlink()
    else:
        Path(newest).write_bytes(data[:-9] if damage == "truncated" else data[:100] + b"\x00\xff" + data[102:])
    state, problems = load_first([newest, before], [newest_sha256, before_sha256])
    assert state is not None
    assert state["weight"][0] == 1.0
    assert len(problems) == 1
    assert "checkpoint-2-2.pt" in problems[0]


def test_two_damaged_checkpoints_are_an_error_that_names_both(tmp_path: Path) -> None:
    paths = [str(tmp_path / "checkpoint-2-2.pt"), str(tmp_path / "checkpoint-1-1.pt")]
    with pytest.raises(CheckpointInvalid, match=r"checkpoint-2-2.*checkpoint-1-1"):
        load_first(paths, ["", ""])


def test_nothing_to_resume_from_is_a_fresh_start() -> None:
    assert load_first([], []) == (None, [])
