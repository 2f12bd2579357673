"""Version 1: the head of a saga, and its history."""

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


def up(op: Any, table: str, schema: str | None) -> None:
    """Create both tables. Every name is final (`conv`), so that a naming convention of the user's leaves it alone."""
    head = op.create_table(
        table,
        *_head_columns(),
        sa.CheckConstraint(f"status IN ({_STATUSES})", name=conv(f"ck_{table}_status")),
        sa.CheckConstraint(_NEVER_STRANDED, name=conv(f"ck_{table}_never_stranded")),
        schema=schema,
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute(sa.DDL("ALTER TABLE %(fullname)s SET (fillfactor = 70)").against(head))  # type: ignore[no-untyped-call]
    for name, columns, where in _PARTIAL_INDEXES:
        op.create_index(
            conv(name.format(table)),
            table,
            columns,
            schema=schema,
            unique=name.startswith("uq"),
            postgresql_where=sa.text(where),
            sqlite_where=sa.text(where),
        )
    op.create_table(f"{table}_history", *_history_columns(head), schema=schema)


def down(op: Any, table: str, schema: str | None) -> None:
    """Drop both tables, with every saga in them."""
    op.drop_table(f"{table}_history", schema=schema)
    op.drop_table(table, schema=schema)


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
    ]


def _history_columns(head: sa.Table) -> list[sa.Column[Any]]:
    # The column itself, not its name: a table's name may have a dot in it.
    owner = sa.ForeignKey(head.c.id, ondelete="CASCADE")
    return [
        sa.Column("saga_id", sa.Uuid(), owner, primary_key=True),
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


def _json() -> sa.types.TypeEngine[Any]:
    return sa.Text().with_variant(postgresql.JSONB(), "postgresql")


def _instant() -> sa.types.TypeEngine[Any]:
    return sa.DateTime(timezone=True)
