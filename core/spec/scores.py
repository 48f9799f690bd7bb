"""The names of metrics in rows and monitors."""

from collections.abc import Sequence

from core.spec.job import Component


def named(components: Sequence[Component]) -> dict[str, Component]:
    """Return the metrics by the name that rows and monitors give them.

    That is the component's type; `accuracy` among the k best is `accuracy_top<k>`, and a second one of a type bears
    its average: `f1`, `f1_micro`.
    """
    names: dict[str, Component] = {}
    for component in components:
        top_k = component.arguments.get("top_k", 1)
        name = component.type if top_k == 1 else f"{component.type}_top{top_k}"
        if name in names:
            name = f"{name}_{component.arguments.get('average', 'macro')}"
        names.setdefault(name, component)
    return names
