"""The loop against plain torch loops written out here: the same batches must give the same weights, bit for bit."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR

from core.spec.job import GradientClipping, Regularization
from core.train.build.muon import MuonWithAdamW
from core.train.data import Split, TrainBatches
from core.train.loop import fit
from tests.core.train.small import are_equal, build, perceptron, two_moons, weights_of

EPOCHS = 4


def muon(weights: Any) -> Optimizer:
    chosen = list(weights)
    return MuonWithAdamW([{"params": chosen}], lr=0.02)


OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda weights: torch.optim.Adam(weights, lr=0.01),
    "AdamW": lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1),
    "RMSprop": lambda weights: torch.optim.RMSprop(weights, lr=0.01, momentum=0.5),
    "Adadelta": lambda weights: torch.optim.Adadelta(weights, lr=0.5),
    "Adafactor": lambda weights: torch.optim.Adafactor(weights, lr=0.01),
    "Adagrad": lambda weights: torch.optim.Adagrad(weights, lr=0.05),
    "Adamax": lambda weights: torch.optim.Adamax(weights, lr=0.01),
    "ASGD": lambda weights: torch.optim.ASGD(weights, lr=0.05),
    "NAdam": lambda weights: torch.optim.NAdam(weights, lr=0.01),
    "RAdam": lambda weights: torch.optim.RAdam(weights, lr=0.01),
    "Rprop": lambda weights: torch.optim.Rprop(weights, lr=0.01),
    "LBFGS": lambda weights: torch.optim.LBFGS(weights, lr=0.1, max_iter=3),
    "MuonWithAdamW": muon,
}
SCHEDULERS: dict[str, Callable[[Optimizer, int], Any]] = {
    "none": lambda _optimizer, _steps: None,
    "ExponentialLR": lambda optimizer, _steps: ExponentialLR(optimizer, gamma=0.7),
    "StepLR": lambda optimizer, _steps: StepLR(optimizer, step_size=2, gamma=0.1),
    "CosineAnnealingLR": lambda optimizer, _steps: CosineAnnealingLR(optimizer, T_max=EPOCHS),
    "OneCycleLR": lambda optimizer, steps: OneCycleLR(
        optimizer, max_lr=0.05, total_steps=EPOCHS * steps, cycle_momentum="betas" in optimizer.defaults
    ),
    "ReduceLROnPlateau": lambda optimizer, _steps: ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.5),
}


def batches_of(
    split: Split, epoch: int, batch_size: int = 16, seed: int = 7
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    source = TrainBatches(
        split, batch_size=batch_size, seed=seed, shuffle=True, drop_last=False, device=torch.device("cpu")
    )
    return list(source.epoch(epoch))


@pytest.mark.parametrize("schedule", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_and_rates_equal_a_plain_loop(optimizer: str, schedule: str, tmp_path: Path) -> None:
    train, val = two_moons(60), two_moons(40, seed=1)
    interval = "step" if schedule == "OneCycleLR" else "epoch"
    trainer, recorder = build(
        tmp_path, train=train, val=val, optimizer=OPTIMIZERS[optimizer], scheduler=SCHEDULERS[schedule],
        interval=interval, epochs=EPOCHS,
    )  # fmt: skip
    assert fit(trainer) == "completed"

    model = perceptron()
    optim = OPTIMIZERS[optimizer](model.parameters())
    scheduler = SCHEDULERS[schedule](optim, 4)
    rates = []
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for inputs, target in batches_of(train, epoch):
            rate = [group["lr"] for group in optim.param_groups]
            step_by_hand(model, optim, inputs, target)
            if schedule == "OneCycleLR":
                scheduler.step()
        rates.append(rate)
        model.eval()
        with torch.no_grad():
            val_loss = float(cross_entropy(model(val.inputs), val.target))
        if schedule == "ReduceLROnPlateau":
            scheduler.step(val_loss)
        elif scheduler is not None and schedule != "OneCycleLR":
            scheduler.step()
    assert are_equal(weights_of(trainer.model), weights_of(model))
    assert [row["lr"] for row in recorder.rows] == rates


def step_by_hand(model: nn.Module, optim: Optimizer, inputs: torch.Tensor, target: torch.Tensor) -> None:
    def loss() -> torch.Tensor:
        optim.zero_grad()
        value = cross_entropy(model(inputs), target)
        value.backward()
        return value

    if isinstance(optim, torch.optim.LBFGS):
        optim.step(lambda: float(loss().detach()))
    else:
        loss()
        optim.step()


FORMULAS: dict[str, Callable[[int], float]] = {
    "CosineAnnealingLR": lambda epoch: 0.1 * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2,
    "StepLR": lambda epoch: 0.1 * 0.1 ** (epoch // 2),
    "ExponentialLR": lambda epoch: 0.1 * 0.7**epoch,
}


@pytest.mark.parametrize("schedule", FORMULAS)
def test_recorded_rates_follow_the_closed_formula(schedule: str, tmp_path: Path) -> None:
    trainer, recorder = build(tmp_path, scheduler=SCHEDULERS[schedule], epochs=EPOCHS)
    fit(trainer)
    expected = [[FORMULAS[schedule](epoch)] for epoch in range(EPOCHS)]
    for row, rates in zip(recorder.rows, expected, strict=True):
        assert row["lr"] == pytest.approx(rates, rel=1e-9)


def test_the_loss_of_an_epoch_is_the_mean_over_all_samples(tmp_path: Path) -> None:
    train = two_moons(50)  # 16 + 16 + 16 + 2
    trainer, recorder = build(
        tmp_path, train=train, val=train, optimizer=lambda weights: torch.optim.SGD(weights, lr=0.0), epochs=1
    )
    fit(trainer)
    mean = float(cross_entropy(perceptron()(train.inputs).double(), train.target).detach())
    assert recorder.rows[0]["train"]["loss"] == pytest.approx(mean, rel=1e-6)
    assert recorder.rows[0]["val"]["loss"] == pytest.approx(mean, rel=1e-6)


def test_validating_twice_gives_the_same_loss_with_dropout_and_batch_norm(tmp_path: Path) -> None:
    trainer, _ = build(tmp_path, model=perceptron(dropout=0.5, batch_norm=True), val=two_moons(40, seed=1), epochs=1)
    fit(trainer)
    assert trainer.val is not None
    assert trainer.evaluator(trainer.model, trainer.val) == trainer.evaluator(trainer.model, trainer.val)
    assert trainer.model.training


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    train = two_moons(50)
    adam = OPTIMIZERS["SGD"]
    accumulated, recorder = build(tmp_path, train=train, optimizer=adam, batch_size=8, accumulate=2, epochs=2)
    large, _ = build(tmp_path, train=train, optimizer=adam, batch_size=16, epochs=2)
    fit(accumulated)
    fit(large)
    assert recorder.rows[-1]["step"] == 8  # ceil(ceil(50 / 8) / 2) updates an epoch
    for left, right in zip(weights_of(accumulated.model), weights_of(large.model), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


def test_the_last_group_of_batches_is_weighted_by_its_samples(tmp_path: Path) -> None:
    train = two_moons(20)  # 16 + 4 samples in one update
    trainer, _ = build(tmp_path, train=train, accumulate=2, epochs=1)
    fit(trainer)
    model = perceptron()
    cross_entropy(model(train.inputs), train.target).backward()
    for weight, updated in zip(model.parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(weight - 0.1 * weight.grad, updated, rtol=1e-5, atol=1e-6)


def test_clipping_by_norm_reports_the_norm_before(tmp_path: Path) -> None:
    train = two_moons(32)
    trainer, recorder = build(tmp_path, train=train, clipping=GradientClipping(max_norm=0.01), epochs=1)
    fit(trainer)
    model, norms = perceptron(), []
    for inputs, target in batches_of(train, 1):
        model.zero_grad()
        cross_entropy(model(inputs), target).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.01)))
        with torch.no_grad():
            for weight in model.parameters():
                weight.sub_(0.1 * weight.grad)
    assert recorder.rows[0]["grad_norm"] == pytest.approx(sum(norms) / 2)
    assert are_equal(weights_of(trainer.model), weights_of(model))


def test_clipping_by_value_bounds_every_gradient(tmp_path: Path) -> None:
    trainer, _ = build(tmp_path, train=two_moons(16), clipping=GradientClipping(clip_value=0.001), epochs=1)
    fit(trainer)
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(trainer.model.parameters(), perceptron().parameters(), strict=True)
    ]
    assert max(moved) == pytest.approx(0.1 * 0.001, rel=1e-3)


def test_regularization_adds_the_formula_and_both_losses_are_reported(tmp_path: Path) -> None:
    spec = Regularization(l1=0.01, l2=0.1, exclude=("bias",))
    trainer, recorder = build(tmp_path, train=two_moons(16), regularization=spec, epochs=1)
    fit(trainer)
    weights = [w for name, w in perceptron().named_parameters() if "bias" not in name]
    penalty = sum(0.01 * float(w.detach().abs().sum()) + 0.1 * float(w.detach().square().sum()) for w in weights)
    train = recorder.rows[0]["train"]
    assert train["loss"] - train["data_loss"] == pytest.approx(penalty, rel=1e-5)


def test_without_regularization_there_is_no_data_loss(tmp_path: Path) -> None:
    trainer, recorder = build(tmp_path, epochs=1)
    fit(trainer)
    assert "data_loss" not in recorder.rows[0]["train"]


def test_ema_follows_its_formula_and_is_what_is_validated(tmp_path: Path) -> None:
    val = two_moons(40, seed=1)
    trainer, recorder = build(tmp_path, model=perceptron(batch_norm=True), val=val, ema=0.5, epochs=2, every="auto")
    model = perceptron(batch_norm=True)
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    average: list[torch.Tensor] = []
    for epoch in (1, 2):
        for inputs, target in batches_of(two_moons(), epoch):
            optim.zero_grad()
            cross_entropy(model(inputs), target).backward()
            optim.step()
            now = [weight.detach().clone() for weight in model.parameters()]
            average = [a + 0.5 * (b - a) for a, b in zip(average, now, strict=True)] if average else now
    fit(trainer)
    for found, expected in zip(trainer.judged_model.parameters(), average, strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.equal(trainer.judged_model[1].running_mean, model[1].running_mean)  # type: ignore[index]
    loss = float(cross_entropy(trainer.judged_model(val.inputs), val.target))
    assert recorder.rows[-1]["val"]["loss"] == pytest.approx(loss, rel=1e-6)


def test_swa_is_the_mean_of_the_late_epochs(tmp_path: Path) -> None:
    trainer, _ = build(tmp_path, model=perceptron(batch_norm=True), swa_start_epoch=2, epochs=4)
    model = perceptron(batch_norm=True)
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    late = []
    for epoch in range(1, 5):
        for inputs, target in batches_of(two_moons(), epoch):
            optim.zero_grad()
            cross_entropy(model(inputs), target).backward()
            optim.step()
        late += [[weight.detach().clone() for weight in model.parameters()]] if epoch >= 2 else []
    fit(trainer)
    for found, *others in zip(trainer.judged_model.parameters(), *late, strict=True):
        torch.testing.assert_close(found, torch.stack(others).mean(dim=0))
    assert not torch.equal(trainer.judged_model[1].running_mean, model[1].running_mean)  # type: ignore[index]


def test_lbfgs_gets_its_closure(tmp_path: Path) -> None:
    trainer, recorder = build(
        tmp_path, batch_size=60, optimizer=lambda weights: torch.optim.LBFGS(weights, lr=0.5, max_iter=5), epochs=3
    )
    fit(trainer)
    model = perceptron()
    optim = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
    for epoch in (1, 2, 3):
        ((inputs, target),) = batches_of(two_moons(), epoch, batch_size=60)

        def closure(inputs: torch.Tensor = inputs, target: torch.Tensor = target) -> torch.Tensor:
            optim.zero_grad()
            loss = cross_entropy(model(inputs), target)
            loss.backward()
            return loss

        optim.step(closure)  # type: ignore[arg-type]
    assert are_equal(weights_of(trainer.model), weights_of(model))
    assert recorder.rows[-1]["step"] == 3


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_learns(precision: str, tmp_path: Path) -> None:
    trainer, recorder = build(tmp_path, precision=precision, epochs=6)
    fit(trainer)
    assert recorder.rows[-1]["train"]["loss"] < recorder.rows[0]["train"]["loss"]
    assert all(weight.dtype == torch.float32 for weight in trainer.model.parameters())
    assert math.isfinite(recorder.rows[-1]["grad_norm"])
