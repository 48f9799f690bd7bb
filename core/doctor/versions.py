"""What is installed, read without importing it."""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def torch_build() -> dict[str, Any]:
    """Return what torch's own `version.py` says: `__version__`, `cuda`, `hip`, …; empty where it is not installed."""
    spec = find_spec("torch")  # does not import it
    if spec is None or spec.origin is None:
        return {}
    return constants((Path(spec.origin).parent / "version.py").read_text())


def constants(source: str) -> dict[str, Any]:
    """Return the constants that a module assigns."""
    found: dict[str, Any] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                found[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                found[name] = value
            case _:
                pass
    return found


def pair(text: str) -> tuple[int, int]:
    """Return major and minor of a version such as `2.15.0+cu132`."""
    major, minor, *_ = text.split(".")
    return int(major), int(minor)
