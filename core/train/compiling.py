"""A whole update as machine code: forward, loss, backward, norm, clipping and the optimizer's move in one piece.

The graph is that of a tape (see `core.train.tape`), joined with the optimizer's formula and handed to torch's compiler
(Inductor). Its code adds in another order than torch's kernels, so the last bits differ from theirs; they are the same
in every run of one spec, and in every attempt. To that end which updates run compiled follows from their place alone:
those with a full batch, once the optimizer has a state, and whose gradients nobody asks to see. All others run as ever.
"""

import os
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.optim import Optimizer

from core.train.components import condensed
from core.train.data import Batch
from core.train.formulas import moves_of
from core.train.rng import rng_state, set_rng_state
from core.train.stepping import Tensors
from core.train.tape import Recorder, kind_of

COMPILERS = ("g++", "clang++", "c++")
OPTIONS: dict[str, Any] = {
    "fallback_random": True,  # torch's own random numbers: a checkpoint knows their state
    "compile_threads": 1,  # the pool's processes would import torch, each for seconds
}


Run = Callable[..., Sequence[Tensor]]


class CannotCompile(Exception):
    """Why an update runs uncompiled, in words."""


def check_tools() -> None:
    """Look for what Inductor needs on a CPU.

    Raises:
        CannotCompile: it is not here.
    """
    chosen = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([chosen] if chosen else COMPILERS)):
        raise CannotCompile(f"there is no C++ compiler here ({chosen or ', '.join(COMPILERS)})")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise CannotCompile("the headers of Python are not installed here")


class Updated(NamedTuple):
    """What a compiled update gives; the weights have moved, or the gradients are left to the optimizer."""

    loss: Tensor
    data_loss: Tensor
    output: Tensor
    norm: Tensor
    """Of the gradients before clipping."""
    grads: Tensors
    """Clipped; none where the weights have moved."""


class Clipping(NamedTuple):
    """How gradients are clipped."""

    max_norm: float | None
    clip_value: float | None
    norm_type: float


class CompiledUpdate:
    """The update for full batches of one shape.

    Args:
        recorder: of the pass.
        optimizer: whose formula is compiled along where it is known.
        clipping: of the gradients.
        batch: a full one.

    Raises:
        CannotCompile: the model, the loss or the compiler will not have it.
    """

    def __init__(self, recorder: Recorder, optimizer: Optimizer, clipping: Clipping, batch: Batch) -> None:
        weights, others = recorder.tensors()
        self.moves = moves_of(optimizer, list(weights.values()))
        self.clipping, self.weights = clipping, len(weights)
        self._model = [tensor.detach() for tensor in (*weights.values(), *others.values())]
        self._kind = kind_of(batch)
        check_tools()
        device = batch[0].device
        random = rng_state(device)
        try:
            self._run = self._compiled(recorder.trace(batch), batch)
        except Exception as error:
            raise CannotCompile(f"torch cannot compile it: {type(error).__name__}: {condensed(error)}") from error
        finally:
            set_rng_state(random, device)

    def suits(self, batch: Batch) -> bool:
        """Whether the batch is one that this update was compiled for, and the optimizer has what it needs."""
        return kind_of(batch) == self._kind and (self.moves is None or self.moves.gather())

    def forget(self) -> None:
        """Look for the optimizer's state anew: it was loaded."""
        if self.moves is not None:
            self.moves.kept = None

    def __call__(self, inputs: Tensor, target: Tensor) -> Updated:
        """Do an update; call it without gradients."""
        more: Sequence[Tensor] = ()
        if self.moves is not None:
            self.moves.count()
            more = (self.moves.numbers, *(self.moves.kept or ()))
        loss, data_loss, output, norm, *grads = self._run(inputs, target, *self._model, *more)
        return Updated(loss, data_loss, output, norm, grads)

    def _compiled(self, passing: GraphModule, batch: Batch) -> Run:
        """Join the pass, the norm, the clipping and the formula, and compile them."""
        from torch._inductor import compile as lower  # seconds of imports, for those who compile
        from torch.fx.experimental.proxy_tensor import make_fx

        size = 2 + len(self._model)

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            loss, data_loss, output, *grads = passing(*tensors[:size])
            norm, grads = self._clipped(grads)
            if self.moves is None:
                return loss, data_loss, output, norm, *grads
            numbers, *state = tensors[size:]
            self.moves.apply(numbers, tensors[2 : 2 + self.weights], grads, state)
            return loss, data_loss, output, norm

        more = [] if self.moves is None else [self.moves.numbers, *self.moves.examples()]
        example = [*batch, *self._model, *more]
        with torch.no_grad():
            graph = make_fx(run)(*copies(example))
            compiled: Run = lower(graph, [*copies(example)], options=OPTIONS)
            compiled(*copies(example))
        return compiled

    def _clipped(self, grads: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the norm, and the gradients as clipped."""
        max_norm, clip_value, norm_type = self.clipping
        norms = [torch.linalg.vector_norm(grad, norm_type) for grad in grads]
        norm = torch.linalg.vector_norm(torch.stack(norms), norm_type)
        if max_norm is not None:
            coefficient = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
            grads = [coefficient * grad for grad in grads]
        if clip_value is not None:
            grads = [grad.clamp(-clip_value, clip_value) for grad in grads]
        return norm, grads


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of their own memory, for what changes them in place."""
    return [tensor.clone() for tensor in tensors]
