"""Planted mistakes: each is reported at its place, and where there is a fix, the fix mends it."""

from pathlib import Path
from typing import Any

import pytest

from core.errors import Issue
from tests.core.train.specs import DIABETES, DIGITS, IMAGES, changed, checked, mended

FLOAT: dict[str, Any] = {"type": "ToDtype", "dtype": "float32", "scale": True}
RESNET: dict[str, Any] = {"type": "torchvision.resnet18", "num_classes": 10}
BINARY = changed(
    DIGITS,
    ("replace", "/data/train/type", "sklearn.breast_cancer"),
    ("replace", "/loss", "BCEWithLogitsLoss"),
    ("replace", "/model/layers/2/out_features", 1),
)
MOONS: dict[str, Any] = {"type": "synthetic.moons", "samples": 65}


def norms(batch_size: int, samples: int) -> dict[str, Any]:
    return changed(
        DIGITS,
        ("replace", "/data", {"train": {**MOONS, "samples": samples}}),
        ("replace", "/batch_size", batch_size),
        ("add", "/model/layers/1", "BatchNorm1d"),
        ("replace", "/model/layers/3/out_features", 2),
    )


MENDED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a size that does not follow from the layer before": (
        changed(DIGITS, ("add", "/model/layers/2/in_features", 64)),
        "/model/layers/2/in_features",
        "size_mismatch",
    ),
    "a first layer that does not fit the data": (
        changed(DIGITS, ("add", "/model/layers/0/in_features", 784)),
        "/model/layers/0/in_features",
        "size_mismatch",
    ),
    "channels that do not follow": (
        changed(IMAGES, ("add", "/model/layers/0/in_channels", 3)),
        "/model/layers/0/in_channels",
        "size_mismatch",
    ),
    "a Linear on images that are not flat, with the flat size": (
        changed(IMAGES, ("remove", "/model/layers/2", None), ("add", "/model/layers/2/in_features", 144)),
        "/model/layers/2/in_features",
        "size_mismatch",
    ),
    "a Linear on images that are not flat": (
        changed(IMAGES, ("remove", "/model/layers/2", None)),
        "/model/layers/2",
        "output_shape",
    ),
    "fewer outputs than classes": (
        changed(DIGITS, ("replace", "/model/layers/2/out_features", 9)),
        "/model/layers/2/out_features",
        "outputs",
    ),
    "more outputs than classes": (
        changed(DIGITS, ("replace", "/model/layers/2/out_features", 100)),
        "/model/layers/2/out_features",
        "outputs",
    ),
    "a torchvision model with the wrong number of classes": (
        changed(
            IMAGES,
            ("add", "/data/transforms/train/0", "RGB"),
            ("add", "/data/transforms/eval/0", "RGB"),
            ("replace", "/model", {**RESNET, "num_classes": 1000}),
        ),
        "/model/num_classes",
        "outputs",
    ),
    "a target of one column against several outputs": (
        changed(DIABETES, ("replace", "/model/layers/0/out_features", 3)),
        "/model/layers/0/out_features",
        "outputs",
    ),
    "[n] against [n, 1]": (
        changed(DIABETES, ("add", "/model/layers/-", {"type": "Flatten", "start_dim": 0})),
        "/model/layers/1",
        "output_shape",
    ),
    "a monitor that the metrics do not have": (
        changed(DIGITS, ("add", "/early_stopping", {"monitor": "val_f1"})),
        "/early_stopping/monitor",
        "monitor",
    ),
    "a monitor with a typing error": (
        changed(DIGITS, ("add", "/early_stopping", {"monitor": "val_acuracy", "mode": "max"})),
        "/early_stopping/monitor",
        "monitor",
    ),
    "a monitor of a validation set that is not there": (
        changed(DIGITS, ("remove", "/data/val", None), ("add", "/early_stopping", {})),
        "/early_stopping/monitor",
        "monitor",
    ),
    "a plateau's monitor that is not there": (
        changed(DIGITS, ("add", "/lr_scheduler", {"type": "ReduceLROnPlateau", "monitor": "valid_loss"})),
        "/lr_scheduler/monitor",
        "monitor",
    ),
    "BatchNorm with a last batch of one": (norms(32, 65), "/batch_size", "batch_norm_of_one"),
    "random transforms in eval": (
        changed(IMAGES, ("add", "/data/transforms/eval/0", {"type": "RandomHorizontalFlip"})),
        "/data/transforms/eval/0",
        "random_in_eval",
    ),
    "images that stay uint8": (
        changed(IMAGES, ("replace", "/data/transforms/train", ["ToImage"])),
        "/data/transforms/train",
        "not_float",
    ),
    "Normalize on uint8": (
        changed(
            IMAGES, ("replace", "/data/transforms/train", [{"type": "Normalize", "mean": [0.5], "std": [0.5]}])
        ),
        "/data/transforms/train/0",
        "not_float",
    ),
    "Normalize with means for other channels": (
        changed(
            IMAGES, ("add", "/data/transforms/train/1", {"type": "Normalize", "mean": [0.5] * 3, "std": [0.5] * 3})
        ),
        "/data/transforms/train/1/mean",
        "channels",
    ),
    "a metric of another task": (
        changed(DIGITS, ("add", "/metrics", ["accuracy", "rmse"])),
        "/metrics/1",
        "metric_and_task",
    ),
    "an average of two classes for ten": (
        changed(DIGITS, ("add", "/metrics", [{"type": "f1", "average": "binary"}])),
        "/metrics/0/average",
        "average",
    ),
    "labels for a loss of numbers": (changed(DIGITS, ("replace", "/loss", "MSELoss")), "/loss", "target_is_classes"),
    "ten classes for a loss of two": (
        changed(DIGITS, ("replace", "/loss", "BCEWithLogitsLoss")),
        "/loss",
        "too_many_classes",
    ),
    "amounts for a loss of yes and no": (
        changed(DIABETES, ("replace", "/loss", "BCEWithLogitsLoss")), "/loss", "target_not_yes_or_no"
    ),
    "a task that the loss contradicts": (changed(DIGITS, ("add", "/task", "regression")), "/task", "task_contradicts"),
    "raw outputs for BCELoss": (changed(BINARY, ("replace", "/loss", "BCELoss")), "/loss", "not_probabilities"),
    "a schedule that ends before the job": (
        changed(DIGITS, ("add", "/lr_scheduler", {"type": "OneCycleLR", "max_lr": 1.0, "total_steps": 2})),
        "/lr_scheduler/total_steps",
        "schedule_too_short",
    ),
    "a schedule without its length": (
        changed(DIGITS, ("add", "/lr_scheduler", {"type": "OneCycleLR", "max_lr": 1.0, "interval": "step"})),
        "/lr_scheduler/total_steps",
        "missing_argument",
    ),
    "a shortcut that does not fit": (
        changed(
            IMAGES,
            ("replace", "/model/layers/0", {"type": "ext.Residual", "layers": [
                {"type": "Conv2d", "out_channels": 8, "kernel_size": 3, "padding": 1, "stride": 2}]}),
        ),
        "/model/layers/0",
        "unequal_shortcut",
    ),
    "a convolution on a table": (
        changed(DIGITS, ("add", "/model/layers/0", {"type": "Conv1d", "out_channels": 2, "kernel_size": 3}),
                ("add", "/model/layers/1", "Flatten")),
        "/model/layers/0",
        "wrong_dimensions",
    ),
    "a recurrent layer that would mix samples": (
        changed(DIGITS, ("replace", "/model/layers", [
            {"type": "Unflatten", "dim": 1, "unflattened_size": [8, 8]}, {"type": "LSTM", "hidden_size": 16},
            "ext.LastTimestep", {"type": "Linear", "out_features": 10}])),
        "/model/layers/1/batch_first",
        "batch_is_time",
    ),
    "a batch that cannot be filled": (
        changed(DIABETES, ("replace", "/batch_size", 1000), ("add", "/drop_last", True)),
        "/batch_size",
        "no_batches",
    ),
    "a part to freeze that is not there": (
        changed(
            IMAGES,
            ("add", "/data/transforms/train/0", "RGB"),
            ("add", "/data/transforms/eval/0", "RGB"),
            ("replace", "/model", {**RESNET, "freeze": ["layer1", "layr2"]}),
        ),
        "/model/freeze/1",
        "unknown_module",
    ),
    "two kinds of averaged weights": (
        changed(DIGITS, ("add", "/ema", {}), ("add", "/swa", {"start_epoch": 2})),
        "/swa",
        "ema_and_swa",
    ),
}  # fmt: skip
"""Body, pointer, code; each has a fix that mends it."""

