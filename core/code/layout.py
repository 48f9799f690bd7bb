"""How Python is laid out on the page: literals, calls that fit a line or stand with one argument a line, imports."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

WIDTH = 100
"""Characters of a line."""
INDENT = "    "
STANDARD = frozenset(
    {
        "argparse",
        "copy",
        "csv",
        "gzip",
        "hashlib",
        "io",
        "itertools",
        "json",
        "math",
        "os",
        "pathlib",
        "re",
        "tempfile",
        "zipfile",
    }
)
"""Modules of the standard library that scripts use; they are imported first."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Text that stands as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """`name(args, keywords)`; `is_tall` puts every argument on a line of its own, however short."""

    name: str
    args: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_tall: bool = False


def literal(value: Any) -> str:
    """Return a value as Python writes it, with double quotes and without zeros that say nothing."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Call):
        items = [literal(item) for item in value.args]
        items += [f"{name}={literal(item)}" for name, item in value.keywords.items()]
        return f"{value.name}({', '.join(items)})"
    if isinstance(value, (list, tuple, dict)):
        opening, closing = _brackets(value)
        inside = ", ".join(name + literal(item) for name, item in _items(value))
        return f"({inside},)" if isinstance(value, tuple) and len(value) == 1 else f"{opening}{inside}{closing}"
    return quoted(value) if isinstance(value, str) else _number(value)


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return repr(value)
    return re.sub(r"e([+-])0*(\d+)$", lambda found: f"e{found[1].strip('+')}{found[2]}", repr(value))


def tupled(value: Any) -> Any:
    """Return JSON's arrays as tuples, which is what torch's signatures name."""
    return tuple(tupled(item) for item in value) if isinstance(value, (list, tuple)) else value


def quoted(text: str) -> str:
    """Return a string literal, in double quotes where that takes no more backslashes than single ones."""
    written = repr(text)
    if written.startswith('"') or '"' in text:
        return written
    return f'"{written[1:-1]}"'


def plain(text: str) -> str:
    """Return a person's words so that they can stand in a docstring: printable, on one line, with nothing to escape."""
    words = "".join(letter if letter.isprintable() and letter not in '\\"' else " " for letter in text)
    return " ".join(words.split())


def written(prefix: str, value: Any, *, indent: int = 0, suffix: str = "") -> list[str]:
    """Return `prefix value suffix` as lines: one where it fits, else one argument or item a line."""
    flat = INDENT * indent + prefix + literal(value) + suffix
    if isinstance(value, Raw) or not (_is_tall(value) or (len(flat) > WIDTH and _items(value))):
        return [flat]
    opening, closing = _brackets(value)
    lines = [INDENT * indent + prefix + opening]
    for name, item in _items(value):
        lines += written(name, item, indent=indent + 1, suffix=",")
    return [*lines, INDENT * indent + closing + suffix]


def _brackets(value: Any) -> tuple[str, str]:
    if isinstance(value, Call):
        return f"{value.name}(", ")"
    return ("{", "}") if isinstance(value, dict) else ("[", "]") if isinstance(value, list) else ("(", ")")


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Call):
        return [("", item) for item in value.args] + [(f"{name}=", item) for name, item in value.keywords.items()]
    if isinstance(value, dict):
        return [(f"{quoted(name)}: ", item) for name, item in value.items()]
    return [("", item) for item in value] if isinstance(value, (list, tuple)) else []


def _is_tall(value: Any) -> bool:
    return (isinstance(value, Call) and value.is_tall) or any(_is_tall(item) for _, item in _items(value))


def indented(lines: Iterable[str], by: int = 1) -> list[str]:
    """Return lines moved to the right."""
    return [INDENT * by + line if line else line for line in lines]


class Page:
    """A script in the making: its imports, and blocks of lines in their order."""

    def __init__(self) -> None:
        self._modules: set[str] = set()
        self._names: dict[str, set[str]] = {}
        self._blocks: list[list[str]] = []

    def use(self, module: str, *names: str) -> None:
        """Import a module (`numpy as np`), or names from it."""
        if names:
            self._names.setdefault(module, set()).update(names)
        else:
            self._modules.add(module)

    def add(self, *lines: str) -> None:
        """Append a block; a function or a class is a block of its own."""
        if lines:
            self._blocks.append(list(lines))

    def text(self, title: str) -> str:
        """Return the script that begins with the docstring `title`."""
        blocks = [[title], *self._imports(), *self._blocks]
        made = blocks[0]
        for before, block in pairwise(blocks):
            gap = 2 if _is_definition(before) or _is_definition(block) else 1
            made = [*made, *[""] * gap, *block]
        return "\n".join(made) + "\n"

    def _imports(self) -> list[list[str]]:
        groups: list[list[str]] = []
        for is_standard in (True, False):
            lines = [f"import {name}" for name in sorted(self._modules) if _is_standard(name) == is_standard]
            for module in sorted(self._names):
                if _is_standard(module) == is_standard:
                    lines += _from(module, self._names[module])
            groups += [lines] if lines else []
        return groups


def _is_standard(module: str) -> bool:
    return module.split(".", maxsplit=1)[0].split(" ", maxsplit=1)[0] in STANDARD


def _from(module: str, names: set[str]) -> list[str]:
    order = sorted(names, key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))
    flat = f"from {module} import {', '.join(order)}"
    return [flat] if len(flat) <= WIDTH else [f"from {module} import (", *[f"{INDENT}{name}," for name in order], ")"]


def _is_definition(block: list[str]) -> bool:
    return next((line for line in block if line and not line.startswith("#")), "").startswith(("def ", "class ", "@"))
