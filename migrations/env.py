"""What Alembic runs: on the connection that `core.db.migrate` hands in, or on the operator's database."""

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.schema import SchemaItem

from core.db.engine import make_engine
from core.db.migrate import VERSION_TABLE, locked
from core.db.tables import Base
from core.settings import load_settings


def run(connection: Connection) -> None:
    """Run the migrations that were asked for in the connection's transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        transactional_ddl=True,  # SQLite too: core.db.engine begins its transactions, not the driver
        render_as_batch=True,  # SQLite changes a table by copying it
        compare_type=True,
        include_object=can_be_compared,
    )
    with context.begin_transaction():
        context.run_migrations()


def can_be_compared(item: SchemaItem, name: str | None, kind: str, is_reflected: bool, other: object) -> bool:  # noqa: ARG001, FBT001 - Alembic's signature
    """Leave out the one index with an expression (`priority DESC`): SQLite shows no expressions of an index."""
    return not (kind == "index" and name == "ix_jobs_claim" and context.get_bind().dialect.name == "sqlite")


def main() -> None:
    """Choose the connection."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        run(connection)
        return
    engine = make_engine(load_settings().sqlalchemy_url)
    with locked(engine) as own:
        run(own)
    engine.dispose()


main()
