"""Version 1: the head of a saga, its history, and the events that were sent to it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import conv

_TERMINAL = "status IN ('COMPLETED', 'COMPENSATED', 'FAILED')"
_STATUSES = "'RUNNING', 'SUSPENDED', 'COMPENSATING', 'STUCK', 'COMPLETED', 'COMPENSATED', 'FAILED'"
_NEVER_STRANDED = f"{_TERMINAL} OR deadline_at IS NOT NULL OR awaiting IS NOT NULL"
_PARTIAL_INDEXES = (
    ("ix_{}_due", ["deadline_at"], "deadline_at IS NOT NULL"),
    ("uq_{}_active_aggregation", ["aggregation_id"], f"NOT ({_TERMINAL})"),
    ("uq_{}_idempotency", ["saga_name", "idempotency_key"], "idempotency_key IS NOT NULL"),
)

_INBOX_INDEXES = (
    ("uq_{}_inbox_event", ["address", "type", "event_id"], "event_id IS NOT NULL"),
    ("ix_{}_inbox_address", ["address", "type"], "status = 'BUFFERED'"),
    ("ix_{}_inbox_saga", ["saga_id", "type"], "saga_id IS NOT NULL"),
    ("ix_{}_inbox_due", ["due_at"], "due_at IS NOT NULL"),
)


def up(op: Any, table: str, schema: str | None) -> None:
    """Create the tables. Every name is final (`conv`), so that a naming convention of the user's leaves it alone."""
    head = op.create_table(
        table,
        *_head_columns(),
        sa.CheckConstraint(f"status IN ({_STATUSES})", name=conv(f"ck_{table}_status")),
        sa.CheckConstraint(_NEVER_STRANDED, name=conv(f"ck_{table}_never_stranded")),
        schema=schema,
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute(sa.DDL("ALTER TABLE %(fullname)s SET (fillfactor = 70)").against(head))  # type: ignore[no-untyped-call]
    for index in _PARTIAL_INDEXES:
        _create_partial_index(op, head, table, index)
    op.create_table(f"{table}_history", *_history_columns(head), schema=schema)
    inbox = op.create_table(f"{table}_inbox", *_inbox_columns(head), schema=schema)
    for index in _INBOX_INDEXES:
        _create_partial_index(op, inbox, table, index)
    op.create_table(f"{table}_route", *_route_columns(head), schema=schema)
    op.create_index(conv(f"ix_{table}_route_saga"), f"{table}_route", ["saga_id"], schema=schema)


def down(op: Any, table: str, schema: str | None) -> None:
    """Drop the tables, with every saga in them."""
    op.drop_table(f"{table}_route", schema=schema)
    op.drop_table(f"{table}_inbox", schema=schema)
    op.drop_table(f"{table}_history", schema=schema)
    op.drop_table(table, schema=schema)


def _create_partial_index(op: Any, on: sa.Table, table: str, index: tuple[str, list[str], str]) -> None:
    name, columns, where = index
    op.create_index(
        conv(name.format(table)),
        on.name,
        columns,
        schema=on.schema,
        unique=name.startswith("uq"),
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(where),
    )


def _head_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("aggregation_id", sa.String(255), nullable=False),
        sa.Column("trace_id", sa.String(255), nullable=False),
        sa.Column("saga_name", sa.String(255), nullable=False),
        sa.Column("definition_version", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("awaiting", sa.String(255)),
        sa.Column("current_step_index", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("step_execution_token", sa.Uuid()),
        sa.Column("revision", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("state", _json(), nullable=False),
        sa.Column("context", _json(), nullable=False),
        sa.Column("deadline_at", _instant()),
        sa.Column("lease_owner", sa.String(255)),
        sa.Column("retry_counter", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("last_error", sa.Text()),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("parent_id", sa.Uuid()),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("created_at", _instant(), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", _instant(), nullable=False, server_default=sa.func.now()),
        sa.Column("finished_at", _instant()),
        sa.Column("progress", _json()),
    ]


def _history_columns(head: sa.Table) -> list[sa.Column[Any]]:
    return [
        sa.Column("saga_id", sa.Uuid(), _owner(head), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("timestamp", _instant(), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("step_id", sa.String(255), nullable=False),
        sa.Column("step_name", sa.String(255), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("token", sa.Uuid()),
        sa.Column("input", _json()),
        sa.Column("output", _json()),
        sa.Column("error", sa.Text()),
        sa.Column("skipped", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("actor", sa.String(255)),
        sa.Column("reason", sa.Text()),
        sa.Column("started_at", _instant()),
    ]


def _inbox_columns(head: sa.Table) -> list[sa.Column[Any]]:
    return [
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("address", sa.String(300), nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("event_id", sa.String(255)),
        sa.Column("correlation_id", sa.String(255)),
        sa.Column("content", _json(), nullable=False),
        sa.Column("saga_id", sa.Uuid(), _owner(head)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("received_at", _instant(), nullable=False),
        sa.Column("due_at", _instant()),
        sa.Column("settled_at", _instant()),
    ]


def _route_columns(head: sa.Table) -> list[sa.Column[Any]]:
    return [
        sa.Column("correlation_id", sa.String(255), primary_key=True),
        sa.Column("saga_id", sa.Uuid(), _owner(head), primary_key=True),
    ]


def _owner(head: sa.Table) -> sa.ForeignKey:
    """Return the reference to a saga: by the column itself, not its name, for a table's name may have a dot in it."""
    return sa.ForeignKey(head.c.id, ondelete="CASCADE")


def _json() -> sa.types.TypeEngine[Any]:
    return sa.Text().with_variant(postgresql.JSONB(), "postgresql")


def _instant() -> sa.types.TypeEngine[Any]:
    return sa.DateTime(timezone=True)
