"""Up and down through the versions of the tables, by any object with Alembic's operations.

Nothing here imports Alembic: `op` comes from the caller, who has it.
"""

from __future__ import annotations

from typing import Any

from ..errors import SagaError
from . import v0001, v0002

VERSIONS = (v0001, v0002)
HEAD = len(VERSIONS)
"""The version of the tables that this release of the library works with."""
DIALECTS = ("postgresql", "sqlite")


class MigrationError(SagaError):
    """The tables cannot be migrated; nothing was changed."""


def upgrade(op: Any, *, since: int, to: int, table: str, schema: str | None = None) -> None:
    """Bring the tables of one saga model from version `since` to version `to`.

    Both numbers stand in your revision, so that it does the same for ever, with whatever release of the library. Works
    offline (``--sql``) too.

    Args:
        op: ``alembic.op``.
        since: The version that the tables have; 0 if there are none yet.
        to: The version to bring them to; `HEAD` tells the latest.
        table: The `__tablename__` of the model with `SagaStateMixin`.
        schema: The model's schema, if it has one. It must exist.

    Raises:
        MigrationError: There is no such way up, or the database is none that sagas run on.
    """
    if not 0 <= since < to <= HEAD:
        raise MigrationError(
            f"There is no way up from version {since} to version {to} of the saga tables: since must be less than to, "
            f"and both from 0 to {HEAD}, the latest that this release knows."
        )
    _check_dialect(op)
    for version in VERSIONS[since:to]:
        version.up(op, table, schema)


def downgrade(op: Any, *, since: int, to: int, table: str, schema: str | None = None) -> None:
    """Bring the tables of one saga model from version `since` back to version `to`.

    Version 0 is: no tables. All sagas are deleted with them.

    Raises:
        MigrationError: There is no such way down, or the database is none that sagas run on.
    """
    if not HEAD >= since > to >= 0:
        raise MigrationError(
            f"There is no way down from version {since} to version {to} of the saga tables: since must be greater than "
            f"to, and both from {HEAD}, the latest that this release knows, to 0."
        )
    _check_dialect(op)
    for version in reversed(VERSIONS[to:since]):
        version.down(op, table, schema)


def _check_dialect(op: Any) -> None:
    """Refuse where the partial unique indexes would silently become whole ones."""
    name = op.get_context().dialect.name
    if name not in DIALECTS:
        raise MigrationError(f"Sagas do not run on {name}; they do on {' and '.join(DIALECTS)}.")
