"""The operators that autograd runs for a batch, written down once and played again for every batch of that shape.

Autograd finds out anew in every update what it found out in the one before: which operators to run backwards, and in
which order. For small models that costs more than the arithmetic. A tape is the list of those operators, forwards and
backwards, as they reach torch's kernels; playing it calls the same kernels on the same numbers in the same order, so
it gives the same bits. That is not believed but compared: a tape is used once it has given what autograd gave for a
batch (loss, gradients, buffers, random numbers), and never where it has not.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.func import functional_call
from torch.fx import GraphModule

from core.train.data import Batch
from core.train.rng import rng_state, set_rng_state
from core.train.scripted import CannotScript, Function, scripted
from core.train.stepping import Tensors

MIN_UPDATES = 2000
"""Writing a tape down costs as much as some thousand updates save: shorter trainings have none."""
FIRST_UPDATES = 500
"""So many go by before a tape is written: a training may end long before it was planned to."""
MAX_TAPES = 4
"""Shapes of batches that are taped: the full ones, the last one, and what a transform makes of them."""
ONLY_NAMES = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
"""Operators that give what they were given; below autograd they mean nothing."""
UNTAPED = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})
"""Marks of operators whose numbers decide what comes after them: the next batch may need another list."""


def kind_of(batch: Batch) -> tuple[object, ...]:
    """Return what batches have in common that one list of operators serves."""
    inputs, target = batch
    return inputs.shape, target.shape, inputs.dtype, target.dtype


class Passed(NamedTuple):
    """What a pass over a batch gives."""

    loss: Tensor
    data_loss: Tensor
    """Without the penalty."""
    output: Tensor
    grads: Tensors
    """One for each trained weight, in the order of the model's."""


