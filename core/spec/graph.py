"""A `Graph` model's wiring: which node takes what, and in which order nodes can be computed."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from core.errors import Issue
from core.spec.job import Component
from core.spec.nearest import nearest
from core.spec.pointer import join
from core.spec.wording import quoted, replace

NODES = "/model/nodes"


def order(nodes: Sequence[dict[str, Any]]) -> list[int]:
    """Return the places of nodes in an order in which each comes after all that it takes; as posted where possible.

    Nodes on a circle, and what takes them, are left out.
    """
    names = {node["name"] for node in nodes}
    done: set[str] = set()
    waiting = dict(enumerate(nodes))
    found: list[int] = []
    while True:
        ready = next((at for at, node in waiting.items() if not (set(node["inputs"]) & names) - done), None)
        if ready is None:
            return found
        done.add(waiting.pop(ready)["name"])
        found.append(ready)


def violations(model: Component) -> Iterator[Issue]:
    """Say what is wrong with the wiring of a graph whose parts have the right types."""
    arguments = model.arguments
    inputs, nodes, outputs = list(arguments["inputs"]), list(arguments["nodes"]), list(arguments["outputs"])
    yield from _one(inputs, "inputs", "A sample is one tensor")
    yield from _one(outputs, "outputs", "A loss takes one tensor")
    issues = [*_names(inputs, nodes), *_unknown(inputs, nodes, outputs)]
    yield from issues
    if not issues:
        yield from _circles(nodes) or _unused(inputs, nodes, outputs)


def _one(names: list[str], key: str, why: str) -> Iterator[Issue]:
    if len(names) > 1:
        yield Issue(join("/model", key), "one_only", f"{why}: a graph has one name in {quoted(key)}, not {len(names)}.")


def _names(inputs: list[str], nodes: list[dict[str, Any]]) -> Iterator[Issue]:
    taken = set(inputs)
    for at, node in enumerate(nodes):
        name, pointer = node["name"], join(NODES, at, "name")
        if not name.isidentifier():
            detail = f"A node's name is letters, digits and _, beginning with a letter; {quoted(name)} is not."
            yield Issue(pointer, "not_a_name", detail, "It is the name of its parameters: `fc1` makes `fc1.weight`.")
        elif name in taken:
            yield Issue(pointer, "duplicate_name", f"The name {quoted(name)} is taken already.")
        taken.add(name)


def _unknown(inputs: list[str], nodes: list[dict[str, Any]], outputs: list[str]) -> Iterator[Issue]:
    names = [node["name"] for node in nodes]
    for at, node in enumerate(nodes):
        others = [*inputs, *(name for name in names if name != node["name"])]
        for place, name in enumerate(node["inputs"]):
            if name not in others:
                yield _no_such(join(NODES, at, "inputs", place), name, others)
    for place, name in enumerate(outputs):
        if name not in names:
            yield _no_such(join("/model/outputs", place), name, names)


def _no_such(pointer: str, name: str, known: Iterable[str]) -> Issue:
    meant = nearest(name, list(known))
    detail = f"{quoted(name)} is no node that can stand here."
    if meant is None:
        return Issue(pointer, "unknown_node", detail, f"There are {', '.join(known)}.")
    return Issue(pointer, "unknown_node", detail, f"Did you mean `{meant}`?", (replace(pointer, meant),))


def _circles(nodes: list[dict[str, Any]]) -> list[Issue]:
    found = set(order(nodes))
    stuck = [(at, node["name"]) for at, node in enumerate(nodes) if at not in found]
    if not stuck:
        return []
    names = ", ".join(name for _, name in stuck)
    return [Issue(join(NODES, stuck[0][0], "inputs"), "circle", f"These nodes wait for each other: {names}.")]


def _unused(inputs: list[str], nodes: list[dict[str, Any]], outputs: list[str]) -> list[Issue]:
    """Find what no output needs: it would never learn."""
    needed = set(outputs)
    for at in reversed(order(nodes)):
        if nodes[at]["name"] in needed:
            needed.update(nodes[at]["inputs"])
    issues = [
        Issue(join(NODES, at), "unused", f"Nothing takes the node {quoted(node['name'])}.",
              fix=({"op": "remove", "path": join(NODES, at)},))
        for at, node in enumerate(nodes) if node["name"] not in needed
    ]  # fmt: skip
    for place, name in enumerate(inputs):
        if name not in needed and not issues:
            issues.append(Issue(join("/model/inputs", place), "unused", f"No node takes the input {quoted(name)}."))
    return issues
