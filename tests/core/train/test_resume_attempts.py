"""Exact resume of whole attempts: stopped, or killed after a checkpoint, anywhere, whatever the spec has state for.

The trainer here looks up after every update and every batch that is validated, so that "anywhere" can be counted.
"""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.messages import Done, Stopped
from core.spec import catalog
from core.train import watch
from tests.core.train.attempts import SPEC, Job

EVERYTHING: dict[str, Any] = {
    **SPEC,
    "lr_scheduler": {"type": "OneCycleLR", "max_lr": 0.3, "total_steps": "steps", "interval": "step"},
    "gradient_clipping": {"max_norm": 0.5},
    "ema": {"decay": 0.8},
    "early_stopping": {"monitor": "val_loss", "patience": 2, "min_delta": 0.02},
    "stop_when": {"monitor": "train_loss", "below": 1e-6},
    "evaluate_at_start": True,
    "epochs": 3,
}
EVERYTHING_LOOKS = 19
"""One before loading, 2 while the start is judged, 5 in each of 3 epochs (4 updates, validation), one in the test."""


@pytest.fixture(autouse=True)
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.train.watch.POLL_SECONDS", 0.0)


def undisturbed(spec: dict[str, Any], folder: Path) -> Job:
    job = Job(spec, folder)
    job.attempt()
    return job


def interrupted(spec: dict[str, Any], folder: Path, looks: list[int], reason: str = "pause") -> Job:
    """Carry a job to its end, its first attempts stopped at their `looks`-th look each."""
    job = Job(spec, folder)
    for stop_at in looks:
        if isinstance(job.attempt(stop_at=stop_at, reason=reason).last, Done):
            return job
    job.attempt()
    return job


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "POLL_SECONDS", 0.0)
        return undisturbed(EVERYTHING, tmp_path_factory.mktemp("whole"))


def test_the_job_has_as_many_places_to_stop_at_as_the_tests_count(whole: Job) -> None:
    assert whole.attempts[0].looks == EVERYTHING_LOOKS


@pytest.mark.parametrize("look", range(1, EVERYTHING_LOOKS + 1))
def test_stopped_anywhere_a_job_ends_as_if_nobody_had(look: int, whole: Job, tmp_path: Path) -> None:
    job = interrupted(EVERYTHING, tmp_path, [look])
    assert isinstance(job.attempts[0].last, Stopped)
    assert job.outcome() == whole.outcome()


@pytest.mark.parametrize("reason", ["drain", "outage"])
def test_it_does_not_matter_why_it_was_stopped(reason: str, whole: Job, tmp_path: Path) -> None:
    assert interrupted(EVERYTHING, tmp_path, [9], reason).outcome() == whole.outcome()


def test_stopped_after_every_single_update_a_job_ends_as_if_nobody_had(whole: Job, tmp_path: Path) -> None:
    job = Job(EVERYTHING, tmp_path)
    job.attempt(stop_at=4)  # the first look after an update
    while isinstance(job.attempts[-1].last, Stopped):
        is_epoch_over = job.publications[-1].checkpoint.step % 4 == 0  # then it looks up once more, to validate
        job.attempt(stop_at=3 if is_epoch_over else 2)
    assert len(job.attempts) == 3 * 4 + 2  # the last stop comes while the test set is looked at
    assert job.outcome() == whole.outcome()


@settings(max_examples=8, deadline=None)
@given(looks=st.lists(st.integers(1, EVERYTHING_LOOKS), min_size=1, max_size=4))
@example(looks=[4, 2, 7])
def test_stopped_at_random_places_a_job_ends_as_if_nobody_had(
    looks: list[int], whole: Job, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert interrupted(EVERYTHING, tmp_path_factory.mktemp("random"), looks).outcome() == whole.outcome()


def test_killed_after_any_checkpoint_a_job_ends_as_if_nobody_had(
    whole: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.train.journal.LONG_SECONDS", 0.0)  # a checkpoint after every update
    killed = undisturbed(EVERYTHING, tmp_path / "killed")
    assert len(killed.publications) == 1 + 3 * (4 + 1)
    for publications in range(1, len(killed.publications) + 1):
        job = killed.killed_after(publications, tmp_path / str(publications))
        job.attempt()
        assert job.outcome() == whole.outcome(), killed.publications[publications - 1].checkpoint


@pytest.mark.parametrize("older", [1, 2, 3])
def test_rows_published_after_the_checkpoint_that_is_left_are_not_published_again(
    older: int, whole: Job, tmp_path: Path
) -> None:
    job = whole.killed_after(older, tmp_path)
    last = job.attempt(published_epochs=3).last
    assert isinstance(last, Done)
    assert job.rows == whole.rows[:older]
    assert job.artifact("model.safetensors") == whole.artifact("model.safetensors")


LAYERS = SPEC["model"]["layers"]
MATRICES = [
    {"type": "Linear", "out_features": 8, "bias": False}, "Tanh", {"type": "Dropout", "p": 0.25},
    {"type": "Linear", "out_features": 3, "bias": False},
]  # fmt: skip
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "ASGD": {"t0": 3, "lambd": 0.01},
    "Adadelta": {"lr": 1.0},
    "Adafactor": {"lr": 0.05},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
    "Adam": {"lr": 0.02, "amsgrad": True},
    "AdamW": {"lr": 0.02, "weight_decay": 0.1},
    "Adamax": {"lr": 0.05},
    "LBFGS": {"lr": 0.2, "max_iter": 3, "history_size": 4},
    "Muon": {"lr": 0.05},
    "NAdam": {"lr": 0.02},
    "RAdam": {"lr": 0.05},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "centered": True},
    "Rprop": {"lr": 0.01},
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
}
NOT_SUPERVISED = {"SparseAdam"}
"""Its gradients are sparse: only embeddings have such."""


