"""Metrics that are added up on the device and read once, at the end of an epoch.

Predictions come prepared by task (see `core.train.scoring`), with ``N`` samples, ``C`` classes, ``K`` targets:

- classification: `scores[N, C]` (logits or log-probabilities), `target[N]` (int64)
- binary: `scores[N]` (probability of class 1), `target[N]` (int64)
- multilabel: `scores[N, C]` (probabilities), `target[N, C]` (int64)
- regression: `scores[N, K]`, `target[N, K]` (float64, in the target's own units)
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from core.spec.job import Component

Value = float | list[list[int]]


class Metric(ABC):
    """One number (or matrix) over all samples of an epoch; its state is a few named tensors."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    @abstractmethod
    def update(self, scores: Tensor, target: Tensor) -> None:
        """Take more samples; nothing is read from the device."""

    @abstractmethod
    def compute(self) -> Value:
        """Return the metric over all samples so far; NaN where it is not defined."""

    def add(self, **terms: Tensor) -> None:
        """Add each term to the sum of its name."""
        for name, term in terms.items():
            self.sums[name] = self.sums[name] + term if name in self.sums else term

    def read(self, name: str) -> float:
        """Return one sum as a number."""
        return float(self.sums[name]) if name in self.sums else math.nan

    def reset(self) -> None:
        """Forget all samples."""
        self.sums = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums, for the checkpoint."""
        return dict(self.sums)

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Go on where `state` was taken."""
        self.sums = {name: value.to(device) for name, value in state.items()}


def labels(scores: Tensor, target: Tensor) -> Tensor:
    """Return predicted labels of the target's shape: the largest logit, or whether a probability is above one half."""
    return scores.argmax(dim=1) if scores.ndim > target.ndim else (scores > 0.5).long()


def count(value: Tensor) -> Tensor:
    """Return how many samples `value` has, as a tensor beside it."""
    return torch.tensor(float(value.shape[0]), dtype=torch.float64, device=value.device)


class Accuracy(Metric):
    """Share of samples whose label (multilabel: all labels) is right, or among the `top_k` largest logits."""

    def __init__(self, top_k: int = 1) -> None:
        super().__init__()
        self.top_k = top_k

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Count the right ones."""
        if self.top_k > 1 and scores.ndim > target.ndim:
            nearest = scores.topk(min(self.top_k, scores.shape[1]), dim=1).indices
            is_right = (nearest == target.unsqueeze(1)).any(dim=1)
        else:
            is_right = labels(scores, target) == target
            is_right = is_right.all(dim=1) if target.ndim == 2 else is_right
        self.add(right=is_right.sum(), samples=count(target))

    def compute(self) -> float:
        """Return right / samples."""
        return self.read("right") / self.read("samples")


class ClassScore(Metric):
    """Precision, recall or F1 from counts by class; averaged `binary` (class 1), `macro`, `micro` or `weighted`.

    As in scikit-learn, a division by zero is 0 and `macro` takes the classes that occur in target or predictions.
    """

    def __init__(self, kind: str, classes: int, average: str) -> None:
        super().__init__()
        self.kind, self.classes, self.average = kind, classes, average

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Count by class what was right, what was predicted and what was there."""
        predicted = labels(scores, target)
        if target.ndim == 2:
            self.add(right=(predicted * target).sum(dim=0), predicted=predicted.sum(dim=0), actual=target.sum(dim=0))
        else:
            self.add(
                right=torch.bincount(target[predicted == target], minlength=self.classes),
                predicted=torch.bincount(predicted, minlength=self.classes),
                actual=torch.bincount(target, minlength=self.classes),
            )

    def compute(self) -> float:
        """Return the averaged score."""
        if not self.sums:
            return math.nan
        right, predicted, actual = (self.sums[name].double().cpu() for name in ("right", "predicted", "actual"))
        if self.average == "micro":
            return float(self._score(right.sum(), predicted.sum(), actual.sum()))
        by_class = self._score(right, predicted, actual)
        if self.average == "binary":
            return float(by_class[1])
        if self.average == "weighted":
            return float((by_class * actual).sum() / actual.sum().clamp(min=1))
        return float(by_class[(predicted + actual) > 0].mean())

    def _score(self, right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
        if self.kind == "precision":
            return right / predicted.clamp(min=1)
        if self.kind == "recall":
            return right / actual.clamp(min=1)
        return 2 * right / (predicted + actual).clamp(min=1)


class ConfusionMatrix(Metric):
    """Counts of samples, rows by true class, columns by predicted class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Count the pairs."""
        pairs = target * self.classes + labels(scores, target)
        self.add(counts=torch.bincount(pairs, minlength=self.classes**2))

    def compute(self) -> list[list[int]]:
        """Return the matrix."""
        if not self.sums:
            return []
        matrix: list[list[int]] = self.sums["counts"].reshape(self.classes, self.classes).tolist()
        return matrix


class LogLoss(Metric):
    """Mean negative log of the probability that was given to the truth."""

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add -log p of each true label."""
        if scores.ndim > target.ndim:
            log_p = scores.double().log_softmax(dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
        else:
            p = scores.double().clamp(torch.finfo(torch.float64).eps, 1 - torch.finfo(torch.float64).eps)
            log_p = torch.where(target == 1, p.log(), (1 - p).log())
            log_p = log_p.mean(dim=1) if target.ndim == 2 else log_p
        self.add(loss=-log_p.sum(), samples=count(target))

    def compute(self) -> float:
        """Return the mean."""
        return self.read("loss") / self.read("samples")


class Auroc(Metric):
    """Area under the ROC curve; of several classes each against the rest, averaged over those that can be judged.

    Args:
        average: `macro`, or `weighted` by the samples of each class.
    """

    def __init__(self, average: str = "macro") -> None:
        super().__init__()
        self.average = average

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Keep scores and targets: the area needs the order of all."""
        scores = scores.float().softmax(dim=1) if scores.ndim > target.ndim else scores.float()
        for name, value in (("scores", scores), ("target", target)):
            self.sums[name] = torch.cat([self.sums[name], value]) if name in self.sums else value

    def compute(self) -> float:
        """Return the area, NaN while only one class was seen."""
        if not self.sums:
            return math.nan
        scores, target = self.sums["scores"], self.sums["target"]
        if scores.ndim == 1:
            return area_under_roc(scores, target == 1)
        is_class = target == 1 if target.ndim == 2 else target.unsqueeze(1) == torch.arange(scores.shape[1]).to(target)
        areas = [area_under_roc(scores[:, c], is_class[:, c]) for c in range(scores.shape[1])]
        weights = is_class.sum(dim=0).tolist() if self.average == "weighted" else [1] * len(areas)
        known = [(area, weight) for area, weight in zip(areas, weights, strict=True) if not math.isnan(area)]
        total = sum(weight for _, weight in known)
        return sum(area * weight for area, weight in known) / total if total else math.nan


def area_under_roc(scores: Tensor, is_positive: Tensor) -> float:
    """Return the area under the ROC curve by the rank sum (Mann-Whitney U); ties share their mean rank.

    Args:
        scores: ``scores[N]``, larger for class 1.
        is_positive: ``is_positive[N]``, bool.
    """
    _, inverse, counts = scores.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts.double() - 1) / 2)[inverse]
    positives = float(is_positive.sum())
    negatives = scores.shape[0] - positives
    if not positives or not negatives:
        return math.nan
    return (float(ranks[is_positive].sum()) - positives * (positives + 1) / 2) / (positives * negatives)


