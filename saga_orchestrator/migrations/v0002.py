"""Version 2: payloads are kept as they were written, byte for byte.

Not released: this version is amended until 1.0.0 is.

On PostgreSQL the payload columns change from ``jsonb`` to ``json``; on SQLite they are texts already. A text that
``jsonb`` has rewritten stays as ``jsonb`` wrote it. The inbox says when an event was sent, by the database's clock, so
that events are delivered in the order of their sending.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

_PAYLOADS = (
    ("{}", ("context", "progress")),
    ("{}_history", ("input", "output")),
    ("{}_inbox", ("content",)),
)


def up(op: Any, table: str, schema: str | None) -> None:
    """Bring the tables from version 1 to version 2."""
    _retype_payloads(op, table, schema, "json")
    op.add_column(f"{table}_inbox", sa.Column("sent_at", sa.DateTime(timezone=True)), schema=schema)


def down(op: Any, table: str, schema: str | None) -> None:
    """Bring the tables back to version 1."""
    op.drop_column(f"{table}_inbox", "sent_at", schema=schema)
    _retype_payloads(op, table, schema, "jsonb")


def _retype_payloads(op: Any, table: str, schema: str | None, kind: str) -> None:
    """Change the type of the payload columns, with one rewrite of each table."""
    if op.get_context().dialect.name != "postgresql":
        return
    for name, columns in _PAYLOADS:
        changes = ", ".join(f"ALTER COLUMN {column} TYPE {kind} USING {column}::{kind}" for column in columns)
        changed = sa.Table(name.format(table), sa.MetaData(), schema=schema)
        op.execute(sa.DDL(f"ALTER TABLE %(fullname)s {changes}").against(changed))  # type: ignore[no-untyped-call]
