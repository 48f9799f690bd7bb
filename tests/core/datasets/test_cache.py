import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.datasets.cache import Cache, key_of
from core.datasets.samples import Samples

IDENTITY = {"made": "here"}


def made(_scratch: Path) -> Samples:
    return Samples(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 1]), ["a", "b"], ["y"], ["n", "p"])


def place(cache_dir: Path) -> Path:
    return cache_dir / "data" / key_of(IDENTITY)


def test_source_is_decoded_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def counted(scratch: Path) -> Samples:
        calls.append(scratch)
        return made(scratch)

    for _ in range(3):
        samples, facts = Cache(tmp_path).entry(IDENTITY, counted)
    assert len(calls) == 1
    assert samples.inputs.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert facts == samples.facts()


def test_array_written_into_the_scratch_folder_is_kept_without_a_copy(tmp_path: Path) -> None:
    def large(scratch: Path) -> Samples:
        inputs = np.lib.format.open_memmap(scratch / "inputs.npy", mode="w+", dtype=np.uint8, shape=(4, 1, 2, 2))
        inputs[:] = 7
        return Samples(inputs, None, kind="image")

    samples, facts = Cache(tmp_path).entry(IDENTITY, large)
    assert (samples.inputs == 7).all()
    assert (samples.target, facts.target_shape) == (None, None)


@pytest.mark.parametrize("file", ["inputs.npy", "target.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_folder_is_built_again(file: str, damage: str, tmp_path: Path) -> None:
    Cache(tmp_path).entry(IDENTITY, made)
    path = place(tmp_path) / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-3] if damage == "cut" else content[:-3] + b"\xff" + content[-2:])
    samples, _ = Cache(tmp_path).entry(IDENTITY, made)
    assert samples.inputs.tolist() == made(tmp_path).inputs.tolist()
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == [key_of(IDENTITY)]


def test_failed_decoding_leaves_nothing(tmp_path: Path) -> None:
    def fails(scratch: Path) -> Samples:
        (scratch / "inputs.npy").write_bytes(b"half")
        raise MemoryError

    with pytest.raises(MemoryError):
        Cache(tmp_path).entry(IDENTITY, fails)
    assert list((tmp_path / "data").iterdir()) == []


def _race(cache_dir: Path, barrier: Any, answers: Any) -> None:
    barrier.wait()
    answers.put(Cache(cache_dir).entry(IDENTITY, made)[0].inputs.tolist())


def test_processes_that_race_all_get_the_samples(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path, barrier, answers)) for _ in range(4)]
    for racer in racers:
        racer.start()
    found = [answers.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert found == [[[0, 1], [2, 3], [4, 5]]] * 4
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == [key_of(IDENTITY)]
