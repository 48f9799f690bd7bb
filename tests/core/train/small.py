"""A small real training, put together by hand as a notebook would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from core.messages import Progress, Publish, Stage
from core.spec.job import Component, EarlyStopping, GradientClipping, Regularization, StopWhen
from core.train import metrics
from core.train.averaging import WeightAverage
from core.train.checkpoint import FolderStore
from core.train.data import EvalBatches, Split, TrainBatches, Transform
from core.train.early_stopping import EarlyStopper
from core.train.evaluating import Evaluator
from core.train.journal import Journal
from core.train.judging import Best, Judge
from core.train.plan import Plan
from core.train.rng import seed_all
from core.train.schedule import Schedule
from core.train.scoring import Scores, preparation
from core.train.stopping import StopRules
from core.train.trainer import Trainer
from core.train.updating import Clipper, LossFn, Penalty, Updater
from core.train.watch import Watch

CPU = torch.device("cpu")


class Recorder:
    """Plays MetricSink and ControlSource: keeps what is published, asks for a stop when `stop_at` says so."""

    def __init__(self) -> None:
        self.publications: list[Publish] = []
        self.stop: Callable[[], str | None] = lambda: None

    def publish(self, publication: Publish) -> None:
        self.publications.append(publication)

    def progress(self, progress: Progress) -> None:
        pass

    def stage(self, stage: Stage) -> None:
        pass

    def stop_reason(self) -> str | None:
        return self.stop()

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for publication in self.publications for row in publication.rows]

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return [decision for publication in self.publications for decision in publication.decisions]


def two_moons(samples: int = 60, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 2, (samples,), generator=generator)
    inputs = torch.randn(samples, 4, generator=generator) + target.unsqueeze(1)
    return Split(inputs, target)


def perceptron(*, dropout: float = 0.0, batch_norm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        middle: list[nn.Module] = [nn.BatchNorm1d(8)] if batch_norm else []
        return nn.Sequential(nn.Linear(4, 8), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))


def build(
    folder: Path,
    *,
    recorder: Recorder | None = None,
    model: nn.Module | None = None,
    train: Split | None = None,
    val: Split | None = None,
    optimizer: Callable[[Any], Optimizer] = lambda weights: torch.optim.SGD(weights, lr=0.1),
    scheduler: Callable[[Optimizer, int], LRScheduler | None] = lambda _optimizer, _steps: None,
    interval: str = "epoch",
    loss_fn: LossFn = nn.functional.cross_entropy,
    transform: Transform | None = None,
    epochs: int = 3,
    batch_size: int = 16,
    seed: int = 7,
    drop_last: bool = False,
    clipping: GradientClipping | None = None,
    regularization: Regularization | None = None,
    precision: str = "32-true",
    ema: float | None = None,
    stopping: EarlyStopping | None = None,
    rules: tuple[StopWhen, ...] = (),
    every: Any = "auto",
    published_epochs: int = 0,
    is_start_published: bool = False,
    limit_seconds: float | None = None,
    clock: Callable[[], float] | None = None,
    is_taped: bool = False,
    **plan: Any,
) -> tuple[Trainer, Recorder]:
    recorder = recorder or Recorder()
    model = model or perceptron()
    batches = TrainBatches(
        train or two_moons(),
        batch_size=batch_size,
        seed=seed,
        shuffle=True,
        drop_last=drop_last,
        device=CPU,
        transform=transform,
    )
    seed_all(seed)
    optim = optimizer(model.parameters())
    steps = -(-batches.count // plan.get("accumulate", 1))
    time = {} if clock is None else {"clock": clock}
    watch = Watch(recorder, recorder, limit_seconds=limit_seconds, **time)

    def scores() -> Scores:
        chosen = {"accuracy": metrics.make(Component(type="accuracy"), classes=2)}
        return Scores(chosen, preparation("classification", is_probability=False))

    trainer = Trainer(
        Plan(epochs=epochs, updates_per_epoch=steps, batch_size=batches.batch_size, **plan),
        model=model,
        updater=Updater(
            model=model,
            loss_fn=loss_fn,
            optimizer=optim,
            clip=Clipper(model.parameters(), clipping),
            penalty=Penalty(regularization, model) if regularization else None,
            precision=precision,
            device=CPU,
            scores=scores(),
            tape_after=0 if is_taped else None,
        ),
        schedule=Schedule(optim, scheduler(optim, steps), interval=interval),
        train=batches,
        val=EvalBatches(val, batch_size=batch_size, device=CPU) if val else None,
        train_eval=EvalBatches(batches.split, batch_size=batch_size, device=CPU),
        evaluator=Evaluator(
            loss_fn=loss_fn,
            scores=scores(),
            precision=precision,
            device=CPU,
            tick=lambda: watch.tick(trainer.progress),
        ),
        judge=Judge(EarlyStopper(stopping, "min") if stopping else None, StopRules(rules), Best("val_loss", "min")),
        average=WeightAverage(model, decay=ema) if ema or "swa_start_epoch" in plan else None,
        watch=watch,
        journal=Journal(
            recorder,
            FolderStore(folder),
            every=every,
            published_epochs=published_epochs,
            is_start_published=is_start_published,
            **time,
        ),
    )
    return trainer, recorder


def weights_of(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def are_equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
