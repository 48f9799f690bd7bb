"""From a spec and its sets to a trainer that is ready to start."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.spec.job import Component, JobSpec
from core.spec.rules import mode_of
from core.spec.scores import named
from core.train import build, metrics
from core.train.averaging import WeightAverage
from core.train.data import Split
from core.train.diagnosing import Diagnoser
from core.train.early_stopping import EarlyStopper
from core.train.evaluating import Evaluator
from core.train.failures import refuse
from core.train.feeding import Feed
from core.train.journal import Journal
from core.train.judging import Best, Judge
from core.train.keeping import Shelf
from core.train.phases import Phases
from core.train.plan import Plan
from core.train.probing import Probe
from core.train.rng import seed_all
from core.train.schedule import Schedule
from core.train.scoring import Scores, preparation
from core.train.sets import Sets
from core.train.stopping import StopRules
from core.train.tape import FIRST_UPDATES, MIN_UPDATES
from core.train.task import Task, losses_of
from core.train.trainer import Trainer
from core.train.updating import Clipper, LossFn, Penalty, Updater
from core.train.watch import Watch


def rules_of(spec: JobSpec) -> StopRules:
    """Return the spec's `stop_when`, one rule or several."""
    rules = spec.stop_when or ()
    return StopRules(rules if isinstance(rules, tuple) else (rules,))


