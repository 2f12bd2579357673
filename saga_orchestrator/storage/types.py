"""Column types that mean the same on every database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator, TypeEngine


class JsonText(str):
    """A text that is JSON already: it is written as it is."""

    __slots__ = ()


class _JsonInText(sqlite.JSON):
    """JSON in a column of type TEXT. In one of type JSON, SQLite makes a number of a text that looks like one.

    So ``0.30000000000000004`` would come back as ``0.3``, and ``1e400`` as ``Inf``.
    """


@compiles(_JsonInText)
def _text(*_: Any, **__: Any) -> str:
    return "TEXT"


class Json(TypeDecorator[Any]):
    """JSON: JSONB on PostgreSQL, and a text on SQLite; a `JsonText` is not encoded a second time."""

    impl = JSON
    cache_ok = True
    _on_postgresql: type[Any] = JSONB

    def __init__(self, *, none_as_null: bool = False) -> None:
        super().__init__(none_as_null=none_as_null)
        self._none_as_null = none_as_null

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return _JsonInText(none_as_null=self._none_as_null)
        kind = self._on_postgresql if dialect.name == "postgresql" else JSON
        return dialect.type_descriptor(kind(none_as_null=self._none_as_null))

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        encode = super().bind_processor(dialect)

        def process(value: Any) -> Any:
            return str(value) if isinstance(value, JsonText) or encode is None else encode(value)

        return process

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)


class ExactJson(Json):
    """JSON that is read back byte for byte: ``json`` on PostgreSQL, where JSONB reorders keys and rewrites numbers.

    ``->>`` works on it as on JSONB. ``@>``, a GIN index, equality and DISTINCT do not.
    """

    cache_ok = True
    _on_postgresql = postgresql.JSON


class UtcDateTime(TypeDecorator[datetime]):
    """An instant, always aware and in UTC; SQLite keeps it as sortable text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