TOLD: dict[str, tuple[dict[str, Any], str, str]] = {
    "momentum cycled without momentum": (
        changed(DIGITS, ("replace", "/optimizer", "Adagrad"), ("add", "/lr_scheduler", {
            "type": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1})),
        "/lr_scheduler/cycle_momentum",
        "torch_refuses",
    ),
    "everything frozen": (changed(DIGITS, ("add", "/model/freeze", ["0", "2"])), "/model/freeze", "all_frozen"),
    "a kernel larger than the image": (
        changed(IMAGES, ("replace", "/model/layers/0/kernel_size", 9)),
        "/model/layers/0",
        "layer_refuses",
    ),
    "groups that do not divide": (
        changed(IMAGES, ("add", "/model/layers/1", {"type": "GroupNorm", "num_groups": 3})),
        "/model/layers/1/num_groups",
        "torch_refuses",
    ),
    "a nested layer that cannot be": (
        changed(IMAGES, ("add", "/model/layers/1", {"type": "ext.Residual", "layers": [
            {"type": "Conv2d", "out_channels": 4, "kernel_size": 3, "groups": 3}]})),
        "/model/layers/1/layers/0/groups",
        "torch_refuses",
    ),
    "gray images for a model of colour images": (
        changed(IMAGES, ("replace", "/model", RESNET)), "/model/type", "channels"
    ),
    "a table for a model of images": (changed(DIGITS, ("replace", "/model", RESNET)), "/model/type", "not_images"),
    "images too small for the model": (
        changed(
            IMAGES,
            ("add", "/data/transforms/train/0", "RGB"),
            ("add", "/data/transforms/eval/0", "RGB"),
            ("replace", "/model", {"type": "torchvision.inception_v3"}),
        ),
        "/model/type",
        "layer_refuses",
    ),
    "weights that nobody has downloaded": (
        changed(
            IMAGES,
            ("add", "/data/transforms/train/0", "RGB"),
            ("add", "/data/transforms/eval/0", "RGB"),
            ("replace", "/model", {**RESNET, "weights": "IMAGENET1K_V1"}),
        ),
        "/model/weights",
        "weights_not_cached",
    ),
    "a part to replace that is not there": (
        changed(
            IMAGES,
            ("add", "/data/transforms/train/0", "RGB"),
            ("add", "/data/transforms/eval/0", "RGB"),
            ("replace", "/model", {**RESNET, "replace": {"head": {"type": "Linear", "out_features": 10}}}),
        ),
        "/model/replace/head",
        "unknown_module",
    ),
    "a graph with too few outputs": (
        changed(DIGITS, ("replace", "/model", {"type": "Graph", "inputs": ["x"], "outputs": ["y"], "nodes": [
            {"type": "Linear", "out_features": 9, "name": "y", "inputs": ["x"]}]})),
        "/model/nodes/0/out_features",
        "outputs",
    ),
    "a group of parameters that matches nothing": (
        changed(DIGITS, ("add", "/optimizer/param_groups", [{"match": "^fc", "lr": 1.0}])),
        "/optimizer/param_groups/0/match",
        "matches_nothing",
    ),
    "Nesterov without momentum": (
        changed(DIGITS, ("add", "/optimizer/nesterov", True)), "/optimizer/nesterov", "torch_refuses"
    ),
    "a negative rate": (changed(DIGITS, ("replace", "/optimizer/lr", -1)), "/optimizer/lr", "torch_refuses"),
    "Muon without a matrix": (
        changed(DIGITS, ("replace", "/optimizer", "Muon"), ("add", "/model/freeze", ["0.weight", "2.weight"])),
        "/optimizer/type",
        "muon_2d",
    ),
    "SparseAdam without embeddings": (
        changed(DIGITS, ("replace", "/optimizer", "SparseAdam")), "/optimizer/type", "dense_gradients"
    ),
    "a plateau within a sequence": (
        changed(DIGITS, ("add", "/lr_scheduler", {
            "type": "SequentialLR", "schedulers": ["ReduceLROnPlateau", {"type": "StepLR", "step_size": 1}],
            "milestones": [1]})),
        "/lr_scheduler/schedulers/0",
        "plateau_nested",
    ),
    "a sequence with too few milestones": (
        changed(DIGITS, ("add", "/lr_scheduler", {
            "type": "SequentialLR", "schedulers": [{"type": "StepLR", "step_size": 1}] * 2, "milestones": []})),
        "/lr_scheduler/milestones",
        "torch_refuses",
    ),
    "weights for other classes": (
        changed(DIGITS, ("replace", "/loss", {"type": "CrossEntropyLoss", "weight": [1, 2]})),
        "/loss/weight",
        "class_weights",
    ),
    "a split that leaves nothing": (
        changed(DIGITS, ("replace", "/data", {
            "train": {**MOONS, "samples": 2}, "val": {"from": "train", "fraction": 0.4},
            "test": {"from": "train", "fraction": 0.4}}), ("replace", "/model/layers/2/out_features", 2)),
        "/data/val/fraction",
        "too_few_samples",
    ),
    "batches of one for BatchNorm": (norms(1, 64), "/batch_size", "batch_norm_of_one"),
    "more parameters than allowed": (
        changed(DIGITS, ("replace", "/model/layers/0/out_features", 2 * 10**7)), "/model", "too_many_parameters"
    ),
    "a size that no memory has": (
        changed(DIGITS, ("replace", "/model/layers/0/out_features", 2**62)), "/model/layers/0", "torch_refuses"
    ),
    "a layer of several inputs": (
        changed(DIGITS, ("add", "/model/layers/0", {"type": "Bilinear", "in1_features": 2, "in2_features": 2,
                                                    "out_features": 2})),
        "/model/layers/0",
        "several_inputs",
    ),
    "words looked up by numbers that are not whole": (
        changed(DIGITS, ("add", "/model/layers/0", {"type": "Embedding", "num_embeddings": 17, "embedding_dim": 4})),
        "/model/layers/0",
        "not_integers",
    ),
    "a transform that these samples do not take": (
        changed(DIGITS, ("add", "/data/transforms", {"train": [{"type": "RandomCrop", "size": 4}], "eval": []})),
        "/data/transforms/train/0",
        "transform_refuses",
    ),
    "eval images of another size": (
        changed(IMAGES, ("add", "/data/transforms/train/0", {"type": "Resize", "size": [16, 16]})),
        "/data/transforms/eval",
        "transforms_differ",
    ),
    "losses of two tasks": (
        changed(BINARY, ("replace", "/loss", ["BCEWithLogitsLoss", "CrossEntropyLoss"])), "/loss/1", "losses_disagree"
    ),
    "initial values for other shapes": (
        changed(DIGITS, ("add", "/model/weight_init", "dirac_")), "/model/weight_init", "torch_refuses"
    ),
    "a data set that the operator does not have": (
        changed(DIGITS, ("replace", "/data", {"train": {"type": "torchvision.MNIST"}})),
        "/data/train/type",
        "dataset_missing",
    ),
    "a column that is not there": (
        changed(DIABETES, ("add", "/data/preprocess", [{"type": "StandardScaler", "columns": ["agee"]}])),
        "/data/preprocess/0/columns/0",
        "unknown_column",
    ),
    "a batch that becomes one sample": (
        changed(DIGITS, ("add", "/model/layers/0", {"type": "Unflatten", "dim": 0, "unflattened_size": [1, -1]})),
        "/model/layers/0",
        "batch_lost",
    ),
}  # fmt: skip
"""Body, pointer, code; what is meant cannot be known."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def only(issues: tuple[Issue, ...]) -> Issue:
    assert len(issues) == 1, [issue.as_json() for issue in issues]
    return issues[0]


@pytest.mark.parametrize(("body", "pointer", "code"), MENDED.values(), ids=MENDED)
def test_a_mistake_is_reported_at_its_place_and_its_fix_mends_it(
    cache: Path, body: dict[str, Any], pointer: str, code: str
) -> None:
    issue = only(checked(body, cache).errors)
    assert (issue.pointer, issue.code) == (pointer, code)
    again = checked(mended(body, issue), cache)
    assert not again.errors, [error.as_json() for error in again.errors]


@pytest.mark.parametrize(("body", "pointer", "code"), TOLD.values(), ids=TOLD)
def test_a_mistake_is_reported_at_its_place(cache: Path, body: dict[str, Any], pointer: str, code: str) -> None:
    issue = only(checked(body, cache).errors)
    assert (issue.pointer, issue.code) == (pointer, code)


def test_all_mistakes_of_a_spec_are_reported_at_once(cache: Path) -> None:
    body = changed(
        DIGITS,
        ("add", "/model/layers/0/in_features", 3),
        ("add", "/model/layers/2/in_features", 5),
        ("replace", "/model/layers/2/out_features", 3),
        ("replace", "/optimizer/lr", -1),
        ("add", "/early_stopping", {"monitor": "val_recall"}),
    )
    found = {issue.pointer for issue in checked(body, cache).errors}
    assert found == {
        "/model/layers/0/in_features",
        "/model/layers/2/in_features",
        "/model/layers/2/out_features",
        "/optimizer/lr",
        "/early_stopping/monitor",
    }


WARNED: dict[str, tuple[dict[str, Any], str, str]] = {
    "softmax before cross-entropy": (
        changed(DIGITS, ("add", "/model/layers/-", {"type": "Softmax", "dim": 1})),
        "/model/layers/3",
        "doubled_softmax",
    ),
    "sigmoid before logits": (
        changed(BINARY, ("add", "/model/layers/-", "Sigmoid")), "/model/layers/3", "doubled_softmax"
    ),
    "raw outputs for NLLLoss": (changed(DIGITS, ("replace", "/loss", "NLLLoss")), "/loss", "not_log_probabilities"),
    "images from 0 to 255": (changed(IMAGES, ("remove", "/data/transforms", None)), "/data", "unscaled_images"),
    "steps counted by epoch": (
        changed(DIGITS, ("add", "/lr_scheduler", {"type": "OneCycleLR", "max_lr": 1.0, "total_steps": "steps"})),
        "/lr_scheduler/total_steps",
        "interval",
    ),
}  # fmt: skip


IDLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "an exclusion of nothing": (
        changed(DIGITS, ("add", "/regularization", {"l1": 0.1, "exclude": ["biass"]})),
        "/regularization/exclude/0",
        "matches_nothing",
    ),
    "an exclusion of everything": (
        changed(DIGITS, ("add", "/regularization", {"l1": 0.1, "exclude": ["0.bias", ""]})),
        "/regularization/exclude/1",
        "matches_all",
    ),
    "more batches for an update than an epoch has": (
        changed(DIGITS, ("add", "/accumulate_grad_batches", 10_000)),
        "/accumulate_grad_batches",
        "more_than_batches",
    ),
}


@pytest.mark.parametrize(("body", "pointer", "code"), IDLE.values(), ids=IDLE)
def test_what_matches_nothing_is_a_warning(cache: Path, body: dict[str, Any], pointer: str, code: str) -> None:
    report = checked(body, cache)
    assert not report.errors
    assert [(issue.pointer, issue.code) for issue in report.warnings] == [(pointer, code)]


@pytest.mark.parametrize(("body", "pointer", "code"), WARNED.values(), ids=WARNED)
def test_what_is_probably_not_meant_is_a_warning_with_a_fix(
    cache: Path, body: dict[str, Any], pointer: str, code: str
) -> None:
    report = checked(body, cache)
    issue = only(report.warnings)
    assert not report.errors
    assert (issue.pointer, issue.code) == (pointer, code)
    assert not checked(mended(body, issue), cache).warnings
