"""Diagnoses from curves drawn by hand, and from trainings that really go wrong."""

from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import torch
from torch import nn

from core.spec import parse_object, to_json
from core.train.diagnosing import Diagnoser
from core.train.probing import Probe, pointer_of
from tests.core.train.attempts import Job
from tests.core.train.specs import DIGITS

NAN = float("nan")


def rows(train: list[float], val: list[float | None] | None = None, norms: list[float] | None = None) -> Any:
    return [
        {"epoch": place + 1, "step": 10 * (place + 1), "train": {"loss": loss},
         "val": None if val is None or val[place] is None else {"loss": val[place]},
         "grad_norm": None if norms is None else norms[place]}
        for place, loss in enumerate(train)
    ]  # fmt: skip


def said(
    train: list[float], val: list[float | None] | None = None, norms: list[float] | None = None, **more: Any
) -> list[dict[str, Any]]:
    diagnoser = Diagnoser(parse_object({**DIGITS, **more}), 0.1)
    drawn = rows(train, val, norms)
    return [found for row in drawn for found in diagnoser.look(row, is_last=row is drawn[-1])]


FALLING = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1]

CURVES: list[tuple[str, list[float], list[float | None] | None, list[float] | None, list[tuple[str, int]]]] = [
    ("learns", FALLING, [*FALLING], None, []),
    ("val loss rises for five epochs", FALLING, [0.9, 0.8, 0.7, 0.6, 0.61, 0.62, 0.63, 0.64, 0.67, 0.7], None,
     [("overfitting", 9)]),
    ("val loss rises by less than a tenth", FALLING, [0.9, 0.8, 0.7, 0.6, *[0.65] * 6], None, []),
    ("val loss rises and train loss too", [0.5, 0.4, 0.3, *[0.5] * 7], [0.9, 0.8, *[1.0] * 8], None, []),
    ("nothing moves", [1.0, 1.001, 0.999, 1.0, 1.001, 1.0], None, None, [("loss_stuck", 5)]),
    ("moves a little and stays high", [1.0, 0.97, 0.95, 0.93, 0.92, 0.92], None, None, [("underfitting", 6)]),
    ("still falling at the end", [1.0, 0.95, 0.9], None, None, [("underfitting", 3)]),
    ("high, but val far above", [1.0, 0.95, 0.9], [2.0, 2.0, 2.0], None, []),
    ("train loss doubles", [1.0, 0.5, 1.1, 0.4], None, None, [("lr_too_high", 3)]),
    ("train loss ends in NaN", [1.0, 0.5, NAN], None, None, [("lr_too_high", 3)]),
    ("gradients explode", FALLING[:4], None, [1.0, 2.0, 150.0, 900.0], [("exploding_gradients", 3)]),
    ("gradients grow", FALLING[:4], None, [1.0, 20.0, 60.0, 90.0], []),
    ("one epoch says nothing", [1.0], [1.0], [1.0], []),
]  # fmt: skip


@pytest.mark.parametrize(("train", "val", "norms", "expected"), [row[1:] for row in CURVES], ids=[r[0] for r in CURVES])
def test_curve_is_diagnosed_once_at_its_epoch(
    train: list[float], val: list[float | None] | None, norms: list[float] | None, expected: list[tuple[str, int]]
) -> None:
    assert [(one["code"], one["epoch"]) for one in said(train, val, norms)] == expected


@pytest.mark.parametrize("row", [row for row in CURVES if row[4]], ids=lambda row: row[0])
def test_suggestion_makes_another_spec_that_parses(row: Any) -> None:
    (found,) = said(*row[1:4])
    assert found["kind"] == "diagnosis"
    posted = to_json(parse_object(DIGITS))
    changed = jsonpatch.apply_patch(posted, found["suggestion"])
    assert changed != posted
    parse_object(changed)


def test_numbers_of_overfitting_are_those_of_the_curve() -> None:
    (found,) = said(FALLING, [0.9, 0.8, 0.7, 0.6, 0.61, 0.62, 0.63, 0.64, 0.67, 0.7])
    assert (found["best_val_loss"], found["best_epoch"]) == (0.6, 4)
    assert (found["val_loss"], found["train_loss"]) == (0.67, 0.15)


