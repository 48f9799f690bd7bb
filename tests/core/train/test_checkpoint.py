import hashlib
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from blake3 import blake3

from core.train.checkpoint import (
    LARGE_BYTES,
    CheckpointDamaged,
    CheckpointInvalid,
    FolderStore,
    load,
    load_first,
)
from core.versions import own


def save(folder: Path, step: int) -> tuple[str, str]:
    reference = FolderStore(folder).save({"weight": torch.full((3,), float(step))}, epoch=step, step=step)
    return str(folder / reference.name), reference.digest


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path, digest = save(tmp_path, 4)
    assert load(Path(path), digest)["weight"].tolist() == [4.0, 4.0, 4.0]
    assert Path(path).name == "checkpoint-4-4.pt"


@pytest.mark.parametrize("size", [100, LARGE_BYTES + 1], ids=["small", "large"])
def test_new_checkpoint_is_published_by_its_blake3(size: int, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    reference = store.save({"weight": torch.zeros(size, dtype=torch.uint8)}, epoch=1, step=1)
    data = (tmp_path / reference.name).read_bytes()
    assert (reference.digest, reference.size_bytes) == (f"blake3:{blake3(data).hexdigest()[:56]}", len(data))


@pytest.mark.parametrize("damage", [b"", b"\0"], ids=["sound", "longer"])
def test_checkpoint_of_an_older_version_is_checked_by_its_sha256(damage: bytes, tmp_path: Path) -> None:
    path = Path(save(tmp_path, 4)[0])
    digest = hashlib.sha256(path.read_bytes() + damage).hexdigest()
    with pytest.raises(CheckpointDamaged, match="as published") if damage else nullcontext():
        assert load(path, digest)["weight"].tolist() == [4.0, 4.0, 4.0]


def test_digest_that_only_a_newer_version_knows_is_no_damage_and_names_who_is_too_old(tmp_path: Path) -> None:
    (before, before_digest), (newest, digest) = save(tmp_path, 1), save(tmp_path, 2)
    with pytest.raises(CheckpointInvalid, match=rf"checkpoint-2-2.*epochd \({own()}\) is too old") as raised:
        load_first([newest, before], [f"next:{digest}", before_digest])
    assert not isinstance(raised.value, CheckpointDamaged)


def test_the_last_two_are_kept_and_no_temporary_file_stays(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for epoch in range(1, 5):
        store.save({}, epoch=epoch, step=epoch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3-3.pt", "checkpoint-4-4.pt"]


def test_a_published_file_is_never_written_over(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first, second = (store.save({"number": number}, epoch=1, step=4) for number in (1, 2))
    assert [load(tmp_path / one.name, one.digest)["number"] for one in (first, second)] == [1, 2]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage: str, tmp_path: Path) -> None:
    (before, before_digest), (newest, newest_digest) = save(tmp_path, 1), save(tmp_path, 2)
    data = Path(newest).read_bytes()
    if damage == "gone":
        Path(newest).unlink()
    else:
        Path(newest).write_bytes(data[:-9] if damage == "truncated" else data[:100] + b"\x00\xff" + data[102:])
    state, problems = load_first([newest, before], [newest_digest, before_digest])
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
