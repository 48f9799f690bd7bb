"""A list of operators as a function without Python: torch's interpreter (TorchScript) calls them one after the other.

From Python the call of an operator costs some microseconds, as much as the arithmetic of a small layer. The interpreter
calls the very same operators in the same order. What it could do beyond that, merge and reorder them, is left off, for
that gives other bits.
"""

import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

Function = Callable[..., Sequence[Tensor]]
NAME = "play"


class CannotScript(Exception):
    """The list holds what the interpreter's language has no words for."""


def scripted(graph: GraphModule) -> Function:
    """Return what does as `graph` does; call it without gradients.

    Raises:
        CannotScript: there is no such function here.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would rather compile, which takes it a minute
            warnings.simplefilter("ignore", DeprecationWarning)
            function = getattr(torch.jit.CompilationUnit(source(graph)), NAME)
    except (RuntimeError, AttributeError) as error:  # the latter where a later torch has no such interpreter any more
        raise CannotScript(str(error)) from error

    def play(*tensors: Tensor) -> Sequence[Tensor]:
        with torch.jit.optimized_execution(should_optimize=False):  # looked at in every call
            return function(*tensors)

    return play


def source(graph: GraphModule) -> str:
    """Return `graph` in the interpreter's language, a line for each operator.

    Raises:
        CannotScript: something in it has no words there.
    """
    nodes = list(graph.graph.nodes)
    names = ", ".join(node.name for node in nodes if node.op == "placeholder")
    return "\n    ".join([f"def {NAME}({names}):", *_lines(nodes)]) + "\n"


def _lines(nodes: list[Node]) -> Iterator[str]:
    for node in nodes:
        if node.op == "output":
            yield f"return {_word(node.args[0])}"
        elif node.op == "call_function":
            yield f"{node.name} = {_call(node)}"
        elif node.op != "placeholder":
            raise CannotScript(f"{node.op} of {node.name}")


def _call(node: Node) -> str:
    if node.target is operator.getitem:
        whole, place = node.args
        return f"{_word(whole)}[{_word(place)}]"
    if not isinstance(node.target, OpOverload):
        raise CannotScript(str(node.target))
    given = [*map(_word, node.args), *(f"{name}={_word(value)}" for name, value in node.kwargs.items())]
    name, _, _ = node.target.name().partition(".")  # which overload follows from what it is given
    return f"torch.ops.{name.replace('::', '.')}({', '.join(given)})"


def _word(value: Any) -> str:
    if isinstance(value, Node):
        return value.name
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_word, value))}]"
    if isinstance(value, float):
        return f'float("{value!r}")'  # infinities too
    if value is None or isinstance(value, bool | int | torch.dtype | torch.layout | torch.memory_format):
        return str(value)
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    raise CannotScript(f"a {type(value).__name__}")
