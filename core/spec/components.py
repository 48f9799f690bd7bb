"""Every component of a spec against the catalog: names, arguments, and what stands nested in them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace as replaced
from typing import Any

from core.errors import Issue
from core.spec import aliases, catalog
from core.spec.catalog import Entry, Schema
from core.spec.job import MAX_NAME
from core.spec.matching import mismatches
from core.spec.nearest import nearest
from core.spec.pointer import join
from core.spec.wording import quoted, replace, unknown, wrong_type

MAX_LAYERS = 2_000
"""Layers of a model, nested ones counted."""
MAX_NESTING = 20
"""Components within each other."""

_PLACES: tuple[tuple[str, tuple[str, ...], tuple[type, ...]], ...] = (
    ("data_sources", ("data", "train"), (str, dict)),
    ("data_sources", ("data", "val"), (str, dict)),
    ("data_sources", ("data", "test"), (str, dict)),
    ("preprocess", ("data", "preprocess"), (list,)),
    ("transforms", ("data", "transforms", "train"), (list,)),
    ("transforms", ("data", "transforms", "eval"), (list,)),
    ("models", ("model",), (str, dict)),
    ("losses", ("loss",), (str, dict, list)),
    ("optimizers", ("optimizer",), (str, dict)),
    ("lr_schedulers", ("lr_scheduler",), (str, dict)),
    ("metrics", ("metrics",), (list,)),
)
"""Where a spec has components, of which kind, and whether it is one (a name or an object) or a list of them."""


def check(body: Any) -> Iterator[Issue]:
    """Say what is wrong with the components of a decoded spec.

    The places themselves may be malformed (that is for `core.spec.structure` to say); they are passed over then.
    """
    for kind, path, types in _PLACES:
        value = body
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        pointer = join("", *path)
        if not isinstance(value, types):
            continue
        if not isinstance(value, list):
            yield from _place(value, kind, pointer)
            continue
        also = ("coefficient",) if kind == "losses" else ()
        for index, item in enumerate(value):
            yield from _place(item, kind, join(pointer, index), also)


def _place(value: Any, kind: str, pointer: str, also: tuple[str, ...] = ()) -> Iterator[Issue]:
    name = value.get("type") if isinstance(value, dict) else value
    is_split = kind == "data_sources" and isinstance(value, dict) and "from" in value
    if isinstance(name, str) and 0 < len(name) <= MAX_NAME and not is_split:
        yield from _Walk().component(value, kind, pointer, also)


class _Walk:
    """One walk over a component and what is nested in it; counts layers and depth on its way."""

    def __init__(self) -> None:
        self.layers = 0
        self.depth = 0

    def component(self, value: Any, kind: str, pointer: str, also: tuple[str, ...] = ()) -> Iterator[Issue]:
        """Check one component of either spelling; `also` are keys that its place adds."""
        body = {"type": value} if isinstance(value, str) else value
        if not isinstance(body, dict):
            yield wrong_type(pointer, "a name or an object with `type`", value, lambda _: False)
        elif "type" not in body:
            yield Issue(join(pointer, "type"), "missing", '"type" is required: the name of the component.')
        elif not isinstance(body["type"], str):
            yield wrong_type(join(pointer, "type"), "a string", body["type"], lambda _: False)
        else:
            at = pointer if isinstance(value, str) else join(pointer, "type")
            yield from self._known(body, kind, pointer, at, also)

    def _known(
        self, body: Mapping[str, Any], kind: str, pointer: str, at: str, also: tuple[str, ...]
    ) -> Iterator[Issue]:
        name: str = body["type"]
        entry = catalog.find(kind, name)
        if entry is None:
            meant = nearest(name, catalog.names(kind), aliases.TYPES.get(kind, ()))
            yield _unknown_type(name, kind, at, meant)
            entry = catalog.find(kind, meant) if meant else None
        if entry is None:
            return
        if entry.refused is not None:
            yield _refused(entry, body, at)
        else:
            yield from self.arguments(body, entry, pointer, also=("type", *also))
            yield from _missing(body, entry, pointer)

    def arguments(self, body: Mapping[str, Any], entry: Entry, pointer: str, also: tuple[str, ...]) -> Iterator[Issue]:
        """Check the keyword arguments of a component; `also` are keys that are none."""

        def nested(value: Any, schema: Schema, where: str) -> Iterator[Issue]:
            if "x-arguments" in schema:  # a parameter group has its optimizer's arguments, but no groups
                inner = replaced(entry, parameters=tuple(p for p in entry.parameters if p.name != "param_groups"))
                return self.arguments(value, inner, where, also=tuple(schema["properties"]))
            return self._nested(value, schema, where)

        for name, value in body.items():
            if name in also:
                continue
            if name in entry.by_name:
                yield from mismatches(value, entry.by_name[name].schema, join(pointer, name), nested)
            else:
                meant = nearest(name, (*entry.by_name, *also), aliases.ARGUMENTS)
                yield unknown(pointer, name, f"an argument of {entry.name}", meant, body, code="unknown_argument")

    def _nested(self, value: Any, schema: Schema, pointer: str) -> Iterator[Issue]:
        """Check a component inside another one."""
        kind = schema["x-component"]
        self.layers += kind == "layers"
        if self.layers == MAX_LAYERS + 1:
            yield Issue(pointer, "too_many_layers", f"A model may have {MAX_LAYERS} layers; this is one more.")
        if self.layers > MAX_LAYERS:
            return
        if self.depth == MAX_NESTING:
            yield Issue(pointer, "too_deep", f"Components may be nested {MAX_NESTING} deep; this is one deeper.")
            return
        extra = schema.get("properties", {})
        self.depth += 1
        yield from self.component(value, kind, pointer, tuple(extra))
        if extra and isinstance(value, dict):
            own = {name: value[name] for name in extra if name in value}
            without_kind = {key: item for key, item in schema.items() if key != "x-component"}
            yield from mismatches(own, {"type": "object", **without_kind}, pointer, self._nested)
        self.depth -= 1


def _unknown_type(name: str, kind: str, at: str, meant: str | None) -> Issue:
    elsewhere = catalog.kind_of(name)
    if elsewhere is not None:
        detail = f"{quoted(name)} is one of the {_words(elsewhere)}, not of the {_words(kind)}."
    else:
        detail = f"{quoted(name)} is not one of the {_words(kind)}."
    if meant is None:
        return Issue(at, "unknown_type", detail, hint=f"GET /v1/components/{kind} lists them.")
    return Issue(at, "unknown_type", detail, hint=f"Did you mean `{meant}`?", fix=(replace(at, meant),))


def _words(kind: str) -> str:
    return "preprocessing steps" if kind == "preprocess" else kind.replace("_", " ")


def _refused(entry: Entry, body: Mapping[str, Any], at: str) -> Issue:
    detail = f"{entry.name} cannot be used: {entry.refused}."
    other = catalog.find(entry.kind, entry.instead) if entry.instead else None
    if other is None:
        return Issue(at, "refused", detail)
    is_drop_in = all(name in other.by_name for name in body if name != "type") and not list(_missing(body, other, ""))
    fix = (replace(at, other.name),) if is_drop_in else None
    return Issue(at, "refused", detail, hint=f"Use `{other.name}` instead.", fix=fix)


def _missing(body: Mapping[str, Any], entry: Entry, pointer: str) -> Iterator[Issue]:
    for parameter in entry.parameters:
        if parameter.required and parameter.name not in body:
            detail = f'{entry.name} needs "{parameter.name}" ({parameter.annotation}).'
            yield Issue(join(pointer, parameter.name), "missing_argument", detail)