class MeanError(Metric):
    """Mean absolute error (`mae`), mean squared error (`mse`) or its root (`rmse`), over all targets."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add the errors by target column."""
        error = scores - target
        self.add(error=(error.abs() if self.kind == "mae" else error.square()).sum(dim=0), samples=count(target))

    def compute(self) -> float:
        """Return the mean over samples (and its root), then over target columns, as scikit-learn does."""
        if not self.sums:
            return math.nan
        mean = self.sums["error"] / self.sums["samples"]
        return float((mean.sqrt() if self.kind == "rmse" else mean).mean())


class R2(Metric):
    """Coefficient of determination, the mean over target columns."""

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Merge residuals and the target's spread (Chan, Golub and LeVeque 1979: no cancellation)."""
        samples, mean = count(target), target.mean(dim=0)
        spread = (target - mean).square().sum(dim=0)
        if self.sums:
            total = self.sums["samples"] + samples
            shift = mean - self.sums["mean"]
            spread = self.sums["spread"] + spread + shift.square() * self.sums["samples"] * samples / total
            mean = self.sums["mean"] + shift * samples / total
            samples = total
        self.sums.update(samples=samples, mean=mean, spread=spread)
        self.add(residual=(scores - target).square().sum(dim=0))

    def compute(self) -> float:
        """Return 1 - residual/spread; NaN with fewer than two samples, and 0 (1 if exact) for a constant target."""
        if not self.sums or self.read("samples") < 2:
            return math.nan
        residual, spread = self.sums["residual"], self.sums["spread"]
        constant = torch.where(residual == 0, 1.0, 0.0).double()
        return float(torch.where(spread > 0, 1 - residual / spread, constant).mean())


DEFAULTS = {
    "classification": ("accuracy",),
    "binary": ("accuracy",),
    "multilabel": ("f1",),
    "regression": ("mae", "rmse"),
}
"""What is measured, by task, where the spec says nothing."""


def make(component: Component, *, classes: int) -> Metric:
    """Build the metric that a component of the spec describes.

    Args:
        component: such as `{"type": "accuracy", "top_k": 5}`.
        classes: ``C``; 2 for binary, the number of labels for multilabel, 0 for regression.
    """
    name, average = component.type, component.arguments.get("average", "macro")
    if name in ("f1", "precision", "recall"):
        return ClassScore(name, classes, average)
    if name in ("mae", "mse", "rmse"):
        return MeanError(name)
    if name == "confusion_matrix":
        return ConfusionMatrix(classes)
    if name == "accuracy":
        return Accuracy(component.arguments.get("top_k", 1))
    return {"log_loss": LogLoss, "r2": R2}[name]() if name != "auroc" else Auroc(average)