def assemble(
    spec: JobSpec,
    sets: Sets,
    task: Task,
    feed: Feed,
    *,
    seed: int,
    device: torch.device,
    watch: Watch,
    journal: Journal,
) -> Trainer:
    """Build model, loss, optimizer and schedule, and put them together.

    Args:
        spec: what to train.
        sets: the data, for class weights and the target's own units.
        task: what is learned.
        feed: the data in batches.
        seed: of weights, dropout and everything that has no seed of its own.
        device: where to train.
        watch: the clock and the ear.
        journal: where rows go.

    Raises:
        SpecInvalid: parts that do not go together.
    """
    model = build.model(spec, feed.sample_shape, classes=task.outputs, seed=seed)
    model = model.to(device, torch.bfloat16 if spec.precision == "bf16-true" else None)
    seed_all(seed)
    optimizer = build.optimizer(spec, model)
    if isinstance(optimizer, torch.optim.LBFGS) and spec.precision == "16-mixed":
        raise refuse("/precision", "lbfgs_16_mixed", "LBFGS evaluates the loss several times, which 16-mixed cannot")
    if spec.ema and spec.swa:
        raise refuse("/swa", "ema_and_swa", "ema and swa are two answers to which weights are returned: choose one")
    updates_per_epoch = -(-feed.train.count // spec.accumulate_grad_batches)
    scores = {
        split: _scores(spec, sets, task, has_val=feed.val is not None, is_train=split == "train")
        for split in ("train", "eval")
    }
    loss_fn = build.loss(spec, class_weights=class_weights(spec, sets.train, task, device)).to(device)
    steps = min(spec.epochs * updates_per_epoch, spec.max_steps or math.inf)
    updater = Updater(
        model=model,
        loss_fn=loss_fn,
        optimizer=optimizer,
        clip=Clipper(model.parameters(), spec.gradient_clipping),
        penalty=Penalty(spec.regularization, model) if spec.regularization else None,
        precision=spec.precision,
        device=device,
        scores=scores["train"],
        phases=Phases(is_on=spec.profile, device=device),
        tape_after=FIRST_UPDATES if steps >= MIN_UPDATES else None,
    )
    plan = Plan(
        epochs=spec.epochs,
        updates_per_epoch=updates_per_epoch,
        batch_size=feed.train.batch_size,
        accumulate=spec.accumulate_grad_batches,
        max_steps=spec.max_steps,
        validate_epochs=spec.validate_every.epochs,
        validate_steps=spec.validate_every.steps,
        evaluate_at_start=spec.evaluate_at_start,
        swa_start_epoch=spec.swa.start_epoch if spec.swa else None,
    )
    trainer = Trainer(
        plan,
        model=model,
        updater=updater,
        schedule=_schedule(spec, optimizer, updates_per_epoch, has_val=feed.val is not None),
        train=feed.train,
        val=feed.val,
        train_eval=feed.train_eval,
        evaluator=_evaluator(spec, loss_fn, scores["eval"], device, lambda: watch.tick(trainer.progress)),
        judge=_judge(spec, has_val=feed.val is not None),
        average=_average(spec, model),
        watch=watch,
        journal=journal,
        diagnoser=Diagnoser(spec, float(optimizer.defaults["lr"]), _probe(spec, model, feed)),
    )
    return trainer


def _probe(spec: JobSpec, model: nn.Module, feed: Feed) -> Probe:
    def some(count: int) -> Tensor:
        inputs = feed.some(count)
        return inputs.to(torch.bfloat16) if spec.precision == "bf16-true" else inputs

    return Probe(model, some)


def _evaluator(
    spec: JobSpec, loss_fn: LossFn, scores: Scores, device: torch.device, tick: Callable[[], None]
) -> Evaluator:
    return Evaluator(loss_fn=loss_fn, scores=scores, precision=spec.precision, device=device, tick=tick)


def class_weights(spec: JobSpec, train: Split, task: Task, device: torch.device) -> Tensor | None:
    """Return ``n / (classes * n_c)`` by class where the loss asks for `"balanced"` weights."""
    is_asked = any(
        "balanced" in (term.arguments.get("weight"), term.arguments.get("pos_weight")) for _, term in losses_of(spec)
    )
    if task.classes is None or not task.has_labels or not is_asked:
        return None
    target = train.target if train.rows is None else train.target[train.rows]
    counts = torch.bincount(target.reshape(-1).long(), minlength=task.classes).double()
    return (counts.sum() / (task.classes * counts.clamp(min=1))).float().to(device)


def _scores(spec: JobSpec, sets: Sets, task: Task, *, has_val: bool, is_train: bool) -> Scores:
    wanted = spec.metrics
    if wanted is None:
        wanted = tuple(Component(type=name) for name in metrics.DEFAULTS[task.name])
    chosen = {
        name: metrics.make(component, classes=2 if task.name == "binary" else task.classes or 0)
        for name, component in named(wanted).items()
        if not (is_train and has_val and component.type == "confusion_matrix")
    }
    inverse = sets.preprocessor.inverse_target

    def to_own_units(values: Tensor) -> Tensor:
        if not sets.preprocessor.scales_target:
            return values
        return torch.from_numpy(inverse(values.cpu().numpy())).to(values.device)

    is_probability = any(term.type == "BCELoss" for _, term in losses_of(spec))
    return Scores(chosen, preparation(task.name, is_probability=is_probability, to_own_units=to_own_units))


def _schedule(spec: JobSpec, optimizer: torch.optim.Optimizer, updates_per_epoch: int, *, has_val: bool) -> Schedule:
    arguments = spec.lr_scheduler.arguments if spec.lr_scheduler else {}
    scheduler = build.lr_scheduler(spec, optimizer, steps_per_epoch=updates_per_epoch, epochs=spec.epochs)
    swa = (spec.swa.start_epoch, spec.swa.lr) if spec.swa and spec.swa.lr else None
    return Schedule(
        optimizer,
        scheduler,
        interval=str(arguments.get("interval", "epoch")),
        monitor=str(arguments.get("monitor", "val_loss" if has_val else "train_loss")),
        swa=swa,
    )


def _judge(spec: JobSpec, *, has_val: bool) -> Judge:
    early, stopper = spec.early_stopping, None
    best = Best("val_loss" if has_val else "train_loss", "min")
    if early is not None:
        mode = early.mode or mode_of(early.monitor) or "min"
        stopper, best = EarlyStopper(early, mode), Best(early.monitor, mode)
    kept, every = spec.checkpoints, spec.checkpoints.every
    shelf = Shelf(kept.keep_best, kept.keep_last, every=1 if isinstance(every, str) else every.epochs, sign=best.sign)
    return Judge(stopper, rules_of(spec), best, shelf)


def _average(spec: JobSpec, model: nn.Module) -> WeightAverage | None:
    if spec.ema:
        return WeightAverage(model, decay=spec.ema.decay)
    return WeightAverage(model, decay=None) if spec.swa else None
