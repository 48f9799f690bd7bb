"""The page of the job spec, written from the models themselves.

python -m core.spec.page         # writes docs/spec.md

Types, bounds, allowed words, defaults and meanings come from `core.spec.job`, names from the catalog; what no model
knows stands in `page.md` beside this module.
"""

import argparse
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from core.spec import catalog
from core.spec.job import JobSpec
from core.spec.parts import Place, parts

FILE = Path(__file__).resolve().parents[2] / "docs" / "spec.md"
TEMPLATE = Path(__file__).with_name("page.md")
HEAD = "| field | takes | default | meaning |\n| --- | --- | --- | --- |"
WORTH_A_POWER = 2**53
"""Bounds from here on are written as powers of two."""
Schema = Mapping[str, Any]


def text() -> str:
    """Return the page as it is committed."""
    page = TEMPLATE.read_text(encoding="utf-8")
    return page.replace("<!-- fields -->", "\n\n".join(_sections())).replace("<!-- names -->", _names())


def main() -> None:
    """Write the page to `docs/spec.md`, or where `--out` says."""
    parser = argparse.ArgumentParser(description="Write the page of the job spec.")
    parser.add_argument("--out", type=Path, default=FILE)
    out: Path = parser.parse_args().out
    out.write_text(text(), encoding="utf-8")


def _sections() -> Iterator[str]:
    schema = JobSpec.model_json_schema()
    places: dict[type[BaseModel], list[Place]] = {}
    for place, model in parts().items():
        places.setdefault(model, []).append(place)
    links = {model.__name__: _title(where) for model, where in places.items()}
    for model, where in places.items():
        own: Schema = schema if model is JobSpec else schema["$defs"][model.__name__]
        rows = [
            _row(field.alias or name, own["properties"][field.alias or name], field, links)
            for name, field in model.model_fields.items()
        ]
        yield f"## {_title(where)}\n\n{inspect.getdoc(model)}\n\n{HEAD}\n" + "\n".join(rows)


def _title(places: Sequence[Place]) -> str:
    return ", ".join(f"`{'.'.join(place)}`" if place else "The spec" for place in places)


def _anchor(title: str) -> str:
    """Return what GitHub makes of a heading."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def _row(name: str, schema: Schema, field: FieldInfo, links: Mapping[str, str]) -> str:
    cells = (f"`{name}`", _takes(schema, links), _default(field), " ".join((field.description or "").split()))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        given = value.model_dump(mode="json", exclude_unset=True)
        return f"`{json.dumps(given)}`" if given else "its defaults"
    return f"`{json.dumps(value)}`"


def _takes(schema: Schema, links: Mapping[str, str]) -> str:
    """Say in words what a JSON Schema allows."""
    if "anyOf" in schema or "oneOf" in schema:
        return _any_of([item for item in schema.get("anyOf") or schema["oneOf"] if item.get("type") != "null"], links)
    if "$ref" in schema:
        return _object(schema["$ref"].rpartition("/")[2], links)
    if schema.get("type") in ("array", "object"):
        return _many(schema, links)
    return _scalar(schema)


def _many(schema: Schema, links: Mapping[str, str]) -> str:
    if schema["type"] == "array":
        return f"list of {_takes(schema['items'], links)}{_size(schema, 'Items')}"
    return f"object of {_takes(schema['additionalProperties'], links)}{_size(schema, 'Properties')}"


def _scalar(schema: Schema) -> str:
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{json.dumps(word)}`" for word in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "boolean":
        return "`true` or `false`"
    if schema["type"] == "string":
        return f"text like `{schema['pattern']}`" if "pattern" in schema else f"text{_size(schema, 'Length')}"
    return f"{schema['type']}{_bounds(schema)}"


def _any_of(alternatives: list[Schema], links: Mapping[str, str]) -> str:
    words = [_takes(item, links) for item in alternatives]
    if "component" in words:  # whose bare name is an alternative of the schema
        words = [word for word in words if not word.startswith("text")]
    return " or ".join(dict.fromkeys(words))


def _object(name: str, links: Mapping[str, str]) -> str:
    return f"[object](#{_anchor(links[name])})" if name in links else "component"


def _size(schema: Schema, of: str) -> str:
    """Say how long a text, list or object may be."""
    least, most = schema.get(f"min{of}"), schema.get(f"max{of}")
    words = [*([f"at least {least}"] if least else []), *([f"at most {most}"] if most is not None else [])]
    return f" ({', '.join(words)})" if words else ""


def _bounds(schema: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ",".join(f" {sign} {_number(schema[name])}" for name, sign in signs.items() if name in schema)


def _number(value: float) -> str:
    whole = int(value)
    if whole != value:
        return f"{value:g}"
    is_power = whole >= WORTH_A_POWER and whole & (whole - 1) == 0
    return f"2^{whole.bit_length() - 1}" if is_power else f"{whole:,}"


def _names() -> str:
    rows = [
        f"| {kind.replace('_', ' ')} | {', '.join(f'`{name}`' for name in catalog.names(kind))} |"
        for kind in catalog.kinds()
    ]
    return "\n".join(("| kind | names |", "| --- | --- |", *rows))


if __name__ == "__main__":
    main()