def optimizer(name: str, **more: Any) -> dict[str, Any]:
    spec = {**SPEC, "optimizer": {"type": name, **OPTIMIZERS[name]}, **more}
    return {**spec, "model": {"type": "Sequential", "layers": MATRICES}} if name == "Muon" else spec


SCHEDULERS: dict[str, dict[str, Any]] = {
    "ChainedScheduler": {
        "schedulers": [{"type": "ConstantLR", "total_iters": 5}, {"type": "ExponentialLR", "gamma": 0.9}],
        "interval": "step",
    },
    "ConstantLR": {"factor": 0.5, "total_iters": 2},
    "CosineAnnealingLR": {"T_max": "steps", "interval": "step"},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2, "interval": "step"},
    "CyclicLR": {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 3, "interval": "step", "mode": "triangular2"},
    "ExponentialLR": {"gamma": 0.7},
    "LinearLR": {"start_factor": 0.1, "total_iters": "steps", "interval": "step"},
    "MultiStepLR": {"milestones": [2, 5, 7], "gamma": 0.5, "interval": "step"},
    "OneCycleLR": {"max_lr": 0.2, "total_steps": "steps", "interval": "step"},
    "PolynomialLR": {"total_iters": "epochs", "power": 2.0},
    "ReduceLROnPlateau": {"factor": 0.5, "patience": 0, "threshold": 0.5, "cooldown": 1},
    "SequentialLR": {
        "schedulers": [
            {"type": "LinearLR", "start_factor": 0.1, "total_iters": 4},
            {"type": "CosineAnnealingLR", "T_max": 8},
        ],
        "milestones": [4],
        "interval": "step",
    },
    "StepLR": {"step_size": 1, "gamma": 0.5},
}  # fmt: skip

IMAGES: dict[str, Any] = {
    "data": {
        "train": {"type": "sklearn.digits", "as": "image"},
        "val": {"from": "train", "fraction": 0.2},
        "max_samples": 120,
        "transforms": {
            "train": [
                {"type": "RandomAffine", "degrees": 10, "translate": [0.1, 0.1]},
                {"type": "RandomHorizontalFlip", "p": 0.3},
                {"type": "ToDtype", "dtype": "float32", "scale": True},
                {"type": "GaussianNoise", "sigma": 0.1},
            ],
            "eval": [{"type": "ToDtype", "dtype": "float32", "scale": True}],
        },
    },
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Conv2d", "out_channels": 4, "kernel_size": 3}, "BatchNorm2d", "ReLU",
            {"type": "Dropout2d", "p": 0.2}, "Flatten", {"type": "Linear", "out_features": 10},
        ],
    },
}  # fmt: skip
SERIES = {
    "type": "Sequential",
    "layers": [
        {"type": "Unflatten", "dim": 1, "unflattened_size": [4, 1]},
        {"type": "LSTM", "hidden_size": 6, "num_layers": 2, "dropout": 0.2, "batch_first": True},
        "ext.LastTimestep", {"type": "Linear", "out_features": 3},
    ],
}  # fmt: skip
VARIETIES: dict[str, dict[str, Any]] = {
    "equal average (SWA) with a rate of its own": {"swa": {"start_epoch": 2, "lr": 0.05}},
    "equal average from the first epoch on": {"swa": {"start_epoch": 1, "lr": 0.05}},
    "best weights restored, patience run out": {
        "optimizer": {"type": "SGD", "lr": 3.0},
        "early_stopping": {"monitor": "val_loss", "patience": 1, "restore_best": True},
        "epochs": 6,
    },
    "best weights kept, last returned": {
        "early_stopping": {"monitor": "val_accuracy", "patience": 3, "restore_best": False}
    },
    "plateau cut with cooldown of early stopping": {
        "lr_scheduler": {"type": "ReduceLROnPlateau", "factor": 0.5, "patience": 0, "threshold": 0.9},
        "early_stopping": {"patience": 2, "cooldown": 2, "min_delta": 0.3},
        "epochs": 5,
    },
    "validation by steps, with early stopping": {
        "validate_every": {"steps": 3}, "early_stopping": {"patience": 3, "min_delta": 0.2},
    },
    "no longer moving": {
        "stop_when": {"monitor": "val_loss", "converged": {"window": 3, "tolerance": 0.5}}, "epochs": 6,
    },
    "ended by max_steps in mid-epoch": {"max_steps": 7, "epochs": 9},
    "accumulated batches, with a penalty": {
        "accumulate_grad_batches": 3, "regularization": {"l1": 1e-3, "l2": 1e-2, "exclude": ["bias"]},
    },
    "clipped by value": {"gradient_clipping": {"clip_value": 0.01}},
    "last batch dropped": {"drop_last": True, "batch_size": 20},
    "one batch for all": {"batch_size": "full", "epochs": 6},
    "no shuffling": {"shuffle": False},
    "Muon beside AdamW": {"optimizer": {"type": "Muon", "lr": 0.02}},
    "parameter groups": {"optimizer": {"type": "Adam", "lr": 0.01, "param_groups": [{"match": "^0", "lr": 0.1}]}},
    "random transforms, convolution": IMAGES,
    "recurrent layers with dropout": {"model": SERIES},
    "balanced class weights, many metrics": {
        "loss": {"type": "CrossEntropyLoss", "weight": "balanced"},
        "metrics": ["accuracy", "f1", "auroc", "confusion_matrix", "log_loss"],
    },
    "regression, target standardised": {
        "data": {
            "train": {"type": "sklearn.diabetes"}, "val": {"from": "train", "fraction": 0.2}, "max_samples": 120,
            "preprocess": ["StandardScaler", {"type": "StandardScaler", "columns": ["target"]}],
        },
        "model": {"type": "Sequential", "layers": [*LAYERS[:-1], {"type": "Linear", "out_features": 1}]},
        "loss": "SmoothL1Loss",
    },
    "bf16-mixed": {"precision": "bf16-mixed"},
    "16-mixed with its loss scale": {"precision": "16-mixed"},
    "bf16-true": {"precision": "bf16-true"},
    "bf16-true with sums finer than the weights (NAdam)": optimizer("NAdam", precision="bf16-true"),
    "bf16-true with sums finer than the weights (ASGD)": optimizer("ASGD", precision="bf16-true"),
    "checkpoints grouped": {"checkpoints": {"every": {"epochs": 2}}, "epochs": 5},
    "deterministic": {"deterministic": True},
}  # fmt: skip


