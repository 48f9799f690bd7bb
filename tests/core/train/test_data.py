import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.train.data import EvalBatches, Split, TrainBatches
from core.train.sets import as_tensor

CPU = torch.device("cpu")


def numbered(samples: int) -> Split:
    numbers = torch.arange(samples)
    return Split(numbers.float().unsqueeze(1), numbers)


def batches(split: Split, **more: object) -> TrainBatches:
    arguments = {"batch_size": 8, "seed": 5, "shuffle": True, "drop_last": False, "device": CPU, **more}
    return TrainBatches(split, **arguments)  # type: ignore[arg-type]


def seen(source: TrainBatches, epoch: int) -> list[int]:
    return [int(label) for _, target in source.epoch(epoch) for label in target]


@pytest.mark.parametrize(("batch_size", "count"), [(1, 20), (8, 3), (20, 1), (64, 1)])
def test_an_epoch_has_every_sample_once(batch_size: int, count: int) -> None:
    source = batches(numbered(20), batch_size=batch_size)
    assert source.count == count == len(list(source.epoch(1)))
    assert sorted(seen(source, 1)) == list(range(20))


def test_drop_last_leaves_out_the_smaller_batch() -> None:
    source = batches(numbered(20), drop_last=True)
    assert [len(target) for _, target in source.epoch(1)] == [8, 8]
    assert source.count == 2


def test_the_order_differs_between_epochs_and_seeds_and_repeats_for_the_same() -> None:
    first = batches(numbered(50))
    assert seen(first, 1) != seen(first, 2)
    assert seen(first, 1) != seen(batches(numbered(50), seed=6), 1)
    assert seen(first, 1) == seen(batches(numbered(50)), 1)


def test_without_shuffle_samples_come_in_order() -> None:
    assert seen(batches(numbered(20), shuffle=False), 3) == list(range(20))


def test_inputs_and_targets_stay_together_in_a_part_of_the_set() -> None:
    source = batches(Split(torch.arange(30.0).unsqueeze(1), torch.arange(30), torch.arange(10, 30)))
    assert sorted(seen(source, 1)) == list(range(10, 30))
    assert all(torch.equal(inputs[:, 0].long(), target) for inputs, target in source.epoch(1))


@pytest.mark.parametrize("start", range(5))
def test_an_epoch_begun_in_the_middle_gives_the_same_batches(start: int) -> None:
    source = batches(numbered(30), transform=lambda inputs: inputs + torch.randn_like(inputs))
    whole, rest = list(source.epoch(2))[start:], list(source.epoch(2, start))
    assert len(whole) == len(rest)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(whole, rest, strict=True))


def test_random_transforms_differ_by_epoch_and_leave_the_global_generator_alone() -> None:
    source = batches(numbered(8), shuffle=False, transform=lambda inputs: torch.rand(inputs.shape))
    torch.manual_seed(0)
    (first, _), (second, _) = next(source.epoch(1)), next(source.epoch(2))
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert not torch.equal(first, second)


def test_blocks_are_cut_into_batches_wherever_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.train.data.GATHER_BYTES", 64)  # 16 samples of 4 bytes: two batches
    source = batches(numbered(45))
    assert [len(target) for _, target in source.epoch(1)] == [8, 8, 8, 8, 8, 5]


def test_evaluation_sees_all_samples_in_order() -> None:
    source = EvalBatches(numbered(20), batch_size=8, device=CPU)
    assert [int(label) for _, target in source for label in target] == list(range(20))


def test_mapping_applies_a_transform_once_and_keeps_order() -> None:
    def double(inputs: Tensor) -> Tensor:
        return inputs * 2

    split = Split(torch.arange(10.0).unsqueeze(1), torch.arange(10), torch.tensor([3, 5, 7])).map(double)
    assert split.inputs[:, 0].tolist() == [6.0, 10.0, 14.0]
    assert split.target.tolist() == [3, 5, 7]


def test_a_mapped_array_is_used_without_a_copy_and_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = as_tensor(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert tensor.tolist() == list(range(6))
    assert tensor.dtype == torch.uint8


def test_batches_lie_in_memory_as_tensors_of_their_own_do_wherever_the_epoch_is_begun() -> None:
    """13 features in batches of 7 would begin at any multiple of 364 bytes; a product's last bits can tell."""
    generator = torch.Generator().manual_seed(0)
    split = Split(torch.randn(200, 13, generator=generator), torch.arange(200))
    weight = torch.randn(13, 10, generator=generator)
    source = batches(split, batch_size=7)
    whole = [inputs for inputs, _ in source.epoch(1)]
    later = [inputs for inputs, _ in source.epoch(1, 5)]
    alone = [split.inputs[rows] for rows in source.order(1).split(7)]
    for one, other in zip(whole[5:] + whole, later + alone, strict=True):
        assert one.data_ptr() % 64 == other.data_ptr() % 64 == 0
        assert torch.equal(one @ weight, other @ weight)
