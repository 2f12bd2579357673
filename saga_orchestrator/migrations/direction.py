"""Up and down through the versions of the tables, by any object with Alembic's operations.

Nothing here imports Alembic: `op` comes from the caller, who has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from ..errors import SagaError
from . import v0001, v0002

VERSIONS = (v0001, v0002)
HEAD = len(VERSIONS)
"""The version of the tables that this release of the library works with."""
DIALECTS = ("postgresql", "sqlite")
_MOST_MILLISECONDS = 2**31 - 1
_LIMITS = ("lock_timeout", "statement_timeout")


class MigrationError(SagaError):
    """The tables cannot be migrated; nothing was changed."""


def upgrade(  # noqa: PLR0913 - all but the first are named
    op: Any, *, since: int, to: int, table: str, schema: str | None = None, timeout: timedelta | None = None
) -> None:
    """Bring the tables of one saga model from version `since` to version `to`.

    Both numbers stand in your revision, so that it does the same for ever, with whatever release of the library. Works
    offline (``--sql``) too.

    Args:
        op: ``alembic.op``.
        since: The version that the tables have; 0 if there are none yet.
        to: The version to bring them to; `HEAD` tells the latest.
        table: The `__tablename__` of the model with `SagaStateMixin`.
        schema: The model's schema, if it has one. It must exist.
        timeout: How long PostgreSQL may take for a statement, and wait for a lock; None leaves what the session says.

    Raises:
        MigrationError: There is no such way up, or the database is none that sagas run on.
    """
    if not 0 <= since < to <= HEAD:
        raise MigrationError(
            f"There is no way up from version {since} to version {to} of the saga tables: since must be less than to, "
            f"and both from 0 to {HEAD}, the latest that this release knows."
        )
    _check_dialect(op)
    with limited(op, timeout):
        for version in VERSIONS[since:to]:
            version.up(op, table, schema)


def downgrade(  # noqa: PLR0913 - all but the first are named
    op: Any, *, since: int, to: int, table: str, schema: str | None = None, timeout: timedelta | None = None
) -> None:
    """Bring the tables of one saga model from version `since` back to version `to`.

    Version 0 is: no tables. All sagas are deleted with them. The arguments are those of `upgrade`.

    Raises:
        MigrationError: There is no such way down, or the database is none that sagas run on.
    """
    if not HEAD >= since > to >= 0:
        raise MigrationError(
            f"There is no way down from version {since} to version {to} of the saga tables: since must be greater than "
            f"to, and both from {HEAD}, the latest that this release knows, to 0."
        )
    _check_dialect(op)
    with limited(op, timeout):
        for version in reversed(VERSIONS[to:since]):
            version.down(op, table, schema)


@contextmanager
def limited(op: Any, timeout: timedelta | None) -> Iterator[None]:
    """Limit the statements of a migration on PostgreSQL, and their waits for locks. SQLite waits as its URL says.

    The transaction has the limits that it had again afterwards; in a script (``--sql``), those of its role.

    Raises:
        MigrationError: The limit is no duration longer than 0.
    """
    if timeout is None or op.get_context().dialect.name != "postgresql":
        yield
        return
    before = _limits_of(op)
    for name, milliseconds in _limits_within(timeout).items():
        op.execute(f"SET LOCAL {name} = {milliseconds}")
    yield
    for name, value in before.items():
        op.execute(f"SET LOCAL {name} = {value}")


def _limits_within(timeout: Any) -> dict[str, int]:
    """Return the limits in milliseconds. A wait for a lock ends first, because its error says more."""
    if not isinstance(timeout, timedelta) or timeout <= timedelta(0):
        raise MigrationError(f"timeout is {timeout!r:.80}; give it a timedelta longer than 0.")
    milliseconds = min(timeout // timedelta(milliseconds=1), _MOST_MILLISECONDS)
    return {"lock_timeout": max(milliseconds * 9 // 10, 1), "statement_timeout": max(milliseconds, 2)}


def _limits_of(op: Any) -> dict[str, str]:
    """Return the limits of the transaction as SET takes them."""
    if op.get_context().as_sql:
        return dict.fromkeys(_LIMITS, "DEFAULT")
    return {name: f"'{op.get_bind().exec_driver_sql(f'SHOW {name}').scalar()}'" for name in _LIMITS}


def _check_dialect(op: Any) -> None:
    """Refuse where the partial unique indexes would silently become whole ones."""
    name = op.get_context().dialect.name
    if name not in DIALECTS:
        raise MigrationError(f"Sagas do not run on {name}; they do on {' and '.join(DIALECTS)}.")
