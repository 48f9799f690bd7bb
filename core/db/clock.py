"""The database's own clock: the only one that is ever compared with a row."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator
from typing_extensions import override


class Instant(TypeDecorator[datetime]):
    """An instant in UTC: `timestamptz` on PostgreSQL, ISO text with microseconds on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; hand SQLite, which keeps none, the UTC wall time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC on both databases."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class now(FunctionElement[datetime]):  # noqa: N801 - reads as SQL
    """The database's clock, optionally so many seconds ahead: `now()`, `now(30.0)`, `now(-5.0)`."""

    type = Instant()
    inherit_cache = True
    name = "epochd_now"

    def __init__(self, seconds: Any = 0.0) -> None:
        from sqlalchemy import cast, literal

        super().__init__(literal(seconds, Float) if isinstance(seconds, int | float) else cast(seconds, Float))


@compiles(now, "postgresql")
def _postgresql(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"(clock_timestamp() + make_interval(secs => ({seconds})::double precision))"


@compiles(now, "sqlite")
def _sqlite(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+.3f seconds', {seconds})) || '000')"
