"""What the fields of a spec ask of each other, and what is only warned of."""

from collections.abc import Callable
from typing import Any

import pytest

from core.errors import Issue
from core.spec import mode_of, parse_object, warnings

Body = dict[str, Any]
IssuesOf = Callable[[Body], tuple[Issue, ...]]


def data(**splits: Any) -> Body:
    return {"data": {"train": "sklearn.digits", **splits}}


def part(fraction: float, **more: Any) -> Body:
    return {"from": "train", "fraction": fraction, **more}


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        (data(val=part(0.5), test=part(0.5)), "/data/test/fraction", "fractions"),
        (data(val=part(0.9), test=part(0.3)), "/data/test/fraction", "fractions"),
        ({"gradient_clipping": {}}, "/gradient_clipping", "exactly_one"),
        ({"gradient_clipping": {"norm_type": 1}}, "/gradient_clipping", "exactly_one"),
        ({"gradient_clipping": {"max_norm": 1, "clip_value": 1}}, "/gradient_clipping", "exactly_one"),
        ({"validate_every": {}}, "/validate_every", "exactly_one"),
        ({"validate_every": {"epochs": 1, "steps": 10}}, "/validate_every", "exactly_one"),
        ({"stop_when": {"monitor": "val_loss"}}, "/stop_when", "at_least_one"),
        ({"stop_when": [{"monitor": "a", "below": 1}, {"monitor": "b"}]}, "/stop_when/1", "at_least_one"),
        ({"early_stopping": {"monitor": "val_quality"}}, "/early_stopping/mode", "missing"),
        ({"swa": {"start_epoch": 4}}, "/swa/start_epoch", "never_reached"),
        ({"execution": {"device": "cpu", "gpus": 2}}, "/execution/gpus", "contradicts"),
        ({"metrics": ["accuracy", "f1", {"type": "accuracy"}]}, "/metrics/2", "repeated"),
        (data(columns={"features": ["a", "b", "a"]}), "/data/columns/features/2", "repeated"),
        (data(columns={"target": ["a", "a"]}), "/data/columns/target/1", "repeated"),
        (data(columns={"categorical": ["a", "a"]}), "/data/columns/categorical/1", "repeated"),
        (
            {"early_stopping": {"stopping_threshold": 1, "divergence_threshold": 0.5}},
            "/early_stopping/divergence_threshold",
            "contradicts",
        ),
        (
            {"early_stopping": {"monitor": "val_f1", "stopping_threshold": 0.5, "divergence_threshold": 0.9}},
            "/early_stopping/divergence_threshold",
            "contradicts",
        ),
        ({"task": "regression", **data(val=part(0.2, stratify=True))}, "/data/val/stratify", "not_allowed"),
        ({"loss": "MSELoss", **data(test=part(0.2, stratify=True))}, "/data/test/stratify", "not_allowed"),
        ({"loss": ["L1Loss", "HuberLoss"], **data(val=part(0.2, stratify=True))}, "/data/val/stratify", "not_allowed"),
    ],
)
def test_fields_that_contradict_each_other_are_an_issue(
    issues_of: IssuesOf, changes: Body, pointer: str, code: str
) -> None:
    assert [(issue.pointer, issue.code) for issue in issues_of(changes)] == [(pointer, code)]


@pytest.mark.parametrize(
    "changes",
    [
        data(val=part(0.5), test=part(0.49)),
        data(val=part(0.9), test="sklearn.digits"),
        data(val=part(0.2, stratify=True), test=part(0.2, stratify=False)),
        {"gradient_clipping": {"max_norm": 1, "clip_value": None}},
        {"validate_every": {"epochs": None, "steps": 5}},
        {"stop_when": {"monitor": "train_loss", "converged": {}}},
        {"stop_when": {"monitor": "val_quality", "above": 0.9}},
        {"early_stopping": {"monitor": "val_quality", "mode": "max"}},
        {"swa": {"start_epoch": 3}},
        {"execution": {"device": "gpu", "gpus": 2}},
        {"metrics": ["accuracy", {"type": "accuracy", "top_k": 2}]},
        {"early_stopping": {"stopping_threshold": 0.5, "divergence_threshold": 1}},
        {"early_stopping": {"monitor": "val_f1", "stopping_threshold": 0.9, "divergence_threshold": 0.5}},
    ],
)
def test_fields_that_agree_are_taken(issues_of: IssuesOf, changes: Body) -> None:
    assert issues_of(changes) == ()


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("val_loss", "min"), ("train_loss", "min"), ("loss", "min"), ("val_log_loss", "min"), ("val_mae", "min"),
        ("test_rmse", "min"), ("train_data_loss", "min"), ("val_error", "min"), ("val_accuracy", "max"),
        ("val_accuracy_top5", "max"), ("val_f1", "max"), ("val_f1_macro", "max"), ("val_precision", "max"),
        ("val_recall", "max"), ("val_auroc", "max"), ("val_r2", "max"), ("val_quality", None), ("", None),
        ("lossy", None), ("val_", None),
    ],
)  # fmt: skip
def test_the_mode_follows_from_the_metric(monitor: str, mode: str | None) -> None:
    assert mode_of(monitor) == mode


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        (
            {"regularization": {"l2": 0.1}, "optimizer": {"type": "SGD", "weight_decay": 0.1}},
            "/regularization/l2",
            "decays_twice",
        ),
        ({"regularization": {"l2": 0.1}, "optimizer": "AdamW"}, "/regularization/l2", "decays_twice"),
        ({"early_stopping": {"patience": 3}}, "/early_stopping", "never_reached"),
        ({"execution": {"gpus": 2}}, "/execution/gpus", "no_effect"),
        ({"gradient_clipping": {"clip_value": 1, "norm_type": 1}}, "/gradient_clipping/norm_type", "no_effect"),
        ({"regularization": {"exclude": ["bias"]}}, "/regularization", "no_effect"),
        ({**data(), "validate_every": {"steps": 5}}, "/validate_every", "no_effect"),
        ({"early_stopping": {"patience": 1, "cooldown": 1}}, "/early_stopping/cooldown", "no_effect"),
        (
            {"stop_when": {"monitor": "val_loss", "converged": {"window": 4}}},
            "/stop_when/converged/window",
            "never_reached",
        ),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(body: Body, changes: Body, pointer: str, code: str) -> None:
    found = warnings(parse_object({**body, **changes}))
    assert [(issue.pointer, issue.code) for issue in found] == [(pointer, code)]


@pytest.mark.parametrize(
    "changes",
    [
        {"regularization": {"l2": 0.1}},
        {"regularization": {"l1": 0.1}, "optimizer": "AdamW"},
        {"regularization": {"l2": 0.1}, "optimizer": {"type": "AdamW", "weight_decay": 0}},
        {"early_stopping": {"patience": 2}},
        {"early_stopping": {"patience": 1, "cooldown": 1}, "lr_scheduler": "ReduceLROnPlateau"},
        {"gradient_clipping": {"max_norm": 1, "norm_type": 1}},
        {**data(), "validate_every": {"epochs": 1}},
        {"stop_when": [{"monitor": "val_loss", "converged": {"window": 3}}]},
        {"stop_when": {"monitor": "val_loss", "converged": {}}, "validate_every": {"steps": 1}},
    ],
)
def test_what_is_meant_is_not_warned_of(body: Body, changes: Body) -> None:
    assert warnings(parse_object({**body, **changes})) == []


def test_the_examples_are_not_warned_of(example: Body) -> None:
    assert warnings(parse_object(example)) == []
