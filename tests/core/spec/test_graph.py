"""A graph's wiring: every mistake at its pointer, a fix where one name is meant."""

from typing import Any

import pytest

from core.errors import Issue, SpecInvalid
from core.spec import parse_object
from core.spec.graph import order
from tests.core.train.specs import DIGITS

A: dict[str, Any] = {"name": "a", "inputs": ["x"], "type": "Linear", "out_features": 10}
B: dict[str, Any] = {"name": "b", "inputs": ["a"], "type": "ReLU"}


def issues(nodes: list[dict[str, Any]], *, inputs: Any = ("x",), outputs: Any = ("b",)) -> list[Issue]:
    model = {"type": "Graph", "inputs": list(inputs), "nodes": nodes, "outputs": list(outputs)}
    with pytest.raises(SpecInvalid) as caught:
        parse_object({**DIGITS, "model": model})
    return list(caught.value.issues)


MISTAKES: list[tuple[list[dict[str, Any]], dict[str, Any], str, str]] = [
    ([A, {**B, "inputs": ["z"]}], {}, "/model/nodes/1/inputs/0", "unknown_node"),
    ([A, {**B, "inputs": ["b"]}], {}, "/model/nodes/1/inputs/0", "unknown_node"),
    ([A, {**B, "name": "a"}], {"outputs": ["a"]}, "/model/nodes/1/name", "duplicate_name"),
    ([{**A, "name": "x"}], {"outputs": ["x"]}, "/model/nodes/0/name", "duplicate_name"),
    ([{**A, "name": "fc.1"}], {"outputs": ["fc.1"]}, "/model/nodes/0/name", "not_a_name"),
    ([A, B], {"outputs": ["c"]}, "/model/outputs/0", "unknown_node"),
    ([A, B], {"outputs": ["x"]}, "/model/outputs/0", "unknown_node"),
    ([A, B], {"outputs": ["a", "b"]}, "/model/outputs", "one_only"),
    ([A, B], {"inputs": ["x", "y"]}, "/model/inputs", "one_only"),
    ([A, B], {"outputs": ["a"]}, "/model/nodes/1", "unused"),
    ([{**A, "inputs": ["b"]}, B], {}, "/model/nodes/0/inputs", "circle"),
    ([{"name": "b", "type": "ReLU"}], {}, "/model/nodes/0/inputs", "missing"),
    ([{"inputs": ["x"], "type": "ReLU"}], {}, "/model/nodes/0/name", "missing"),
    ([{**A, "inputs": "x"}, B], {}, "/model/nodes/0/inputs", "wrong_type"),
    ([], {}, "/model/nodes", "out_of_range"),
]


@pytest.mark.parametrize(("nodes", "more", "pointer", "code"), MISTAKES)
def test_mistake_is_named_at_its_place(
    nodes: list[dict[str, Any]], more: dict[str, Any], pointer: str, code: str
) -> None:
    assert (pointer, code) in [(issue.pointer, issue.code) for issue in issues(nodes, **more)]


def test_similar_name_is_offered_as_a_fix() -> None:
    (issue,) = issues([{**A, "name": "hidden"}, {**B, "inputs": ["hiden"]}])
    assert issue.fix == ({"op": "replace", "path": "/model/nodes/1/inputs/0", "value": "hidden"},)


def test_nodes_may_be_posted_in_any_order() -> None:
    assert order([{"name": "b", "inputs": ["a"]}, {"name": "a", "inputs": ["x"]}]) == [1, 0]


def test_posted_order_is_kept_where_it_can_be() -> None:
    nodes = [{"name": name, "inputs": ["x"]} for name in "dcab"]
    assert order(nodes) == [0, 1, 2, 3]
