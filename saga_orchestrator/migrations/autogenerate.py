"""How the mixin's column types are written in a revision that Alembic generates."""

from __future__ import annotations

from typing import Any, Literal

from ..storage.types import ExactJson, Json, UtcDateTime


def render_item(kind: str, item: Any, autogen_context: Any) -> str | Literal[False]:
    """Write the saga tables' columns with SQLAlchemy's own types; leave everything else to Alembic.

    For `context.configure(render_item=…)` in ``env.py``. A revision outlives the code it was generated from, so it
    should not import that code.
    """
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Json):
        autogen_context.imports.add("from sqlalchemy.dialects import postgresql")
        on_postgresql = "JSON" if isinstance(item, ExactJson) else "JSONB"
        return f'sa.Text().with_variant(postgresql.{on_postgresql}(), "postgresql")'
    return False
