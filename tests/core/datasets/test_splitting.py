import hashlib

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.datasets import split
from core.errors import DataInvalid

fractions = st.one_of(st.none(), st.floats(0.01, 0.45))


@given(n=st.integers(20, 400), val=fractions, test=fractions, seed=st.integers(0, 2**63 - 1))
def test_parts_are_disjoint_and_together_everything(n: int, val: float | None, test: float | None, seed: int) -> None:
    parts = split(n, val=val, test=test, seed=seed)
    indices = np.concatenate([part for name in parts if (part := parts[name]) is not None])
    assert sorted(indices) == list(range(n))


@given(n=st.integers(20, 400), val=st.floats(0.01, 0.45), test=st.floats(0.01, 0.45), seed=st.integers(0, 99))
def test_a_part_has_its_fraction_rounded_half_up_and_at_least_one(n: int, val: float, test: float, seed: int) -> None:
    parts = split(n, val=val, test=test, seed=seed)
    assert parts.val is not None
    assert parts.test is not None
    assert len(parts.val) == max(1, int(val * n + 0.5))
    assert len(parts.test) == max(1, int(test * n + 0.5))


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=8),
    val=st.floats(0.05, 0.4),
    seed=st.integers(0, 2**32),
)
def test_stratified_parts_differ_from_exact_shares_by_less_than_one(counts: list[int], val: float, seed: int) -> None:
    target = np.repeat(np.arange(len(counts)), counts)
    size = max(1, int(val * len(target) + 0.5))
    assume(size <= len(target) - len(counts))
    assume(min(counts) * (1 - val) > 2)
    parts = split(len(target), target, val=val, seed=seed, stratify=True)
    assert parts.val is not None
    assert len(parts.val) == size
    taken = np.bincount(target[parts.val], minlength=len(counts))
    assert (np.abs(taken - np.asarray(counts) * size / len(target)) < 1).all()


@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=8), val=fractions, test=fractions)
def test_every_class_stays_in_train(counts: list[int], val: float | None, test: float | None) -> None:
    target = np.repeat(np.arange(len(counts)), counts)
    try:
        parts = split(len(target), target, val=val, test=test, seed=3, stratify=True)
    except DataInvalid:
        return
    assert set(target[parts.train]) == set(target)


def test_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    first, again, other = (split(500, val=0.2, test=0.1, seed=seed) for seed in (7, 7, 8))
    assert first.sha256 == again.sha256 != other.sha256
    assert np.array_equal(first.train, again.train)


def test_test_set_stays_the_same_when_val_is_added() -> None:
    alone, both = split(100, test=0.2, seed=1), split(100, test=0.2, val=0.2, seed=1)
    assert alone.test is not None
    assert both.test is not None
    assert alone.test.tolist() == both.test.tolist()


def test_split_of_a_seed_never_changes() -> None:
    parts = split(10, val=0.2, test=0.2, seed=0)
    assert [None if parts[name] is None else list(parts[name]) for name in parts] == FIRST_SPLIT


FIRST_SPLIT = [[2, 3, 5, 6, 7, 9], [0, 8], [1, 4]]


def test_sha256_covers_the_indices_of_all_parts() -> None:
    parts = split(5, val=0.2, seed=0)
    assert parts.val is not None
    train = (4).to_bytes(8, "little") + parts.train.astype("<i8").tobytes()
    val = (1).to_bytes(8, "little") + parts.val.astype("<i8").tobytes()
    assert parts.sha256 == hashlib.sha256(train + val + b"none").hexdigest()


def test_without_fractions_train_is_everything() -> None:
    parts = split(4, seed=0)
    assert parts.train.tolist() == [0, 1, 2, 3]
    assert parts.val is None


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(DataInvalid, match="2 samples cannot be split: 1 for test and 1 for val"):
        split(2, val=0.1, test=0.1, seed=0)


def test_stratify_without_classes_is_refused() -> None:
    with pytest.raises(DataInvalid, match="needs a target of classes"):
        split(10, np.zeros(10, np.float32), val=0.2, seed=0, stratify=True)


@given(groups=st.lists(st.integers(0, 9), min_size=20, max_size=60), seed=st.integers(0, 99))
def test_groups_never_cross_parts(groups: list[int], seed: int) -> None:
    numbers = np.asarray(groups)
    try:
        parts = split(len(numbers), val=0.2, test=0.2, seed=seed, groups=numbers)
    except DataInvalid:
        return
    members = [set(numbers[part]) for name in parts if (part := parts[name]) is not None]
    assert sum(map(len, members)) == len(set().union(*members))


def test_order_puts_the_latest_into_test_and_those_before_into_val() -> None:
    parts = split(10, val=0.2, test=0.2, seed=0, order=np.arange(10.0)[::-1])
    assert parts.val is not None
    assert parts.test is not None
    assert parts.test.tolist() == [0, 1]
    assert parts.val.tolist() == [2, 3]
