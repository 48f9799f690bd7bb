"""Early stopping by hand: each row of the table was computed on paper from docs/spec.md's eight rules."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.spec.job import EarlyStopping
from core.train.early_stopping import EarlyStopper

NAN, INF = math.nan, math.inf

# name, mode, arguments, values of epochs 1, 2, …, expected (improved, wait, reason) of each check; the last stops
# when its reason is one of patience, threshold, diverged, not_finite.
TABLE: list[tuple[str, str, dict[str, Any], list[float], list[tuple[bool, int, str]]]] = [
    ("falls and rises", "min", {"patience": 2}, [1.0, 0.5, 0.6, 0.7],
     [(True, 0, "improved"), (True, 0, "improved"), (False, 1, "waiting"), (False, 2, "patience")]),
    ("patience one stops at the first worse value", "min", {"patience": 1}, [1.0, 1.1],
     [(True, 0, "improved"), (False, 1, "patience")]),
    ("a tie is not better", "min", {"patience": 2}, [1.0, 1.0, 1.0],
     [(True, 0, "improved"), (False, 1, "waiting"), (False, 2, "patience")]),
    ("max mode", "max", {"patience": 2}, [0.5, 0.6, 0.6, 0.59],
     [(True, 0, "improved"), (True, 0, "improved"), (False, 1, "waiting"), (False, 2, "patience")]),
    ("an improvement resets the counter", "min", {"patience": 2}, [1.0, 1.1, 0.9, 1.0, 1.0],
     [(True, 0, "improved"), (False, 1, "waiting"), (True, 0, "improved"), (False, 1, "waiting"),
      (False, 2, "patience")]),
    ("exactly min_delta better is not enough", "min", {"patience": 2, "min_delta": 0.25}, [1.0, 0.75, 0.5],
     [(True, 0, "improved"), (False, 1, "waiting"), (True, 0, "improved")]),
    ("small steps below min_delta add up against the same best", "min", {"patience": 3, "min_delta": 0.25},
     [1.0, 0.875, 0.75, 0.625],
     [(True, 0, "improved"), (False, 1, "waiting"), (False, 2, "waiting"), (True, 0, "improved")]),
    ("min_delta in max mode", "max", {"patience": 1, "min_delta": 0.125}, [0.5, 0.75, 0.875],
     [(True, 0, "improved"), (True, 0, "improved"), (False, 1, "patience")]),
    ("relative delta", "min", {"patience": 2, "min_delta": 0.5, "min_delta_mode": "rel"}, [8.0, 4.0, 3.0, 2.0],
     [(True, 0, "improved"), (False, 1, "waiting"), (True, 0, "improved"), (False, 1, "waiting")]),
    ("relative delta of a negative score, max: -8 needs more than -4", "max",
     {"patience": 2, "min_delta": 0.5, "min_delta_mode": "rel"}, [-8.0, -4.0, -3.0],
     [(True, 0, "improved"), (False, 1, "waiting"), (True, 0, "improved")]),
    ("relative delta of a negative score, min: -8 needs less than -12", "min",
     {"patience": 2, "min_delta": 0.5, "min_delta_mode": "rel"}, [-8.0, -12.0, -13.0],
     [(True, 0, "improved"), (False, 1, "waiting"), (True, 0, "improved")]),
    ("relative delta of best zero asks for any gain", "max",
     {"patience": 1, "min_delta": 0.5, "min_delta_mode": "rel"}, [0.0, 0.001],
     [(True, 0, "improved"), (True, 0, "improved")]),
    ("NaN stops", "min", {"patience": 5}, [1.0, NAN], [(True, 0, "improved"), (False, 0, "not_finite")]),
    ("infinity stops", "min", {"patience": 5}, [INF], [(False, 0, "not_finite")]),
    ("minus infinity is not an improvement but an end", "min", {"patience": 5}, [1.0, -INF],
     [(True, 0, "improved"), (False, 0, "not_finite")]),
    ("NaN only counts without check_finite", "min", {"patience": 2, "check_finite": False}, [NAN, 1.0, NAN, NAN],
     [(False, 1, "waiting"), (True, 0, "improved"), (False, 1, "waiting"), (False, 2, "patience")]),
    ("the first finite value improves, whatever it is", "min", {"patience": 3, "check_finite": False}, [INF, 1e9],
     [(False, 1, "waiting"), (True, 0, "improved")]),
    ("divergence", "min", {"patience": 9, "divergence_threshold": 10.0}, [1.0, 10.0, 10.5],
     [(True, 0, "improved"), (False, 1, "waiting"), (False, 1, "diverged")]),
    ("divergence in max mode", "max", {"patience": 9, "divergence_threshold": 0.25}, [0.5, 0.25, 0.125],
     [(True, 0, "improved"), (False, 1, "waiting"), (False, 1, "diverged")]),
    ("a diverged first value is not a best", "min", {"patience": 9, "divergence_threshold": 10.0}, [11.0],
     [(False, 0, "diverged")]),
    ("a reached threshold stops, and its value is the best", "min", {"patience": 9, "stopping_threshold": 0.25},
     [1.0, 0.25], [(True, 0, "improved"), (True, 0, "threshold")]),
    ("threshold in max mode", "max", {"patience": 9, "stopping_threshold": 0.75}, [0.5, 0.875],
     [(True, 0, "improved"), (True, 0, "threshold")]),
    ("not finite goes before threshold", "max", {"patience": 9, "stopping_threshold": 0.75}, [INF],
     [(False, 0, "not_finite")]),
    ("before start_from_epoch nothing counts", "min", {"patience": 1, "start_from_epoch": 4}, [1.0, 2.0, 2.0, 2.0],
     [(True, 0, "improved"), (False, 0, "warm_up"), (False, 0, "warm_up"), (False, 1, "patience")]),
    ("best is tracked in the warm-up", "min", {"patience": 1, "start_from_epoch": 3}, [2.0, 1.0, 1.5],
     [(True, 0, "improved"), (True, 0, "improved"), (False, 1, "patience")]),
    ("without beating the baseline improvements do not reset", "min", {"patience": 3, "baseline": 0.5},
     [1.0, 0.9, 0.8], [(True, 1, "improved"), (True, 2, "improved"), (True, 3, "patience")]),
    ("once beaten the baseline is history", "min", {"patience": 2, "baseline": 0.5}, [0.75, 0.25, 0.375, 0.125],
     [(True, 1, "improved"), (True, 0, "improved"), (False, 1, "waiting"), (True, 0, "improved")]),
    ("equal to the baseline does not beat it", "max", {"patience": 2, "baseline": 0.5}, [0.5, 0.5],
     [(True, 1, "improved"), (False, 2, "patience")]),
    ("a baseline beaten without an improvement over best cannot be", "max", {"patience": 3, "baseline": 0.75},
     [0.5, 0.625, 0.875, 0.75, 0.75, 0.75],
     [(True, 1, "improved"), (True, 2, "improved"), (True, 0, "improved"), (False, 1, "waiting"),
      (False, 2, "waiting"), (False, 3, "patience")]),
    ("an improvement smaller than min_delta does not beat the baseline", "min",
     {"patience": 3, "baseline": 0.5, "min_delta": 0.25}, [0.625, 0.4375, 0.25],
     [(True, 1, "improved"), (False, 2, "waiting"), (True, 0, "improved")]),
    ("baseline in the warm-up: nothing counts yet", "min", {"patience": 1, "baseline": 0.5, "start_from_epoch": 3},
     [1.0, 0.75, 0.625],
     [(True, 0, "improved"), (True, 0, "improved"), (True, 1, "patience")]),
    ("a baseline beaten in the warm-up stays beaten", "min",
     {"patience": 2, "baseline": 0.5, "start_from_epoch": 3}, [0.25, 0.75, 0.75, 0.125, 0.5],
     [(True, 0, "improved"), (False, 0, "warm_up"), (False, 1, "waiting"), (True, 0, "improved"),
      (False, 1, "waiting")]),
    ("the threshold stops in the warm-up", "min", {"patience": 1, "start_from_epoch": 9, "stopping_threshold": 0.5},
     [1.0, 0.5], [(True, 0, "improved"), (True, 0, "threshold")]),
    ("divergence stops in the warm-up", "min", {"patience": 1, "start_from_epoch": 9, "divergence_threshold": 4.0},
     [1.0, 5.0], [(True, 0, "improved"), (False, 0, "diverged")]),
    ("NaN stops in the warm-up", "max", {"patience": 1, "start_from_epoch": 9}, [NAN], [(False, 0, "not_finite")]),
    ("diverged goes before threshold", "max",
     {"patience": 5, "stopping_threshold": 0.25, "divergence_threshold": 0.5}, [0.375], [(False, 0, "diverged")]),
    ("infinity diverges where it may", "min",
     {"patience": 5, "check_finite": False, "divergence_threshold": 4.0}, [1.0, INF],
     [(True, 0, "improved"), (False, 0, "diverged")]),
    ("NaN does not diverge", "min", {"patience": 2, "check_finite": False, "divergence_threshold": 4.0},
     [1.0, NAN, NAN], [(True, 0, "improved"), (False, 1, "waiting"), (False, 2, "patience")]),
    ("a reached threshold that is no improvement over best", "min",
     {"patience": 5, "stopping_threshold": 0.5, "min_delta": 0.5}, [0.75, 0.5],
     [(True, 0, "improved"), (False, 0, "threshold")]),
    ("a relative delta shrinks with the best", "min", {"patience": 1, "min_delta": 0.5, "min_delta_mode": "rel"},
     [8.0, 3.0, 1.0, 0.5], [(True, 0, "improved"), (True, 0, "improved"), (True, 0, "improved"),
                            (False, 1, "patience")]),
    ("a loss below zero with an absolute delta", "min", {"patience": 1, "min_delta": 1.0}, [-1.0, -2.5, -3.5],
     [(True, 0, "improved"), (True, 0, "improved"), (False, 1, "patience")]),
    ("only NaN without check_finite never has a best", "max", {"patience": 3, "check_finite": False},
     [NAN, INF, -INF], [(False, 1, "waiting"), (False, 2, "waiting"), (False, 3, "patience")]),
    ("patience starts at start_from_epoch itself", "max", {"patience": 2, "start_from_epoch": 2}, [0.5, 0.25, 0.25],
     [(True, 0, "improved"), (False, 1, "waiting"), (False, 2, "patience")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "arguments", "values", "expected"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_every_check_decides_as_computed_by_hand(
    mode: Any, arguments: dict[str, Any], values: list[float], expected: list[tuple[bool, int, str]]
) -> None:
    stopper = EarlyStopper(EarlyStopping(**arguments), mode)
    checks = [stopper.check(value, epoch) for epoch, value in enumerate(values, start=1)]
    assert [(check.improved, check.wait, check.reason) for check in checks] == expected
    ends = {"patience", "threshold", "diverged", "not_finite"}
    assert [check.action for check in checks] == ["stop" if row[2] in ends else "continue" for row in expected]


def test_checks_in_the_cooldown_after_a_cut_do_not_count() -> None:
    stopper = EarlyStopper(EarlyStopping(patience=2, cooldown=2), "min")
    for epoch, value in enumerate([1.0, 2.0], start=1):
        stopper.check(value, epoch)
    stopper.lr_was_cut()
    checks = [stopper.check(2.0, epoch) for epoch in (3, 4, 5, 6)]
    assert [(check.wait, check.reason) for check in checks] == [
        (0, "cooldown"), (0, "cooldown"), (1, "waiting"), (2, "patience"),
    ]  # fmt: skip


def test_a_cut_without_cooldown_leaves_the_counter() -> None:
    stopper = EarlyStopper(EarlyStopping(patience=2), "min")
    stopper.check(1.0, 1)
    stopper.check(2.0, 2)
    stopper.lr_was_cut()
    assert stopper.check(2.0, 3).reason == "patience"


def test_the_decision_names_what_was_required() -> None:
    stopper = EarlyStopper(EarlyStopping(min_delta=0.25, patience=3), "min")
    first, second = stopper.check(1.0, 1), stopper.check(0.875, 2)
    assert first.required is None
    assert second.as_decision(step=40) == {
        "kind": "early_stopping", "epoch": 2, "step": 40, "monitor": "val_loss", "value": 0.875, "best": 1.0,
        "best_epoch": 1, "required": 0.75, "improved": False, "wait": 1, "patience": 3, "action": "continue",
        "reason": "waiting",
    }  # fmt: skip


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_stopper_that_was_saved_and_loaded_goes_on_the_same(cut: int) -> None:
    spec = EarlyStopping(patience=3, baseline=0.9, cooldown=1)
    values = [1.0, 0.8, 0.85, 0.7, 0.9, 0.9, 0.9]
    whole, first, second = (EarlyStopper(spec, "min") for _ in range(3))
    expected = [whole.check(value, epoch) for epoch, value in enumerate(values, start=1)]
    found = [first.check(value, epoch) for epoch, value in enumerate(values[:cut], start=1)]
    second.load_state_dict(first.state_dict())
    found += [second.check(value, epoch) for epoch, value in enumerate(values[cut:], start=cut + 1)]
    assert found == expected


def as_written(spec: EarlyStopping, mode: str, values: list[float]) -> list[tuple[bool, int, str]]:
    """Follow docs/spec.md's rules 1 to 6 word by word: (improved, wait, action) of every check until the stop."""
    sign = 1 if mode == "max" else -1
    best, wait, is_beaten, told = None, 0, spec.baseline is None, list[tuple[bool, int, str]]()
    for epoch, value in enumerate(values, start=1):
        delta = spec.min_delta * (abs(best) if spec.min_delta_mode == "rel" and best is not None else 1)
        improved = math.isfinite(value) and (best is None or sign * value > sign * best + delta)
        diverged = spec.divergence_threshold is not None and sign * value < sign * spec.divergence_threshold
        if (spec.check_finite and not math.isfinite(value)) or diverged:
            return [*told, (improved and not diverged, wait, "stop")]
        best = value if improved else best
        reached = spec.stopping_threshold is not None and sign * value >= sign * spec.stopping_threshold
        if reached and math.isfinite(value):
            return [*told, (improved, wait, "stop")]
        is_beaten = is_beaten or (improved and sign * value > sign * (spec.baseline or 0))
        counts = not (improved and is_beaten)
        wait = (wait + (epoch >= spec.start_from_epoch)) if counts else 0
        told.append((improved, wait, "stop" if counts and wait >= spec.patience else "continue"))
        if told[-1][2] == "stop":
            return told
    return told


SMALL = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0])
SPECS = st.builds(
    EarlyStopping,
    patience=st.integers(1, 4),
    min_delta=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    min_delta_mode=st.sampled_from(["abs", "rel"]),
    start_from_epoch=st.integers(0, 5),
    baseline=st.none() | SMALL,
    stopping_threshold=st.none() | SMALL,
    divergence_threshold=st.none() | SMALL,
    check_finite=st.booleans(),
)


@settings(max_examples=500, deadline=None)
@given(spec=SPECS, mode=st.sampled_from(["min", "max"]), values=st.lists(SMALL | st.sampled_from([NAN, INF, -INF])))
def test_any_sequence_decides_as_the_rules_are_written(spec: EarlyStopping, mode: Any, values: list[float]) -> None:
    stopper, found = EarlyStopper(spec, mode), list[tuple[bool, int, str]]()
    for epoch, value in enumerate(values, start=1):
        check = stopper.check(value, epoch)
        found.append((check.improved, check.wait, check.action))
        if check.action == "stop":
            break
    assert found == as_written(spec, mode, values)
