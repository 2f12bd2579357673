"""Places: in which schema of PostgreSQL a table is that is named without one.

Such a name means the first table of that name on the connection's search_path. That path belongs to the role, to the
engine, or to a single transaction, so it may differ between the engine of the sagas and a caller's session. A saga
that was written by another path would be in a table at which no worker looks.

The path of the engine itself is asked once, when a connection is taken from its pool, before its user can change it.
A caller's path is asked by the insert itself, so that it costs no round trip.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Engine, Table, event, literal_column
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .limits import connect

_known: WeakKeyDictionary[Engine, dict[str, str | None]] = WeakKeyDictionary()
"""The expression for each table's place, and where it is on the engine's own connections, as far as is known."""


class Places:
    """The places of some tables.

    Args:
        engine: The engine that the sagas are driven on.
    """

    def __init__(self, engine: AsyncEngine, tables: Iterable[Table]) -> None:
        self._engine = engine
        self._asked = {table.name: _asked(table, engine) for table in tables if _depends(table, engine)}
        if self._asked:
            known = _watch(engine.sync_engine)
            for asked in self._asked.values():
                known.setdefault(asked, None)

    def expression(self, table: Table) -> ColumnElement[Any] | None:
        """Return a table's place as an expression; None if it does not depend on the connection."""
        asked = self._asked.get(table.name)
        return None if asked is None else literal_column(asked).label("place")

    async def own(self, table: Table, connection: AsyncConnection, seconds: float) -> str | None:
        """Return a table's place on the engine's own connections; None as long as it is not known.

        Args:
            connection: The caller's. If it is from the engine's own pool, no other is taken.
            seconds: How long a connection of the engine's may be waited for.
        """
        asked, known = self._asked[table.name], _known[self._engine.sync_engine]
        if known[asked] is None and connection.engine.pool is not self._engine.pool:
            with suppress(Exception):
                async with connect(self._engine, seconds):
                    pass  # it was asked when it was taken
        return known[asked]


def _depends(table: Table, engine: AsyncEngine) -> bool:
    translated = engine.sync_engine.get_execution_options().get("schema_translate_map") or {}
    return engine.dialect.name == "postgresql" and translated.get(table.schema, table.schema) is None


def _asked(table: Table, engine: AsyncEngine) -> str:
    name = engine.dialect.identifier_preparer.quote(table.name).replace("'", "''")
    found = f"pg_catalog.to_regclass('{name}')"
    return f"(pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, {found}, 0)).schema"


def _watch(engine: Engine) -> dict[str, str | None]:
    """Have the places asked when a connection is taken from an engine's pool, until they are known."""
    known = _known.get(engine)
    if known is None:
        known = _known.setdefault(engine, {})
        event.listen(engine, "checkout", partial(_learn, known))
    return known


def _learn(known: dict[str, str | None], connection: Any, *_: object) -> None:
    wanted = [asked for asked, place in known.items() if place is None]
    if not wanted:
        return
    cursor = connection.cursor()
    with suppress(Exception):  # the engine's next statement will say what is wrong
        try:
            cursor.execute(f"SELECT {', '.join(wanted)}")
            known.update(zip(wanted, cursor.fetchone(), strict=True))
        finally:
            cursor.close()
            connection.rollback()
