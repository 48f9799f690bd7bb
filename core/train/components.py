"""From a component of the spec to what torch takes: arguments in torch's types, torch's complaints as issues."""

import re
from collections.abc import Mapping
from typing import Any

from core.errors import Issue, SpecInvalid
from core.spec import catalog
from core.spec.job import Component
from core.spec.pointer import join

LONGEST_MESSAGE = 300

_WORDS: tuple[tuple[str, str], ...] = (
    ("learning rate", "lr"),
    ("weight decay", "weight_decay"),
    ("momentum and zero dampening", "nesterov"),
    ("beta parameter", "betas"),
    ("epsilon", "eps"),
    ("kernel size", "kernel_size"),
    ("dropout probability", "p"),
    ("milestone points", "milestones"),
    ("optimizer must support momentum", "cycle_momentum"),
)
"""How torch's messages call some arguments."""


def component_of(value: Component | str | Mapping[str, Any]) -> Component:
    """Return a component of any spelling; nested ones are plain JSON."""
    if isinstance(value, Component):
        return value
    body: dict[str, Any] = {"type": value} if isinstance(value, str) else dict(value)
    return Component.model_construct(None, **body)


def as_json(component: Component) -> dict[str, Any]:
    """Return the component as plain JSON."""
    return component.model_dump(mode="json")


def torch_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with JSON's arrays as tuples, which is what torch's signatures name."""
    return {name: _tupled(value) for name, value in arguments.items()}


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, (list, tuple)) else value


def with_defaults(component: Component, kind: str) -> dict[str, Any]:
    """Return the component as JSON with the catalog's defaults for what was left out."""
    body = as_json(component)
    entry = catalog.find(kind, component.type)
    for parameter in entry.parameters if entry else ():
        if parameter.default is not None:
            body.setdefault(parameter.name, parameter.default)
    return body


def condensed(error: BaseException) -> str:
    """Return torch's message as one short line without addresses of its own code."""
    text = " ".join(str(error).split())
    text = re.sub(r"(Exception raised from|CUDA kernel errors|This error may appear).*", "", text).strip()
    text = text or type(error).__name__
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


def refused(error: BaseException, component: Component, pointer: str) -> Issue:
    """Translate what torch said about a component, pointing at the argument that it names where it names one."""
    message = condensed(error)
    name = _named_argument(message, component)
    at = pointer if name is None else join(pointer, name)
    return Issue(at, "torch_refuses", f"{component.type}: {message.rstrip('.')}.")


def _named_argument(message: str, component: Component) -> str | None:
    lowered = message.lower()
    for words, name in _WORDS:
        if words in lowered and name in _known(component):
            return name
    given = sorted(component.arguments, key=len, reverse=True)
    return next((name for name in given if re.search(rf"\b{re.escape(name)}\b", message)), None)


def _known(component: Component) -> set[str]:
    kind = catalog.kind_of(component.type)
    entry = catalog.find(kind, component.type) if kind else None
    return set(component.arguments) | set(entry.by_name if entry else ())


def invalid(pointer: str, code: str, detail: str, hint: str | None = None, *fix: dict[str, Any]) -> SpecInvalid:
    """Build the error of one place of the spec."""
    return SpecInvalid([Issue(pointer, code, detail, hint, fix or None)])
