"""What the loop does, verb by verb, and the state it changes."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from torch import nn

from core.messages import Progress, StopReason
from core.train.averaging import WeightAverage
from core.train.checkpoint import check_keys, fitting
from core.train.compiling import CannotCompile
from core.train.data import Batch, EvalBatches, TrainBatches
from core.train.diagnosing import Diagnoser
from core.train.evaluating import Evaluator, by_monitor
from core.train.journal import Journal
from core.train.judging import Judge
from core.train.plan import Plan, Position
from core.train.rng import rng_state, set_rng_state
from core.train.schedule import Schedule
from core.train.updating import Updater
from core.train.watch import Watch


class Trainer:
    """Everything that training changes, and the steps of the loop as verbs."""

    def __init__(
        self,
        plan: Plan,
        *,
        model: nn.Module,
        updater: Updater,
        schedule: Schedule,
        train: TrainBatches,
        val: EvalBatches | None,
        train_eval: EvalBatches | None,
        evaluator: Evaluator,
        judge: Judge,
        average: WeightAverage | None,
        watch: Watch,
        journal: Journal,
        diagnoser: Diagnoser | None = None,
    ) -> None:
        self.plan, self.model, self.updater, self.schedule = plan, model, updater, schedule
        self.train, self.val, self.train_eval, self.evaluator, self.judge = train, val, train_eval, evaluator, judge
        self.average, self.watch, self.journal, self.diagnoser = average, watch, journal, diagnoser
        self.device = train.device
        self.val_metrics: dict[str, Any] | None = None
        """Of the last validation in the epoch that runs."""
        self.at = Position()
        self.resumed_at = watch.clock()

    @property
    def is_under_way(self) -> bool:
        """Whether a checkpoint would hold anything that the last one does not: not before the first row or update."""
        return self.at.stop_reason is None and (self.at.step > 0 or self.at.is_start_evaluated)

    @property
    def judged_model(self) -> nn.Module:
        """The weights that are validated and returned: the average once there is one, else the model's own."""
        return self.average.model if self.average is not None and self.average.updates else self.model

    def compile(self) -> None:
        """Compile the updates of full batches; done before any state is loaded, it changes none.

        Raises:
            CannotCompile: why they run uncompiled.
        """
        if self.plan.accumulate > 1:
            raise CannotCompile("an update takes several batches")
        self.model.train()
        self.updater.compile(next(self.train.epoch(1)))

    def begin(self) -> None:
        """Go into training mode; where asked, judge the initial weights first (the row of epoch 0)."""
        self.watch.enter("training")
        if self.train_eval is not None and self.plan.evaluate_at_start and not self.at.is_start_evaluated:
            train = self.evaluator(self.model, self.train_eval)
            val = None if self.val is None else self.evaluator(self.model, self.val)
            self.at.is_start_evaluated = True
            self.journal.add(self._row(0, train, val), [])
            self.save_beside()
        self.model.train()
        self.resumed_at = self.watch.clock()

    def updates(self) -> Iterator[list[Batch]]:
        """Yield what is left of the epoch, as the batches of one update each."""
        self.validate_within_epoch()  # an earlier attempt may have been stopped before it could
        if self.at.verdict is not None:
            return iter(())
        if self.diagnoser is not None and self.at.batch == 0 and self.diagnoser.is_look_due(self.at.epoch + 1):
            self.updater.on_gradients = self.diagnoser.after_backward
        batches = self.train.epoch(self.at.epoch + 1, self.at.batch)
        return iter(lambda: self._next(batches), [])

    def _next(self, batches: Iterator[Batch]) -> list[Batch]:
        with self.updater.phases.during("batch"):
            return list(islice(batches, self.plan.accumulate))

    def count(self, batches: list[Batch]) -> None:
        """Count an update; the schedule and the exponential average follow it."""
        self.at.step += 1
        self.at.batch += len(batches)
        self.schedule.after_step()
        if self.average is not None and self.plan.swa_start_epoch is None:
            self.average.update()
        if self.at.step == self.plan.max_steps:
            self.at.verdict = "max_steps"

    def look_up(self) -> None:
        """Notice a stop, the time limit, and a checkpoint that failed or is overdue; tell of the progress."""
        self.watch.tick(self.progress)
        self.journal.look()
        if self.journal.is_overdue():
            self.save_beside()

    def validate_within_epoch(self) -> None:
        """Validate and judge where `validate_every.steps` asks for it."""
        every = self.plan.validate_steps
        if every is not None and self.val is not None and self.at.step % every == 0:
            self._judge(self._validate(self.val))

    def finish_epoch(self) -> None:
        """Validate, judge, let the schedule follow, and publish the epoch's row with a checkpoint."""
        epoch = self.at.epoch + 1
        self._average_epoch(epoch)
        fresh = self._validate(self.val) if self.val is not None and self._is_validation_due(epoch) else {}
        train = self.updater.compute()
        self._judge({**fresh, **by_monitor("train", train)})
        known = {**by_monitor("train", train), **by_monitor("val", self.val_metrics or {})}
        for decision in self.schedule.after_epoch(known, epoch, self.at.step):
            self.judge.lr_was_cut(decision)
        row = self._row(epoch, train, self.val_metrics)
        if (profile := self.updater.phases.take()) is not None:
            row["profile"] = profile
        self.at.stop_reason = self._end(epoch, train["loss"])
        self._turn_page()
        decisions = self.judge.end_epoch(epoch, self.at.step, self.judged_model)
        self.journal.add(row, [*decisions, *self._diagnoses(row)])
        if self.at.stop_reason is not None:
            self.save()
        elif self.journal.is_due(epoch):
            self.save_beside()

    def save(self) -> None:
        """Write a checkpoint, publish with it what waited for it, and return when that is done."""
        self.save_beside()
        self.journal.settle()

    def save_beside(self) -> None:
        """Take a checkpoint, which is written and published while training goes on."""
        self.journal.publish(
            self.state_dict(),
            epoch=self.at.epoch,
            progress=self.progress(),
            best=self.judge.best.as_message(),
            active_seconds=self.watch.active_seconds,
        )

    def progress(self) -> Progress:
        """Return how far it is."""
        seconds, samples = self._seconds(), self.at.batch * self.plan.batch_size
        return Progress(
            epoch=self.at.epoch,
            epochs=self.plan.epochs,
            step=self.at.step,
            steps=self.plan.steps,
            samples_per_second=samples / seconds if samples and seconds > 0 else None,
        )

    def _seconds(self) -> float:
        return self.at.seconds + self.watch.clock() - self.resumed_at

    def _is_validation_due(self, epoch: int) -> bool:
        every = self.plan.validate_epochs
        is_last = epoch == self.plan.epochs or self.at.verdict is not None
        return is_last or (every is not None and epoch % every == 0)

    def _validate(self, val: EvalBatches) -> dict[str, float]:
        """Measure on the validation set; nothing where that was done after this very update."""
        if self.at.validated_step == self.at.step:
            return {}
        with self.watch.during("validating"):
            self.val_metrics = self.evaluator(self.judged_model, val)
        self.at.validated_step = self.at.step
        return by_monitor("val", self.val_metrics)

    def _judge(self, fresh: dict[str, float]) -> None:
        reason = self.judge.check(fresh, self.at.epoch + 1, self.at.step, self.judged_model) if fresh else None
        self.at.verdict = self.at.verdict or reason

    def _average_epoch(self, epoch: int) -> None:
        start = self.plan.swa_start_epoch
        if self.average is None or start is None or epoch < start or self.at.averaged_epoch == epoch:
            return
        self.average.update()
        self.average.refresh_batch_norm(inputs for inputs, _ in self.train_eval or ())
        self.at.averaged_epoch = epoch

    def _diagnoses(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        if self.diagnoser is None:
            return []
        return self.diagnoser.look(row, is_last=self.at.stop_reason is not None)

    def _end(self, epoch: int, loss: float) -> StopReason | None:
        """Return why training is over after `epoch`, None when it goes on."""
        if self.at.verdict not in (None, "max_steps"):
            return self.at.verdict
        if not math.isfinite(loss):
            return "non_finite"
        is_whole = self.at.batch >= self.train.count
        return "completed" if epoch == self.plan.epochs and is_whole else self.at.verdict

    def _row(self, epoch: int, train: dict[str, Any], val: dict[str, Any] | None) -> dict[str, Any]:
        seconds, check = self._seconds(), self.judge.last_check
        samples = min(self.at.batch * self.plan.batch_size, self.train.samples)
        return {
            "epoch": epoch,
            "step": self.at.step,
            "train": train,
            "val": val,
            "lr": self.schedule.lr,
            "grad_norm": self.updater.grad_norm.compute(),
            "seconds": seconds,
            "samples_per_second": samples / seconds if samples and seconds > 0 else None,
            "early_stopping": check.as_row() if check else None,
        }

    def _turn_page(self) -> None:
        self.updater.reset()
        self.val_metrics = None
        self.at.epoch += 1
        self.at.batch, self.at.seconds = 0, 0.0
        self.resumed_at = self.watch.clock()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes; torch.load(weights_only=True) reads it back."""
        weights = self.model.state_dict()
        is_best = self.average is None and self.judge.best.step == self.at.step  # only updates change these weights
        return {
            "model": weights,
            "optimizer": self.updater.optimizer.state_dict(),
            "updater": self.updater.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "judge": self.judge.state_dict(weights if is_best else None),
            "diagnoser": self.diagnoser.state_dict() if self.diagnoser else None,
            "val_metrics": self.val_metrics,
            "position": {**asdict(self.at), "seconds": self._seconds()},
            "rng": rng_state(self.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken.

        No batch is replayed: the order of an epoch's samples and the draws of its transforms are functions of seed,
        epoch and batch number, and the position says which batch is next.

        Raises:
            CheckpointInvalid: the state of another training, or one that lacks something.
        """
        check_keys(state, self.state_dict())
        with fitting("the checkpoint does not fit the job"):
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.schedule.load_state_dict(state["schedule"])
        self.updater.load_state_dict(state["updater"], self.device)
        self.updater.load_optimizer(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.judge.load_state_dict(state["judge"], self.device)
        if self.diagnoser is not None:
            self.diagnoser.load_state_dict(state["diagnoser"])
        self.val_metrics = state["val_metrics"]
        self.at = Position(**state["position"])
        set_rng_state(state["rng"], self.device)