def test_clipped_gradients_are_not_said_to_explode() -> None:
    assert said(FALLING[:3], None, [1.0, 2.0, 150.0], gradient_clipping={"max_norm": 1.0}) == []


def test_bare_optimizer_gets_its_rate_by_a_whole_replacement() -> None:
    (found,) = said([1.0, 0.5, 1.1, 0.4], optimizer="SGD")
    assert found["suggestion"] == [{"op": "replace", "path": "/optimizer", "value": {"type": "SGD", "lr": 0.01}}]


@pytest.mark.parametrize("cut", range(1, 9))
def test_diagnoser_that_was_saved_and_loaded_says_the_same(cut: int) -> None:
    spec = parse_object(DIGITS)
    drawn = rows(FALLING, [0.9, 0.8, 0.7, 0.6, 0.61, 0.62, 0.63, 0.64, 0.67, 0.7], [float(n) for n in range(10)])
    whole, first, second = (Diagnoser(spec, 0.1) for _ in range(3))
    expected = [whole.look(row, is_last=False) for row in drawn]
    found = [first.look(row, is_last=False) for row in drawn[:cut]]
    second.load_state_dict(first.state_dict())
    assert found + [second.look(row, is_last=False) for row in drawn[cut:]] == expected


def test_probe_finds_units_that_are_always_zero_and_changes_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    model[0].bias.data[:6] = -100.0  # pyrefly: ignore
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert Probe(model, lambda count: torch.rand(count, 4)).dead_units() == [("1", 0.75)]
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_channels_are_the_units_of_an_image() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    model[0].bias.data[:] = torch.tensor([-100.0, -100.0, -100.0, 100.0])  # pyrefly: ignore
    assert Probe(model, lambda count: torch.rand(count, 1, 5, 5)).dead_units() == [("1", 0.75)]


POINTERS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"type": "Sequential", "layers": ["ReLU", "ReLU"]}, "1", "/model/layers/1"),
    ({"type": "Sequential", "layers": [{"type": "ext.Residual", "layers": ["ReLU"]}]}, "0.layers.0",
     "/model/layers/0/layers/0"),
    ({"type": "Graph", "nodes": [{"name": "a", "inputs": ["x"], "type": "ReLU"}]}, "a", "/model/nodes/0"),
    ({"type": "torchvision.resnet18"}, "layer1.0.relu", None),
]  # fmt: skip


@pytest.mark.parametrize(("model", "name", "pointer"), POINTERS)
def test_module_is_found_in_the_spec(model: dict[str, Any], name: str, pointer: str | None) -> None:
    assert pointer_of(model, name) == pointer


def linear(width: int) -> dict[str, Any]:
    return {"type": "Linear", "out_features": width}


REAL: list[tuple[str, dict[str, Any]]] = [
    ("lr_too_high", {"data": {"train": {"type": "sklearn.diabetes"}}, "loss": "MSELoss", "epochs": 4,
                     "model": {"type": "Sequential", "layers": [linear(1)]}, "optimizer": {"type": "SGD", "lr": 1.5}}),
    ("loss_stuck", {"optimizer": {"type": "SGD", "lr": 1e-7}, "epochs": 5}),
    ("dead_relus", {"model": {"type": "Sequential", "layers": [linear(16), "ReLU", linear(10)],
                              "bias_init": {"type": "constant_", "val": -1000.0}}, "epochs": 1}),
    ("vanishing_gradients", {"model": {"type": "Sequential", "layers": [
        part for _ in range(8) for part in (linear(16), "Sigmoid")] + [linear(10)]}, "epochs": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "more"), REAL, ids=[row[0] for row in REAL])
def test_training_that_goes_wrong_is_diagnosed(code: str, more: dict[str, Any], tmp_path: Path) -> None:
    job = Job({**DIGITS, **more}, tmp_path)
    job.attempt()
    found = {one["code"]: one for one in job.decisions if one["kind"] == "diagnosis"}
    assert code in found
    assert found[code]["epoch"] <= more["epochs"]
    assert found[code]["suggestion"]
