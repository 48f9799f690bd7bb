"""SGD, Adam and AdamW over all weights at once: torch's operators in torch's order, without its bookkeeping.

`torch.optim` walks through its weights one by one, several operators each; for small ones the walk costs more than the
arithmetic. The `_foreach` operators below are those of torch's own `foreach=True`, which on a CPU gives the same bits;
so does one operator over many small tensors that stand one behind the other, for a sum or a root is the same wherever
in a row it is taken. State and hyperparameters stay in torch's own tensors, so checkpoints and schedulers notice
nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

Tensors = list[Tensor] | tuple[Tensor, ...]
Step = Callable[[Tensors], None]
"""Does what `optimizer.step()` does, with gradients in hand."""
MAX_ELEMENTS = 1 << 22
"""Of all weights: above it the arithmetic is what costs, and what is in between costs memory for all of them."""
MAX_JOINED = 1 << 17
"""Elements that are kept in one piece: in small tensors the calls cost more than the arithmetic."""
PLAIN = ("maximize", "amsgrad", "differentiable", "capturable", "fused")
"""What torch does otherwise where one of these is set."""


def at_once(optimizer: Optimizer, weights: Sequence[Tensor]) -> Step | None:
    """Return the optimizer's step over `weights` at once; None where torch's own has to be called.

    Args:
        optimizer: which has taken a step, so that its state is there.
        weights: all that it trains, in the order in which their gradients will come.
    """
    is_small = sum(weight.numel() for weight in weights) <= MAX_ELEMENTS
    if type(optimizer) not in STEPS or not is_small or not moves_plainly(optimizer, weights):
        return None
    places = {id(weight): place for place, weight in enumerate(weights)}
    rows = [[places[id(weight)] for weight in group["params"]] for group in optimizer.param_groups]
    try:
        steps = [STEPS[type(optimizer)](group, optimizer.state) for group in optimizer.param_groups]
    except LookupError:
        return None
    vars(optimizer)["_opt_called"] = True  # a scheduler warns where `step` was never called; after a resume it never is
    if rows == [list(range(len(weights)))]:
        return steps[0]

    def step(grads: Tensors) -> None:
        for own, row in zip(steps, rows, strict=True):
            own([grads[place] for place in row])

    return step


def moves_plainly(optimizer: Optimizer, weights: Sequence[Tensor]) -> bool:
    """Whether the optimizer moves exactly these weights, all of them float32 on the CPU, by its usual formula."""
    known = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    is_alike = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
    is_usual = not any(group.get(name) for group in optimizer.param_groups for name in PLAIN)
    is_scalar = not any(isinstance(value, Tensor) for group in optimizer.param_groups for value in group.values())
    return is_alike and is_usual and is_scalar and known == {id(weight) for weight in weights}


def kept(group: Mapping[str, Any], state: Mapping[Tensor, Any], name: str) -> list[Tensor]:
    """Return what the optimizer keeps by this name for each weight of a group.

    Raises:
        LookupError: some weight has had no gradient so far.
    """
    values = [state.get(weight, {}).get(name) for weight in group["params"]]
    if any(value is None for value in values):
        raise LookupError(name)
    return values


def counts(group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> list[Tensor]:
    """Return the counts of updates that Adam keeps for each weight of a group.

    Raises:
        LookupError: they differ, for some weight had no gradient in some update.
    """
    steps = kept(group, state, "step")
    if len({float(step) for step in steps}) > 1:
        raise LookupError("step")
    return steps


def _sgd(group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> Step:
    weights = group["params"]
    buffers = kept(group, state, "momentum_buffer") if group["momentum"] else []

    def step(grads: Tensors) -> None:
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, weights, alpha=group["weight_decay"])  # noqa: SLF001
        if buffers:
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads, alpha=1 - group["dampening"])
            ahead = group["nesterov"]
            grads = torch._foreach_add(grads, buffers, alpha=group["momentum"]) if ahead else buffers  # noqa: SLF001
        torch._foreach_add_(weights, grads, alpha=-group["lr"])

    return step


def _adam(group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> Step:
    weights = group["params"]
    steps, means, squares = counts(group, state), kept(group, state, "exp_avg"), kept(group, state, "exp_avg_sq")
    is_joined = sum(weight.numel() for weight in weights) <= MAX_JOINED and all(map(Tensor.is_contiguous, weights))
    joined = Joined(steps, means, squares) if is_joined else None

    def move(grads: Tensors) -> None:
        lr, (beta1, beta2), weight_decay, eps = group["lr"], group["betas"], group["weight_decay"], group["eps"]
        count = steps[0].item() + 1
        if weight_decay and group["decoupled_weight_decay"]:
            torch._foreach_mul_(weights, 1 - lr * weight_decay)
        elif weight_decay:
            grads = torch._foreach_add(grads, weights, alpha=weight_decay)  # noqa: SLF001
        root = (1 - beta2**count) ** 0.5
        if joined is None:
            torch._foreach_add_(steps, 1)
            torch._foreach_lerp_(means, grads, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
            denominators = torch._foreach_sqrt(squares)  # noqa: SLF001
            torch._foreach_div_(denominators, root)
            torch._foreach_add_(denominators, eps)
        else:
            denominators = joined.follow(grads, beta1, beta2, root, eps)
        torch._foreach_addcdiv_(weights, means, denominators, -(lr / (1 - beta1**count)))

    return move


class Joined:
    """What Adam keeps for many small weights, each kind in one row: an operator is called once, not once a weight."""

    def __init__(self, steps: list[Tensor], means: list[Tensor], squares: list[Tensor]) -> None:
        self.steps, self.mean, self.square = join(steps), join(means), join(squares)
        self.grad, self.denominator = torch.empty_like(self.mean), torch.empty_like(self.mean)
        self.denominators = parts(self.denominator, means)

    def follow(self, grads: Tensors, beta1: float, beta2: float, root: float, eps: float) -> list[Tensor]:
        """Count an update and take its gradients; return what the means are divided by."""
        self.steps.add_(1)
        torch.cat([grad.reshape(-1) for grad in grads], out=self.grad)
        self.mean.lerp_(self.grad, 1 - beta1)
        self.square.mul_(beta2).addcmul_(self.grad, self.grad, value=1 - beta2)
        torch.sqrt(self.square, out=self.denominator).div_(root).add_(eps)
        return self.denominators


def join(tensors: Tensors) -> Tensor:
    """Move `tensors` into one piece of memory, one behind the other, and return it as one row."""
    row = torch.cat([tensor.reshape(-1) for tensor in tensors])
    for tensor, part in zip(tensors, parts(row, tensors), strict=True):
        tensor.data = part  # whoever holds the tensor goes on with it
    return row


def parts(row: Tensor, likes: Tensors) -> list[Tensor]:
    """Return the tensors, of the shapes of `likes`, that stand in `row` one behind the other."""
    pieces = row.split([like.numel() for like in likes])
    return [piece.view(like.shape) for piece, like in zip(pieces, likes, strict=True)]


STEPS: dict[type[Optimizer], Callable[[Mapping[str, Any], Mapping[Tensor, Any]], Step]] = {
    SGD: _sgd,
    Adam: _adam,
    AdamW: _adam,
}
