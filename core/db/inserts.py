"""INSERT … ON CONFLICT, which SQLAlchemy spells once per database."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from core.db.among import is_postgresql
from core.db.tables import Base


def insert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """Begin an INSERT that may say `on_conflict_do_nothing`, in the session's dialect."""
    if is_postgresql(session):
        return postgresql.insert(table)
    return sqlite.insert(table)
