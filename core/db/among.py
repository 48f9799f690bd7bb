"""`column IN (…)` with any number of values as one parameter: one statement, built and prepared once, for all of them.

Building a statement takes ten times as long as running one that is there; what every poll asks is built once.
"""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Connection, String, any_, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

Reader = Session | Connection
"""What reads rows: a session, or a connection where rows are all that is wanted."""


def is_postgresql(reader: Reader) -> bool:
    """Say whether this is PostgreSQL; else it is SQLite."""
    bind = reader.get_bind() if isinstance(reader, Session) else reader
    return bind.dialect.name == "postgresql"


def among(column: InstrumentedAttribute[Any], *, name: str = "among", on_postgresql: bool) -> ColumnElement[bool]:
    """Return the condition under which a column of text is one of the values of the parameter `name`."""
    if on_postgresql:
        return column == any_(bindparam(name, type_=ARRAY(String)))
    return column.in_(select(func.json_each(bindparam(name, type_=String)).table_valued("value").c.value))


def values(wanted: Iterable[str], *, name: str = "among", on_postgresql: bool) -> dict[str, Any]:
    """Return the parameter."""
    listed = list(wanted)
    return {name: listed if on_postgresql else json.dumps(listed)}
