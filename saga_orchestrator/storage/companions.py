"""The companion tables of a saga table: `mixins` adds them to the metadata of the user's own model.

- ``<table>_history``: one row for each finished attempt, and for each order. Only ever added to.
- ``<table>_inbox``: the events that were sent to sagas, with what became of each; some before their saga exists.
- ``<table>_route``: which saga has waited for which correlation, so that such an event finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, Uuid, text
from sqlalchemy.sql.elements import conv

from ..errors import SagaDefinitionError
from .types import ExactJson, UtcDateTime

WAITS = "status = 'BUFFERED'"
_OURS = "saga_companion"
"""What `Table.info` holds of a companion that was made here: it need not be looked at again."""


def partial_index(name: str, *columns: Column[Any], where: str, unique: bool = False) -> None:
    """Add a partial index. `conv` keeps its name from the user's naming convention, and shortens it where it must."""
    Index(conv(name), *columns, unique=unique, postgresql_where=text(where), sqlite_where=text(where))


def history_table(head: Table) -> Table:
    """Return the history table of a saga table."""
    return _companion(head, "history", _history_columns)


def inbox_table(head: Table) -> Table:
    """Return the table of the events that were sent to the sagas of a table."""
    return _companion(head, "inbox", _inbox_columns, _index_inbox)


def route_table(head: Table) -> Table:
    """Return the table of the correlations that the sagas of a table have waited for."""
    return _companion(head, "route", _route_columns, _index_route)


def _companion(
    head: Table,
    suffix: str,
    columns: Callable[[Table], list[Column[Any]]],
    index: Callable[[Table], None] = lambda _: None,
) -> Table:
    name = f"{head.name}_{suffix}"
    found = head.metadata.tables.get(f"{head.schema}.{name}" if head.schema else name)
    if found is not None:
        if _OURS not in found.info:
            _check_ours(found, head, frozenset(column.name for column in columns(head)))
        return found
    table = Table(name, head.metadata, *columns(head), schema=head.schema, info={_OURS: suffix})
    index(table)
    return table


def _check_ours(found: Table, head: Table, needed: frozenset[str]) -> None:
    """Refuse a table of the user's in a companion's place.

    Raises:
        SagaDefinitionError: With the name, which one of the two has to change.
    """
    if missing := needed.difference(found.c.keys()):
        raise SagaDefinitionError(
            f"The table {found.name!r} is one of the application's, and the sagas of {head.name!r} need that name: it "
            f"has no column {min(missing)!r}. Call one of the two otherwise."
        )


def _history_columns(head: Table) -> list[Column[Any]]:
    return [
        Column("saga_id", Uuid, _owner(head), primary_key=True),
        Column("seq", Integer, primary_key=True, autoincrement=False),
        Column("timestamp", UtcDateTime, nullable=False),
        Column("phase", String(16), nullable=False),
        Column("status", String(16), nullable=False),
        Column("step_id", String(255), nullable=False),
        Column("step_name", String(255), nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("token", Uuid),
        Column("input", ExactJson(none_as_null=True)),
        Column("output", ExactJson(none_as_null=True)),
        Column("error", Text),
        Column("skipped", Boolean, nullable=False, server_default=text("false")),
        Column("actor", String(255)),
        Column("reason", Text),
        Column("started_at", UtcDateTime),
    ]


def _inbox_columns(head: Table) -> list[Column[Any]]:
    return [
        Column("id", Uuid, primary_key=True),
        Column("address", String(300), nullable=False),
        Column("type", String(255), nullable=False),
        Column("event_id", String(255)),
        Column("correlation_id", String(255)),
        Column("content", ExactJson, nullable=False),
        Column("saga_id", Uuid, _owner(head)),
        Column("status", String(16), nullable=False),
        Column("reason", Text),
        Column("received_at", UtcDateTime, nullable=False),
        Column("due_at", UtcDateTime),
        Column("settled_at", UtcDateTime),
        Column("sent_at", UtcDateTime),
    ]


def _index_inbox(inbox: Table) -> None:
    name, column = inbox.name, inbox.c
    known = "event_id IS NOT NULL"
    partial_index(f"uq_{name}_event", column.address, column.type, column.event_id, where=known, unique=True)
    partial_index(f"ix_{name}_address", column.address, column.type, where=WAITS)
    partial_index(f"ix_{name}_saga", column.saga_id, column.type, where="saga_id IS NOT NULL")
    partial_index(f"ix_{name}_due", column.due_at, where="due_at IS NOT NULL")


def _route_columns(head: Table) -> list[Column[Any]]:
    return [
        Column("correlation_id", String(255), primary_key=True),
        Column("saga_id", Uuid, _owner(head), primary_key=True),
    ]


def _index_route(route: Table) -> None:
    Index(conv(f"ix_{route.name}_saga"), route.c.saga_id)


def _owner(head: Table) -> ForeignKey:
    return ForeignKey(head.c.id, ondelete="CASCADE")
