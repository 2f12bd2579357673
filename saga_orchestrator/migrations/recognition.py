"""Which version the tables of a saga look like, told from the tables alone.

Tables that ``create_all`` made, or revisions of an application, have no record of their version. The latest version is
recognized by the tables and columns of the mixin, so this module does not change with it.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import registry

from ..storage.mixins import SagaStateMixin
from ..storage.schema_check import lack_of
from .direction import HEAD


def recognize(connection: sa.Connection, table: str, schema: str | None) -> int:
    """Return the latest version whose tables and columns are there; 0 if there are no tables. It only reads."""
    if not sa.inspect(connection).has_table(table, schema=schema):
        return 0
    has_latest = all(_is_whole(connection, latest) for latest in _latest_tables(table, schema))
    return HEAD if has_latest else HEAD - 1


def _latest_tables(table: str, schema: str | None) -> list[sa.Table]:
    """Return the tables that the mixin maps for a model of this name."""
    registered = registry(metadata=sa.MetaData(schema=schema))
    registered.mapped(type("Model", (SagaStateMixin,), {"__tablename__": table}))
    return list(registered.metadata.sorted_tables)


def _is_whole(connection: sa.Connection, wanted: sa.Table) -> bool:
    """Return whether a table is there, and has all that the engine needs."""
    inspector, dialect = sa.inspect(connection), connection.dialect
    if not inspector.has_table(wanted.name, schema=wanted.schema):
        return False
    columns = inspector.get_columns(wanted.name, schema=wanted.schema)
    return (
        lack_of(wanted, {column["name"]: column["type"].compile(dialect=dialect) for column in columns}, dialect)
        is None
    )
