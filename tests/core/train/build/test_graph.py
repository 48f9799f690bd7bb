"""Graph models against the same wiring written by hand, in torch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.errors import SpecInvalid
from core.spec import parse_object
from core.train import build
from tests.core.train.specs import DIGITS


def graph(nodes: list[dict[str, Any]], output: str = "out", **more: Any) -> Any:
    return parse_object(
        {**DIGITS, "model": {"type": "Graph", "inputs": ["x"], "nodes": nodes, "outputs": [output], **more}}
    )


def node(name: str, inputs: str, kind: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "inputs": inputs.split(), "type": kind, **arguments}


class TwoTowers(nn.Module):
    """What `TOWERS` says, as code; its layers are made in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(8, 6)
        self.right = nn.Linear(8, 6)
        self.mixed = nn.Bilinear(6, 6, 4)
        self.out = nn.Linear(4 + 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.relu(self.left(x)), self.right(x)
        gated = left * right
        return self.out(torch.cat([self.mixed(left, right), gated + right], dim=1))


TOWERS = [
    node("left", "x", "Linear", out_features=6),
    node("active", "left", "ReLU"),
    node("right", "x", "Linear", out_features=6),
    node("gated", "active right", "ext.Multiply"),
    node("summed", "gated right", "ext.Add"),
    node("mixed", "active right", "Bilinear", out_features=4),
    node("joined", "mixed summed", "ext.Concatenate"),
    node("out", "joined", "Linear", out_features=3),
]


def test_graph_computes_what_the_same_code_computes() -> None:
    model = build.model(graph(TOWERS), (8,), seed=3)
    torch.manual_seed(3)
    plain = TwoTowers()
    x, target = torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1])
    assert list(model.state_dict()) == list(plain.state_dict())
    for one in (model, plain):
        nn.functional.cross_entropy(one(x), target).backward()
    assert torch.equal(model(x), plain(x))
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


def test_sizes_are_inferred_at_every_node() -> None:
    inferred = build.infer(graph(TOWERS), (8,))
    nodes = {one["name"]: one for one in inferred.model["nodes"]}
    assert inferred.issues == []
    assert (nodes["mixed"]["in1_features"], nodes["mixed"]["in2_features"]) == (6, 6)
    assert nodes["out"]["in_features"] == 10
    assert [row.pointer for row in inferred.layers][:2] == ["/model/nodes/0", "/model/nodes/1"]


def test_order_of_the_nodes_does_not_matter_to_what_is_computed() -> None:
    spec = graph([TOWERS[-1], *TOWERS[:-1]])
    model, straight = build.model(spec, (8,), seed=3), build.model(graph(TOWERS), (8,), seed=3)
    model.load_state_dict(straight.state_dict())
    x = torch.randn(2, 8)
    assert torch.equal(model(x), straight(x))


def test_residual_connection_by_name() -> None:
    nodes = [node("inner", "x", "Sequential", layers=[{"type": "Linear", "out_features": 8}, "ReLU"])]
    model = build.model(graph([*nodes, node("out", "x inner", "ext.Add")]), (8,), seed=1)
    x = torch.randn(2, 8)
    weight, bias = model.state_dict().values()
    assert torch.equal(model(x), x + torch.relu(nn.functional.linear(x, weight, bias)))


ATTENTION = node("att", "x", "MultiheadAttention", num_heads=2, batch_first=True)


@pytest.mark.parametrize("inputs", ["x", "x x", "x x x"])
def test_attention_takes_its_last_input_for_those_not_given(inputs: str) -> None:
    nodes = [{**ATTENTION, "inputs": inputs.split()}, node("out", "att", "ext.LastTimestep")]
    model = build.model(graph(nodes), (5, 8), seed=1).eval()
    torch.manual_seed(1)
    plain = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    assert torch.allclose(model(x), plain(x, x, x)[0][:, -1])


def test_decoder_attends_to_a_memory() -> None:
    nodes = [
        node("memory", "x", "TransformerEncoderLayer", nhead=2, dim_feedforward=16, batch_first=True),
        node("read", "x memory", "TransformerDecoderLayer", nhead=2, dim_feedforward=16, batch_first=True),
        node("last", "read", "ext.LastTimestep"),
        node("out", "last", "Linear", out_features=3),
    ]
    model = build.model(graph(nodes), (5, 8), seed=1)
    model(torch.randn(2, 5, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_parts_are_frozen_and_initialised_by_their_names() -> None:
    spec = graph(TOWERS, freeze=["left", "right.bias"], bias_init={"type": "zeros_"})
    model = build.model(spec, (8,), seed=1)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["left.weight", "left.bias", "right.bias"]
    assert all(not value.any() for name, value in model.state_dict().items() if name.endswith("bias"))


REFUSED: list[tuple[list[dict[str, Any]], str, str]] = [
    ([node("out", "x x", "Linear", out_features=3)], "/model/nodes/0/inputs", "number_of_inputs"),
    ([node("out", "x", "ext.Add")], "/model/nodes/0/inputs", "number_of_inputs"),
    ([node("out", "x x x", "Bilinear", out_features=3)], "/model/nodes/0/inputs", "number_of_inputs"),
    (
        [node("small", "x", "Linear", out_features=5), node("out", "x small", "ext.Add")],
        "/model/nodes/1",
        "layer_refuses",
    ),
    ([node("out", "x", "Linear", in_features=7, out_features=3)], "/model/nodes/0/in_features", "size_mismatch"),
    ([node("out", "x", "Conv2d", out_channels=3, kernel_size=3)], "/model/nodes/0", "wrong_dimensions"),
    (
        [{**node("out", "x", "Linear", out_features=3), "bias_init": "zeros_"}],
        "/model/nodes/0/bias_init",
        "unknown_argument",
    ),
]


@pytest.mark.parametrize(("nodes", "pointer", "code"), REFUSED)
def test_what_a_node_cannot_do_is_refused_at_its_place(nodes: list[dict[str, Any]], pointer: str, code: str) -> None:
    with pytest.raises(SpecInvalid) as caught:
        build.model(graph(nodes), (8,), seed=1)
    assert [(issue.pointer, issue.code) for issue in caught.value.issues] == [(pointer, code)]
    fixes = [step for issue in caught.value.issues for step in issue.fix or ()]
    assert not [step for step in fixes if step["op"] == "add" and step["path"] == pointer]
