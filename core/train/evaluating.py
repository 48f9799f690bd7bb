"""Judging weights on a set: eval mode, no gradients, means weighted by samples."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.train.data import Batch
from core.train.scoring import RunningMean, Scores
from core.train.updating import LossFn, autocast


def by_monitor(split: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among `metrics` by monitor name, such as `val_loss`."""
    return {f"{split}_{name}": value for name, value in metrics.items() if isinstance(value, float)}


class Evaluator:
    """Measures loss and metrics of a model on a set.

    Args:
        loss_fn: mean loss of a batch.
        scores: the metrics to measure.
        precision: the spec's; mixed precision is used here as in training.
        device: where the model is.
        tick: called after every batch; it may raise to interrupt, nothing is lost then.
    """

    def __init__(
        self, *, loss_fn: LossFn, scores: Scores, precision: str, device: torch.device, tick: Callable[[], None]
    ) -> None:
        self.loss_fn, self.scores, self.tick = loss_fn, scores, tick
        self.autocast = autocast(precision, device)
        self.input_dtype = torch.bfloat16 if precision == "bf16-true" else None

    @torch.no_grad()
    def __call__(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, Any]:
        """Return `{"loss": …, "accuracy": …}` of `model`, which is in the mode it was in when this returns."""
        was_training = model.training
        model.eval()
        self.scores.reset()
        loss = RunningMean()
        for inputs, target in batches:
            with self.autocast:
                output = model(inputs if self.input_dtype is None else inputs.to(self.input_dtype))
                loss.add(self.loss_fn(output, target), len(target))
            if self.scores.metrics:
                self.scores.add(output, target)
            self.tick()
        model.train(was_training)
        return {"loss": loss.compute(), **self.scores.compute()}


def probabilities_are_outputs(losses: Iterable[str]) -> bool:
    """Return whether the model ends in probabilities because its loss takes them."""
    return "BCELoss" in losses


def unchanged(values: Tensor) -> Tensor:
    """Return `values`: a target without preprocessing is in its own units."""
    return values
