"""From a class or function to the parameters of a catalog entry."""

import collections.abc
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_overloads, get_type_hints

from core.train.catalog.annotations import NULL, Schema, either, json_default, schema_of, schema_of_default

Body = dict[str, Any]

LEFT_OUT = frozenset({
    "params", "optimizer", "last_epoch", "device", "dtype", "size_average", "reduce", "tensor", "generator",
    "process_group", "differentiable", "copy", "progress",
})  # fmt: skip
"""Arguments that the trainer gives itself, that are deprecated, or that a spec has another place for."""


def entry(
    target: Callable[..., Any],
    *,
    change: Mapping[str, Schema | None] | None = None,
    add: Mapping[str, Body] | None = None,
    inferred: Collection[str] = (),
    keep: Collection[str] = (),
) -> Body:
    """Return the catalog entry of a class or function.

    Args:
        target: the class or function.
        change: schemas to use instead of the annotation's, by parameter; none leaves the parameter out.
        add: parameters that are not the target's own, as `parameter` makes them.
        inferred: names that may be left out of a spec, among the target's.
        keep: names to keep although they stand in `LEFT_OUT`.
    """
    changes = change or {}
    parameters: dict[str, Body] = {}
    refused = None
    for name, found in _signature(target).items():
        is_variadic = found.kind in (found.VAR_POSITIONAL, found.VAR_KEYWORD)
        if is_variadic or name.startswith("_") or (name in LEFT_OUT and name not in keep):
            continue
        schema = changes[name] if name in changes else _schema(found)
        if schema is not None:
            parameters[name] = _parameter(found, schema, is_inferred=name in inferred)
        elif found.default is found.empty and name not in changes:
            refused = f"its argument `{name}` has no form in JSON"
    if refused:
        return refusal(target, refused)
    listed = [{"name": name, **body} for name, body in {**parameters, **(add or {})}.items()]
    return {"help": first_line(target), **({"parameters": listed} if listed else {})}


def parameter(schema: Schema, *, default: Any = None, required: bool = False, inferred: bool = False) -> Body:
    """Describe a parameter that no signature has."""
    body: Body = {"schema": schema}
    if required:
        body["required"] = True
    elif inferred:
        body["inferred"] = True
    elif default is not None:
        body["default"] = default
    return body


def refusal(target: Callable[..., Any], reason: str, instead: str | None = None) -> Body:
    """Return the entry of a thing that a spec cannot use."""
    body: Body = {"help": first_line(target), "refused": reason}
    return {**body, "instead": instead} if instead else body


def first_line(target: Any) -> str:
    """Return the first sentence of a docstring as plain text."""
    paragraphs = (
        inspect.cleandoc((vars(target).get("__doc__") if inspect.isclass(target) else target.__doc__) or "")
        .strip()
        .split("\n\n")
    )
    text = next((text for text in paragraphs if not text.lstrip().startswith(("..", "__init__("))), "")
    text = re.sub(r":\w+(?::\w+)?:`~?\.?([^`<]*?)(?: ?<[^`]*>)?`", lambda match: match[1].split(".")[-1], text)
    text = re.sub(r"`([^`<]+?) ?<[^`>]*>`_+", r"\1", text)
    text = " ".join(text.replace("``", "`").split()).replace(" ;", ";")
    sentence = re.split(r"(?<=[a-z)`\]])\.(?:\s|$)", text, maxsplit=1)[0].rstrip(".:") or target.__name__
    return sentence if len(sentence) <= 160 else sentence[:157].rsplit(" ", 1)[0] + " …"


def _signature(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters with their annotations evaluated; the first overload where there are several."""
    function = target.__init__ if inspect.isclass(target) else target
    overloads = get_overloads(function)
    function = overloads[0] if overloads else function
    # torch imports some of its annotations' names for type checkers only.
    hints = get_type_hints(function, localns=vars(collections.abc))
    found = inspect.signature(function).parameters
    return {
        name: item.replace(annotation=hints.get(name, item.annotation))
        for name, item in found.items()
        if name != "self"
    }


def _schema(found: inspect.Parameter) -> Schema | None:
    if found.annotation is found.empty:
        return {} if found.default is found.empty else schema_of_default(found.default)
    schema = schema_of(found.annotation)
    if schema is None or schema == NULL:
        return None
    return either([schema, NULL]) if found.default is None else schema


def _parameter(found: inspect.Parameter, schema: Schema, *, is_inferred: bool) -> Body:
    if found.default is found.empty:
        return parameter(schema, required=not is_inferred, inferred=is_inferred)
    try:
        return parameter(schema, default=json_default(found.default), inferred=is_inferred)
    except ValueError:
        return parameter(schema)