Losses = Callable[[Tensor, Tensor, Mapping[str, Tensor]], tuple[Tensor, Tensor]]
"""Loss and data loss from output, target and the weights by name."""


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes tapes.

    Attributes:
        model: in training mode.
        losses: of a batch.
        autocast: the context of the forward pass.
        input_dtype: that the model wants; None: as the batch is.
    """

    model: nn.Module
    losses: Losses
    autocast: AbstractContextManager[Any]
    input_dtype: torch.dtype | None = None

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the model's trained weights by name, and all else that it holds."""
        weights: dict[str, Tensor] = {}
        others = dict(self.model.named_buffers())
        for name, weight in self.model.named_parameters():
            (weights if weight.requires_grad else others)[name] = weight
        return weights, others

    def trace(self, batch: Batch) -> GraphModule:
        """Return the pass over such a batch as a graph: ``(inputs, target, *weights, *others) -> Passed, flat``.

        The model is left as it was: copies of its tensors are what the trace runs on.

        Raises:
            Exception: whatever the model or torch says of being traced.
        """
        from torch.fx.experimental.proxy_tensor import make_fx  # costs nothing where nothing is taped

        weights, others = self.tensors()

        def run(inputs: Tensor, target: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            given = dict(zip((*weights, *others), tensors, strict=True))
            with self.autocast:
                x = inputs if self.input_dtype is None else inputs.to(self.input_dtype)
                output = functional_call(self.model, given, (x,))
            loss, data_loss = self.losses(output, target, given)
            grads = torch.autograd.grad(loss, tensors[: len(weights)])
            return loss, data_loss, output, *map(_laid_out, grads, tensors)

        copies = [weight.detach().clone().requires_grad_() for weight in weights.values()]
        graph = make_fx(run)(*batch, *copies, *(tensor.detach().clone() for tensor in others.values()))
        return _tidied(graph)


def _laid_out(grad: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient as it would stand beside its weight."""
    return grad.contiguous() if weight.is_contiguous() else grad


def _tidied(graph: GraphModule) -> GraphModule:
    """Take out what means nothing below autograd.

    Raises:
        NotImplementedError: the list would depend on the numbers of the batch.
    """
    for node in list(graph.graph.nodes):
        if isinstance(node.target, OpOverload):
            if UNTAPED.intersection(node.target.tags):
                raise NotImplementedError(f"{node.target} depends on the numbers of a batch")
            if node.target in ONLY_NAMES:
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


class Tape:
    """The operators of one shape of batch, bound to the tensors of a model."""

    def __init__(self, graph: GraphModule, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._run: Function = graph.forward
        with suppress(CannotScript):
            self._run = scripted(graph)

    def play(self, inputs: Tensor, target: Tensor) -> Passed:
        """Pass forward and backward over a batch; call it in inference mode."""
        loss, data_loss, output, *grads = self._run(inputs, target, *self._tensors)
        return Passed(loss, data_loss, output, grads)


class Rehearsal(NamedTuple):
    """What a new tape gave for a batch, to be compared with what autograd gives."""

    tape: Tape
    loss: Tensor
    grads: Tensors
    others: Sequence[Tensor]
    random: dict[str, Any]


class Tapes:
    """The tapes of a training, by the shape of the batch.

    Args:
        recorder: writes them.
        device: whose random numbers the model draws.
        after: batches that go by before the first tape is written.
    """

    def __init__(self, recorder: Recorder, device: torch.device, *, after: int = 0) -> None:
        self.recorder, self.device, self._left = recorder, device, after
        self._tapes: dict[tuple[object, ...], Tape | None] = {}

    def get(self, batch: Batch) -> Tape | None:
        """Return the tape of such a batch, if there is one that may be used."""
        return self._tapes.get(kind_of(batch))

    def rehearse(self, batch: Batch) -> Rehearsal | None:
        """Write a tape for such a batch and play it on copies; None where it is too early for that, or cannot be done.

        Nothing that training holds is changed.
        """
        self._left -= 1
        if self._left >= 0 or kind_of(batch) in self._tapes or len(self._tapes) >= MAX_TAPES:
            return None
        self._tapes[kind_of(batch)] = None
        before = rng_state(self.device)
        try:
            return self._rehearsed(batch, before)
        except Exception:  # noqa: BLE001 - models say in many ways that they cannot be traced; autograd trains them
            return None
        finally:
            set_rng_state(before, self.device)

    def _rehearsed(self, batch: Batch, random: dict[str, Any]) -> Rehearsal:
        graph = self.recorder.trace(batch)
        weights, others = self.recorder.tensors()
        set_rng_state(random, self.device)
        with torch.inference_mode():
            copies = [tensor.clone() for tensor in others.values()]
            passed = Tape(graph, [*(weight.clone() for weight in weights.values()), *copies]).play(*batch)
        _check(passed)
        tape = Tape(graph, [*weights.values(), *others.values()])
        return Rehearsal(tape, passed.loss, passed.grads, copies, rng_state(self.device))

    def judge(self, batch: Batch, rehearsal: Rehearsal, loss: Tensor) -> None:
        """Use the tape from now on if autograd, which has just passed over the same batch, came to the same bits."""
        weights, others = self.recorder.tensors()
        grads = [weight.grad for weight in weights.values()]
        is_same = (
            torch.equal(rehearsal.loss, loss)
            and all(
                grad is not None and _are_same(grad, found) for grad, found in zip(grads, rehearsal.grads, strict=True)
            )
            and all(map(_are_same, others.values(), rehearsal.others))
            and _have_drawn_the_same(rehearsal.random, rng_state(self.device))
        )
        if is_same:
            self._tapes[kind_of(batch)] = rehearsal.tape


def _check(passed: Passed) -> None:
    """Refuse gradients that cannot be treated as one list, each changed in place.

    Raises:
        NotImplementedError: they are sparse, of several types, or share memory.
    """
    kinds = {(grad.dtype, grad.device, grad.layout) for grad in passed.grads}
    owners = {tensor.untyped_storage().data_ptr() for tensor in (passed.output, *passed.grads)}
    if len(kinds) > 1 or len(owners) < len(passed.grads) + 1:
        raise NotImplementedError("gradients of several kinds, or of one memory")


def _are_same(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.stride() == right.stride() and torch.equal(left, right)


def _have_drawn_the_same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return torch.equal(left["torch"], right["torch"]) and (
        left["cuda"] is None or torch.equal(left["cuda"], right["cuda"])
    )