def all_varieties() -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = {name: {**SPEC, **change} for name, change in VARIETIES.items()}
    cases |= {f"optimizer {name}": optimizer(name) for name in OPTIMIZERS}
    momentum = {"type": "SGD", "lr": 0.05, "momentum": 0.9}
    cases |= {
        f"schedule {name}": {**SPEC, "optimizer": momentum, "lr_scheduler": {"type": name, **arguments}}
        for name, arguments in SCHEDULERS.items()
    }
    return cases


ALL = all_varieties()


def test_every_optimizer_and_schedule_of_the_catalog_is_resumed() -> None:
    optimizers = {entry.name for entry in catalog.entries("optimizers") if entry.refused is None}
    schedulers = {entry.name for entry in catalog.entries("lr_schedulers") if entry.refused is None}
    assert set(OPTIMIZERS) | NOT_SUPERVISED == optimizers
    assert set(SCHEDULERS) == schedulers


@pytest.mark.parametrize("variety", ALL)
def test_every_kind_of_state_is_resumed(variety: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.train.journal.LONG_SECONDS", 0.0)  # a checkpoint after every update
    whole = undisturbed(ALL[variety], tmp_path / "whole")
    expected = whole.outcome()
    places = random.Random(variety)
    left = places.randrange(2, len(whole.publications))
    killed = whole.killed_after(left, tmp_path / "killed")
    killed.attempt()
    assert killed.outcome() == expected, whole.publications[left - 1].checkpoint
    monkeypatch.setattr("core.train.journal.LONG_SECONDS", 600.0)
    looks = [places.randrange(4, whole.attempts[0].looks // 2), places.randrange(3, 7)]
    stopped = interrupted(ALL[variety], tmp_path / "stopped", looks)
    assert len(stopped.attempts) >= 2
    assert stopped.outcome() == expected, looks


@pytest.mark.parametrize(
    "change",
    [
        {"validate_every": {"steps": 2}, "early_stopping": {"patience": 3, "min_delta": 0.2}},
        {"swa": {"start_epoch": 1, "lr": 0.05}},
    ],
    ids=["validation that falls on the end of an epoch", "equal average, stopped while it is validated"],
)
def test_nothing_is_judged_or_averaged_twice(change: dict[str, Any], tmp_path: Path) -> None:
    spec = {**SPEC, **change, "epochs": 2}
    whole = undisturbed(spec, tmp_path / "whole")
    expected = whole.outcome()
    for look in range(2, whole.attempts[0].looks + 1):
        stopped = interrupted(spec, tmp_path / f"stopped-{look}", [look])
        assert len(stopped.attempts) == 2
        assert stopped.outcome() == expected, look
    killed = whole.killed_after(1, tmp_path / "killed")
    killed.attempt()
    assert killed.outcome() == expected
