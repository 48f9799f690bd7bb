"""Exact resume where other state than that of `test_resume` decides: averages, plateaus, loss scales, closures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, ReduceLROnPlateau, SequentialLR

from core.spec.job import CheckpointEvery, Converged, EarlyStopping, Regularization, StopWhen
from core.train.loop import fit
from core.train.trainer import Trainer
from core.train.watch import Interrupted
from tests.core.train.small import Recorder, build, perceptron, two_moons
from tests.core.train.test_resume import assert_same, known, resume, stop_after


def plateau(optimizer: torch.optim.Optimizer, _steps: int) -> Any:
    return ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.5, cooldown=1)


def warm_up(optimizer: torch.optim.Optimizer, _steps: int) -> Any:
    parts = [LinearLR(optimizer, start_factor=0.1, total_iters=2), CosineAnnealingLR(optimizer, T_max=4)]
    return SequentialLR(optimizer, parts, milestones=[2])


VARIETIES: dict[str, dict[str, Any]] = {
    "equal average with a rate of its own": {"swa_start_epoch": 3},
    "plateau with cooldown": {"scheduler": plateau, "stopping": EarlyStopping(patience=4, cooldown=2)},
    "warm-up, then cosine": {"scheduler": warm_up},
    "accumulated batches with a penalty": {"accumulate": 3, "regularization": Regularization(l1=1e-3, l2=1e-2)},
    "loss scale of 16-mixed": {"precision": "16-mixed"},
    "bfloat16 forward": {"precision": "bf16-mixed"},
    "LBFGS": {"optimizer": lambda weights: torch.optim.LBFGS(weights, lr=0.1, max_iter=3)},
    "RMSprop with momentum": {"optimizer": lambda weights: torch.optim.RMSprop(weights, lr=0.01, momentum=0.9)},
    "history of converged": {"rules": (StopWhen(monitor="val_loss", converged=Converged(window=4, tolerance=0.2)),)},
    "dropped last batch": {"drop_last": True},
    "tapes": {"is_taped": True, "optimizer": lambda weights: torch.optim.AdamW(weights, lr=0.01)},
}


def trainer_of(folder: Path, recorder: Recorder, variety: dict[str, Any], **more: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(5)  # no attempt may depend on what was drawn before it
    trainer, _ = build(
        folder, recorder=recorder, model=perceptron(dropout=0.3, batch_norm=True), val=two_moons(40, seed=1),
        train=two_moons(100), every=CheckpointEvery(epochs=2), epochs=6, **variety, **more,
    )  # fmt: skip
    return trainer


@pytest.mark.parametrize("variety", VARIETIES)
def test_every_kind_of_state_is_resumed(variety: str, tmp_path: Path) -> None:
    whole, found = Recorder(), Recorder()
    expected = trainer_of(tmp_path / "a", whole, VARIETIES[variety])
    reason = fit(expected)
    per_epoch = expected.plan.updates_per_epoch
    trainer = trainer_of(tmp_path / "b", found, VARIETIES[variety])
    for step in (1, per_epoch, 3 * per_epoch - 1, 4 * per_epoch):
        if step >= expected.at.step:
            break
        stop_after(trainer, step)
        with pytest.raises(Interrupted):
            fit(trainer)
        trainer.save()
        found.stop = lambda: None
        trainer = trainer_of(tmp_path / "b", found, VARIETIES[variety], **known(found))
        resume(trainer, tmp_path / "b", found)
    assert fit(trainer) == reason
    assert_same((trainer, found), (expected, whole))


def test_sums_that_were_folded_resume_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.train.scoring.FOLD_EVERY", 3)
    monkeypatch.setattr("core.train.scoring.PENDING_ELEMENTS", 70)
    variety = {"batch_size": 8, "drop_last": False}
    whole, found = Recorder(), Recorder()
    expected = trainer_of(tmp_path / "a", whole, variety)
    fit(expected)
    trainer = trainer_of(tmp_path / "b", found, variety)
    stop_after(trainer, 8)
    with pytest.raises(Interrupted):
        fit(trainer)
    trainer.save()
    found.stop = lambda: None
    trainer = trainer_of(tmp_path / "b", found, variety, **known(found))
    resume(trainer, tmp_path / "b", found)
    fit(trainer)
    assert_same((trainer, found), (expected, whole))
