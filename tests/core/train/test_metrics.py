"""Every metric against scikit-learn, fed in uneven blocks."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from torch import Tensor

from core.spec.job import Component
from core.spec.scores import named
from core.train.metrics import Metric, make
from core.train.scoring import RunningMean, Scores, preparation

GENERATOR = torch.Generator().manual_seed(3)
N, C = 97, 5
LOGITS = torch.randn(N, C, generator=GENERATOR)
LABELS = torch.randint(0, C, (N,), generator=GENERATOR)
PROBABILITY = (torch.rand(N, generator=GENERATOR) * 10).round() / 10  # many ties
TRUTH = torch.randint(0, 2, (N,), generator=GENERATOR)
MANY = torch.rand(N, 3, generator=GENERATOR)
MANY_TRUTH = torch.randint(0, 2, (N, 3), generator=GENERATOR)
GUESS = torch.randn(N, 2, generator=GENERATOR, dtype=torch.float64) + 100
TARGET = GUESS + torch.randn(N, 2, generator=GENERATOR, dtype=torch.float64)


def measure(component: dict[str, Any], scores: Tensor, target: Tensor, classes: int) -> Any:
    metric = make(Component(**component), classes=classes)
    feed(metric, scores, target)
    return metric.compute()


def feed(metric: Metric, scores: Tensor, target: Tensor) -> None:
    for block in torch.arange(len(target)).split(30):
        metric.update(scores[block], target[block])


CLASSES = LOGITS.argmax(dim=1).numpy()
P = LOGITS.softmax(dim=1).numpy()
P64 = LOGITS.double().softmax(dim=1).numpy()
CASES: dict[str, tuple[dict[str, Any], Tensor, Tensor, int, Callable[[], float]]] = {
    "accuracy": ({"type": "accuracy"}, LOGITS, LABELS, C, lambda: oracle.accuracy_score(LABELS, CLASSES)),
    "top 3": (
        {"type": "accuracy", "top_k": 3}, LOGITS, LABELS, C, lambda: oracle.top_k_accuracy_score(LABELS, P, k=3),
    ),
    "binary accuracy": (
        {"type": "accuracy"}, PROBABILITY, TRUTH, 2, lambda: oracle.accuracy_score(TRUTH, PROBABILITY > 0.5),
    ),
    "multilabel accuracy": (
        {"type": "accuracy"}, MANY, MANY_TRUTH, 3,
        lambda: oracle.accuracy_score(MANY_TRUTH, MANY > 0.5),
    ),
    "log loss": ({"type": "log_loss"}, LOGITS, LABELS, C, lambda: oracle.log_loss(LABELS, P64)),
    "binary log loss": (
        {"type": "log_loss"}, PROBABILITY.double() * 0.8 + 0.1, TRUTH, 2,
        lambda: oracle.log_loss(TRUTH, PROBABILITY.double() * 0.8 + 0.1),
    ),
    "binary auroc with ties": (
        {"type": "auroc"}, PROBABILITY, TRUTH, 2, lambda: oracle.roc_auc_score(TRUTH, PROBABILITY),
    ),
    "auroc of several classes": (
        {"type": "auroc"}, LOGITS, LABELS, C,
        lambda: oracle.roc_auc_score(LABELS, P / P.sum(1, keepdims=True), multi_class="ovr"),
    ),
    "weighted auroc": (
        {"type": "auroc", "average": "weighted"}, LOGITS, LABELS, C,
        lambda: oracle.roc_auc_score(LABELS, P / P.sum(1, keepdims=True), multi_class="ovr", average="weighted"),
    ),
    "multilabel auroc": ({"type": "auroc"}, MANY, MANY_TRUTH, 3, lambda: oracle.roc_auc_score(MANY_TRUTH, MANY)),
    "mae": ({"type": "mae"}, GUESS, TARGET, 0, lambda: oracle.mean_absolute_error(TARGET, GUESS)),
    "rmse": ({"type": "rmse"}, GUESS, TARGET, 0, lambda: oracle.root_mean_squared_error(TARGET, GUESS)),
    "r2": ({"type": "r2"}, GUESS, TARGET, 0, lambda: oracle.r2_score(TARGET, GUESS)),
    "r2 of a constant target": (
        {"type": "r2"}, GUESS, torch.ones(N, 2).double(), 0, lambda: oracle.r2_score(torch.ones(N, 2), GUESS),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_metric_equals_scikit_learn(case: str) -> None:
    component, scores, target, classes, expected = CASES[case]
    assert measure(component, scores, target, classes) == pytest.approx(expected(), rel=1e-6)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("kind", ["f1", "precision", "recall"])
def test_class_scores_equal_scikit_learn(kind: str, average: str) -> None:
    score = getattr(oracle, f"{kind}_score")
    component = {"type": kind, "average": average}
    several = score(LABELS, CLASSES, average=average)
    assert measure(component, LOGITS, LABELS, C) == pytest.approx(several)
    many = score(MANY_TRUTH, (MANY > 0.5).long(), average=average)
    assert measure(component, MANY, MANY_TRUTH, 3) == pytest.approx(many)


@pytest.mark.parametrize("kind", ["f1", "precision", "recall"])
def test_binary_scores_are_those_of_class_one(kind: str) -> None:
    expected = getattr(oracle, f"{kind}_score")(TRUTH, (PROBABILITY > 0.5).long(), average="binary")
    assert measure({"type": kind, "average": "binary"}, PROBABILITY, TRUTH, 2) == pytest.approx(expected)


def test_macro_leaves_out_classes_that_never_occur() -> None:
    logits, target = torch.eye(4)[[0, 1, 1]], torch.tensor([0, 1, 0])
    expected = oracle.f1_score([0, 1, 0], [0, 1, 1], average="macro")
    assert measure({"type": "f1"}, logits, target, 4) == pytest.approx(expected)


def test_confusion_matrix_has_true_classes_in_rows() -> None:
    expected = oracle.confusion_matrix(LABELS, CLASSES, labels=range(C)).tolist()
    assert measure({"type": "confusion_matrix"}, LOGITS, LABELS, C) == expected


def test_auroc_of_one_class_is_not_defined() -> None:
    assert math.isnan(measure({"type": "auroc"}, PROBABILITY, torch.ones(N, dtype=torch.int64), 2))


def test_regression_is_measured_in_the_targets_own_units() -> None:
    prepare = preparation("regression", is_probability=False, to_own_units=lambda values: values * 10 + 5)
    scores = Scores({"mae": make(Component(type="mae"), classes=0)}, prepare)
    scores.add(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [2.0]]))
    assert scores.compute() == {"mae": pytest.approx(2.5)}


def test_logits_of_a_binary_task_become_probabilities_and_probabilities_stay() -> None:
    output, target = torch.tensor([[0.2], [-0.2]]), torch.tensor([[1.0], [0.0]])
    from_logits, _ = preparation("binary", is_probability=False)(output, target)
    from_probabilities, _ = preparation("binary", is_probability=True)(output, target)
    assert from_logits.tolist() == pytest.approx(torch.sigmoid(output).flatten().tolist())
    assert from_probabilities.tolist() == pytest.approx(output.flatten().tolist())


def test_a_running_mean_weights_by_samples_and_folds_without_changing() -> None:
    mean = RunningMean()
    values, weights = [float(v) for v in range(3000)], [1 + v % 7 for v in range(3000)]
    for value, weight in zip(values, weights, strict=True):
        mean.add(torch.tensor(value), weight)
        if value == 1500:
            mean.compute()  # a look in between must not move the blocks
    assert mean.compute() == pytest.approx(np.average(values, weights=weights))


def test_metrics_of_one_type_get_names_of_their_own() -> None:
    specs = [{"type": "f1"}, {"type": "f1", "average": "micro"}, {"type": "accuracy", "top_k": 5}, {"type": "accuracy"}]
    assert list(named([Component(**spec) for spec in specs])) == ["f1", "f1_micro", "accuracy_top5", "accuracy"]
