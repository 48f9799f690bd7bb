"""`column IN (…)` with any number of values as one parameter: one statement text, prepared once, for all of them."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, String, any_, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session


def among(session: Session, column: InstrumentedAttribute[Any], values: Iterable[str]) -> ColumnElement[bool]:
    """Return the condition under which a column of text is one of the values, in the session's dialect."""
    wanted = list(values)
    if session.get_bind().dialect.name == "postgresql":
        return column == any_(literal(wanted, ARRAY(String)))
    return column.in_(select(func.json_each(json.dumps(wanted)).table_valued("value").c.value))
