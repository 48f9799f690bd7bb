"""One optimizer update: forward, loss, backward, clip, step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.spec.job import GradientClipping, Regularization
from core.train.compiling import CannotCompile, Clipping, CompiledUpdate
from core.train.data import Batch
from core.train.phases import Phases
from core.train.scoring import RunningMean, Scores
from core.train.stepping import Step, Tensors, at_once
from core.train.tape import Recorder, Tape, Tapes

LossFn = Callable[[Tensor, Tensor], Tensor]
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Penalty:
    """``l1·Σ|w| + l2·Σw²`` over the trained weights whose names hold none of `exclude`."""

    def __init__(self, spec: Regularization, model: nn.Module) -> None:
        self.l1, self.l2 = spec.l1, spec.l2
        self.weights = {
            name: weight
            for name, weight in model.named_parameters()
            if weight.requires_grad and not any(part in name for part in spec.exclude)
        }

    def __call__(self, given: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the penalty of the weights as they are, or of `given` ones with their names."""
        weights = [(given or self.weights)[name] for name in self.weights]
        terms = [self.l1 * weight.abs().sum() for weight in weights] if self.l1 else []
        if self.l2:
            terms += [self.l2 * weight.square().sum() for weight in weights]
        return torch.stack(terms).sum() if terms else torch.zeros(())


