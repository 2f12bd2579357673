"""What the revisions of the branch ``saga`` share: which tables they are about.

The names stand in the configuration, since a revision of this folder cannot know them: ``saga_table = order_saga`` in
``alembic.ini``, or ``saga_table="order_saga"`` as an argument of `context.configure` in ``env.py``; several are
separated by commas. ``saga_schema`` is said the same way, if there is one.
"""

from __future__ import annotations

from typing import Any

from .direction import MigrationError, downgrade, upgrade


def upgrade_all(op: Any, *, since: int, to: int) -> None:
    """Upgrade the tables of every saga model that is configured."""
    for table in _tables(op):
        upgrade(op, since=since, to=to, table=table, schema=_option(op, "saga_schema"))


def downgrade_all(op: Any, *, since: int, to: int) -> None:
    """Downgrade the tables of every saga model that is configured."""
    for table in _tables(op):
        downgrade(op, since=since, to=to, table=table, schema=_option(op, "saga_schema"))


def _tables(op: Any) -> list[str]:
    named = _option(op, "saga_table") or ""
    tables = [name for name in (part.strip() for part in named.split(",")) if name]
    if not tables:
        raise MigrationError(
            "The revisions of the branch 'saga' do not know your tables. Say `saga_table = order_saga` in alembic.ini "
            "(several with commas), or saga_table= in context.configure() of env.py."
        )
    return tables


def _option(op: Any, name: str) -> str | None:
    context = op.get_context()
    if name in context.opts:
        return context.opts[name]  # type: ignore[no-any-return]
    return context.config.get_main_option(name) if context.config else None
