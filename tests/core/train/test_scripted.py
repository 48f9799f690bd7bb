"""The interpreter's function must do what the list of operators does, or there must be none."""

import operator
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.nn import functional as F  # noqa: N812 - its usual name

from core.train.scripted import CannotScript, scripted, source
from core.train.tape import Recorder, Tape

IMAGES = torch.linspace(-1, 1, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)
CLASSES = torch.tensor([0, 1, 2, 1])
MODELS: dict[str, Callable[[], nn.Module]] = {
    "perceptron": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.GELU(), nn.Linear(7, 3)),
    "convolution": lambda: nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(45, 3)
    ),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3)),
    "norms": lambda: nn.Sequential(nn.GroupNorm(3, 3), nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 3)),
    "attention": lambda: nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(64, 4, 16, batch_first=True), nn.Flatten(), nn.Linear(192, 3)
    ),
    "clamped": lambda: nn.Sequential(nn.Flatten(), nn.Hardtanh(-0.1, float("inf")), nn.Linear(192, 3)),
}


def tape_of(model: nn.Module) -> tuple[GraphModule, list[Tensor]]:
    """Return the pass over a batch as a graph, and the model's tensors as it takes them."""

    def losses(output: Tensor, target: Tensor, _: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        loss = F.cross_entropy(output, target)
        return loss, loss

    recorder = Recorder(model, losses, nullcontext())
    weights, others = recorder.tensors()
    return recorder.trace((IMAGES, CLASSES)), [*weights.values(), *others.values()]


@pytest.mark.parametrize("name", MODELS)
def test_it_gives_the_bits_of_the_list_and_changes_what_the_list_changes(name: str) -> None:
    torch.manual_seed(1)
    graph, tensors = tape_of(MODELS[name]())
    function = scripted(graph)
    found: list[list[Tensor]] = []
    for run in (graph.forward, function, function):  # an interpreter that has warmed up may change its mind
        own = [tensor.detach().clone() for tensor in tensors]
        torch.manual_seed(2)
        with torch.no_grad():
            found.append([*run(IMAGES, CLASSES, *own), *own, torch.get_rng_state()])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_nobody_elses_interpreter_is_changed() -> None:
    graph, tensors = tape_of(MODELS["perceptron"]())
    before = torch._C._get_graph_executor_optimize()
    with torch.no_grad():
        scripted(graph)(IMAGES, CLASSES, *(tensor.detach() for tensor in tensors))
    assert torch._C._get_graph_executor_optimize() == before is True


def test_each_operator_is_a_line() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    both = graph.call_function(torch.ops.aten.max.dim, (x, 1), {"keepdim": True})
    one = graph.call_function(operator.getitem, (both, 0))
    graph.output((graph.call_function(torch.ops.aten.clamp.default, (one, 0.5, float("inf"))),))
    assert source(GraphModule({}, graph)).splitlines() == [
        "def play(x):",
        "    max_dim = torch.ops.aten.max(x, 1, keepdim=True)",
        "    getitem = max_dim[0]",
        '    clamp_default = torch.ops.aten.clamp(getitem, float("0.5"), float("inf"))',
        "    return [clamp_default]",
    ]


def foreign(function: Callable[..., Tensor]) -> GraphModule:
    graph = Graph()
    graph.output((graph.call_function(function, (graph.placeholder("x"),)),))
    return GraphModule({}, graph)


class TestWithoutWords:
    def test_what_is_no_operator_is_refused(self) -> None:
        with pytest.raises(CannotScript, match="relu"):
            scripted(foreign(F.relu))

    def test_what_the_interpreter_does_not_take_is_refused(self) -> None:
        graph = foreign(torch.ops.aten.mm.default)  # it wants two
        with pytest.raises(CannotScript, match="mat2"):
            scripted(graph)

    def test_a_tape_plays_the_list_itself(self) -> None:
        def passed(x: Tensor, target: Tensor) -> list[Tensor]:
            return [x.sum(), x.sum(), target, x + 1]

        graph = Graph()
        given = graph.placeholder("x"), graph.placeholder("y")
        made = graph.call_function(passed, given)
        graph.output(tuple(graph.call_function(operator.getitem, (made, place)) for place in range(4)))
        played = Tape(GraphModule({}, graph), []).play(torch.ones(2), torch.zeros(2))
        assert float(played.loss) == 2
        assert [grad.tolist() for grad in played.grads] == [[2, 2]]