class Clipper:
    """Measures the gradient's norm, and clips by norm or by value."""

    def __init__(self, weights: Iterable[Tensor], spec: GradientClipping | None) -> None:
        self.weights = [weight for weight in weights if weight.requires_grad]
        self.max_norm = spec.max_norm if spec else None
        self.clip_value = spec.clip_value if spec else None
        self.norm_type = spec.norm_type if spec else 2.0

    def __call__(self) -> Tensor:
        """Clip in place; return the norm before."""
        grads = [weight.grad for weight in self.weights if weight.grad is not None]
        norm = nn.utils.get_total_norm(grads, self.norm_type)
        if self.max_norm is not None:
            nn.utils.clip_grads_with_norm_(self.weights, self.max_norm, norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(self.weights, self.clip_value)
        return norm

    def in_hand(self, grads: Tensors) -> Tensor:
        """Clip gradients of one type and device that stand in no `.grad`: the operators that torch's functions call."""
        norms = torch._foreach_norm(grads, self.norm_type)  # noqa: SLF001 - as torch's own `get_total_norm`
        norm = torch.linalg.vector_norm(torch.stack(norms), self.norm_type)
        if self.max_norm is not None:
            torch._foreach_mul_(grads, torch.clamp(self.max_norm / (norm + 1e-6), max=1.0))
        if self.clip_value is not None:
            torch._foreach_clamp_min_(grads, -self.clip_value)
            torch._foreach_clamp_max_(grads, self.clip_value)
        return norm


class Updater:
    """Turns batches into updates of the model's weights, and keeps what the epoch's row wants to know.

    `update` is the inside of the training loop::

        output = model(inputs)
        loss = loss_fn(output, target) + penalty
        loss.backward()
        clip(gradients)
        optimizer.step()

    Where a tape of such batches is there, it does the first three; they come to the same bits (see `core.train.tape`).
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss_fn: LossFn,
        optimizer: Optimizer,
        clip: Clipper,
        penalty: Penalty | None,
        precision: str,
        device: torch.device,
        scores: Scores,
        phases: Phases | None = None,
        tape_after: int | None = None,
    ) -> None:
        self.model: Callable[[Tensor], Tensor] = model
        self.loss_fn, self.optimizer, self.clip, self.penalty = loss_fn, optimizer, clip, penalty
        self.scores, self.phases = scores, phases or Phases()
        self.loss, self.data_loss, self.grad_norm = RunningMean(), RunningMean(), RunningMean()
        self.autocast = autocast(precision, device)
        self.input_dtype = torch.bfloat16 if precision == "bf16-true" else None
        self.scaler = torch.amp.GradScaler(device.type) if precision == "16-mixed" else None
        self.is_closure_needed = isinstance(optimizer, torch.optim.LBFGS)
        self.on_gradients: Callable[[], None] | None = None
        """Called once, when the next update has its gradients, before they are clipped."""
        self.tapes: Tapes | None = None
        self.step_at_once: Step | None = None
        self.is_step_sought = False
        self.compiled: CompiledUpdate | None = None
        self.recorder = Recorder(model, self._losses, self.autocast, self.input_dtype)
        if tape_after is not None and self.scaler is None and not self.phases.is_on and not self.is_closure_needed:
            self.tapes = Tapes(self.recorder, device, after=tape_after)

    def update(self, batches: Sequence[Batch]) -> None:
        """Do one update on `batches`; several are accumulated, each weighted by its share of the samples."""
        if self.is_closure_needed:
            self._step_with_closure(batches)
        elif self.compiled is not None and self._may_be_compiled(self.compiled, batches):
            self._run_compiled(self.compiled, batches[0])
        elif self.tapes is None or len(batches) > 1:
            self._backward(batches, is_recorded=True)
            self._step()
        elif (tape := self.tapes.get(batches[0])) is not None:
            self._play(tape, batches[0])
        else:
            rehearsal = self.tapes.rehearse(batches[0])
            loss = self._backward(batches, is_recorded=True)
            if rehearsal is not None:
                self.tapes.judge(batches[0], rehearsal, loss)
            self._step()

    def compile(self, batch: Batch) -> None:
        """Compile the update for batches like this one; on a GPU the model alone.

        Raises:
            CannotCompile: why they go on uncompiled.
        """
        if self.is_closure_needed:
            raise CannotCompile("LBFGS evaluates the loss several times in an update")
        if self.scaler is not None:
            raise CannotCompile("16-mixed scales the loss, and leaves out updates")
        if batch[0].device.type != "cpu":
            self.model, self.tapes = torch.compile(self.model), None  # the passes alone
            return
        clipping = Clipping(self.clip.max_norm, self.clip.clip_value, self.clip.norm_type)
        self.compiled = CompiledUpdate(self.recorder, self.optimizer, clipping, batch)

    def _may_be_compiled(self, compiled: CompiledUpdate, batches: Sequence[Batch]) -> bool:
        is_looked_into = self.on_gradients is not None  # compiled, the gradients are nowhere to be seen
        return not is_looked_into and len(batches) == 1 and compiled.suits(batches[0])

    def _run_compiled(self, compiled: CompiledUpdate, batch: Batch) -> None:
        with self.phases.during("update"), torch.no_grad():
            loss, data_loss, output, norm, grads = compiled(*batch)
            self._record(loss, data_loss, output, batch[1])
            self.grad_norm.add(norm, 1)
            if grads:
                self._step_with(grads)

    def _play(self, tape: Tape, batch: Batch) -> None:
        """Do an update with a tape."""
        # torch's own optimizers may keep tensors that they make here, and inference tensors cannot be changed later
        with torch.no_grad() if self.step_at_once is None else torch.inference_mode():
            loss, data_loss, output, grads = tape.play(*batch)
            self._record(loss, data_loss, output, batch[1])
            if self.on_gradients is not None:
                self._give(grads)
                self._show_gradients()
                self.optimizer.zero_grad()
            self.grad_norm.add(self.clip.in_hand(grads), 1)
            (self.step_at_once or self._step_with)(grads)

    def _give(self, grads: Tensors) -> None:
        for weight, grad in zip(self.clip.weights, grads, strict=True):
            weight.grad = grad

    def _step_with(self, grads: Tensors) -> None:
        self._give(grads)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _show_gradients(self) -> None:
        if self.on_gradients is not None:
            self.on_gradients()
            self.on_gradients = None

    def _step(self) -> None:
        self._show_gradients()
        with self.phases.during("update"):
            grads = [weight.grad for weight in self.clip.weights]
            if self.step_at_once is not None and _are_dense(grads):
                with torch.no_grad():
                    self.grad_norm.add(self.clip.in_hand(grads), 1)
                    self.step_at_once(grads)
                for weight in self.clip.weights:
                    weight.grad = None
                return
            self.step_at_once = None  # its weights must take part in every update together
            if self.scaler is None:
                self.grad_norm.add(self.clip(), 1)
                self.optimizer.step()
                self._seek_step()
            else:
                self.scaler.unscale_(self.optimizer)
                self.grad_norm.add(self.clip(), 1)
                self.scaler.step(self.optimizer)
                self.scaler.update()
            self.optimizer.zero_grad()

    def _seek_step(self) -> None:
        """Look once whether the optimizer, which has its state now, can move all weights at once."""
        if not self.is_step_sought:
            self.step_at_once, self.is_step_sought = at_once(self.optimizer, self.clip.weights), True

    def _losses(
        self, output: Tensor, target: Tensor, given: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return loss and data loss, with the penalty of the model's weights or of `given` ones."""
        with self.autocast:
            data_loss = self.loss_fn(output, target)
        return (data_loss if self.penalty is None else data_loss + self.penalty(given)), data_loss

    def _backward(self, batches: Sequence[Batch], *, is_recorded: bool) -> Tensor:
        samples = sum(len(target) for _, target in batches)
        total = torch.zeros(())
        for inputs, target in batches:
            with self.phases.during("forward"), self.autocast:
                output = self.model(inputs if self.input_dtype is None else inputs.to(self.input_dtype))
            with self.phases.during("loss"):
                loss, data_loss = self._losses(output, target)
            if is_recorded:
                self._record(loss, data_loss, output, target)
            share = loss if len(batches) == 1 else loss * (len(target) / samples)
            with self.phases.during("backward"):
                (share if self.scaler is None else self.scaler.scale(share)).backward()
            total = share.detach() if len(batches) == 1 else total.to(share.device) + share.detach()
        return total

    def _record(self, loss: Tensor, data_loss: Tensor, output: Tensor, target: Tensor) -> None:
        self.loss.add(loss.detach(), len(target))
        if self.penalty is not None:
            self.data_loss.add(data_loss.detach(), len(target))
        if self.scores.metrics:
            self.scores.add(output.detach(), target)

    def _step_with_closure(self, batches: Sequence[Batch]) -> None:
        evaluations = 0

        def closure() -> float:
            nonlocal evaluations
            self.optimizer.zero_grad()
            loss = self._backward(batches, is_recorded=evaluations == 0)
            norm = self.clip()
            if evaluations == 0:
                self.grad_norm.add(norm, 1)
            evaluations += 1
            return float(loss)  # LBFGS reads it in any case

        self.optimizer.step(closure)
        self.optimizer.zero_grad()

    def compute(self) -> dict[str, Any]:
        """Return the epoch's means over samples: `loss`, the metrics, and of a loss with a penalty its two terms."""
        losses: dict[str, Any] = {"loss": self.loss.compute()}
        if self.penalty is not None:
            losses["data_loss"] = self.data_loss.compute()
            losses["penalty"] = losses["loss"] - losses["data_loss"]
        return {**losses, **self.scores.compute()}

    def reset(self) -> None:
        """Begin a new epoch."""
        for sums in (self.loss, self.data_loss, self.grad_norm, self.scores):
            sums.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums within the epoch and the loss scale, for the checkpoint."""
        return {
            "loss": self.loss.state_dict(),
            "data_loss": self.data_loss.state_dict(),
            "grad_norm": self.grad_norm.state_dict(),
            "scores": self.scores.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on where `state` was taken."""
        self.loss.load_state_dict(state["loss"], device)
        self.data_loss.load_state_dict(state["data_loss"], device)
        self.grad_norm.load_state_dict(state["grad_norm"], device)
        self.scores.load_state_dict(state["scores"], device)
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Go on with the optimizer's `state`, which torch rounds to the number format of the weights: undo that."""
        self.step_at_once, self.is_step_sought = None, False  # it holds the tensors of the state before
        if self.compiled is not None:
            self.compiled.forget()
        self.optimizer.load_state_dict(state)
        saved, loaded = state["state"], self.optimizer.state_dict()["state"]
        for index, values in loaded.items():
            for name, value in values.items():
                before = saved.get(index, {}).get(name)
                if isinstance(value, Tensor) and isinstance(before, Tensor) and value.dtype != before.dtype:
                    values[name] = before.to(value.device)


def _are_dense(grads: list[Tensor | None]) -> TypeGuard[list[Tensor]]:
    return all(grad is not None and not grad.is_sparse for grad in grads)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which the forward pass runs in `precision`."""
    dtype = AUTOCAST.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
