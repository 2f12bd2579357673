"""Sessions of callers: whether a saga may be written in one, and the connection on which that is done.

What a caller's session rolls back must be gone, and what it commits must be where the sagas are. So a session is
refused that reaches another database, or whose connection commits each statement by itself. SQLite's driver begins a
transaction only before what it takes for a write, and not before a savepoint; so the engine begins it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from sqlalchemy import Insert, Table, delete, event, select
from sqlalchemy.engine import URL, Connection, Engine, RootTransaction
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from ..errors import SagaStateError
from .places import Places
from .transaction import is_of_a_step

_begun: WeakSet[RootTransaction] = WeakSet()
"""The transactions of SQLite that had begun before their first savepoint."""
_bare: WeakSet[RootTransaction] = WeakSet()
"""Those in which a savepoint of raw SQL is the transaction itself, on a connection that commits each statement."""
_SAVEPOINT = re.compile(r"(?:[\s;]|--[^\n]*\n|/\*.*?\*/)*SAVEPOINT\b", re.IGNORECASE | re.DOTALL)
_BY_ITSELF = (
    "session= commits each statement by itself (AUTOCOMMIT), so the saga would stay if the caller rolled back; give a "
    "session whose connection has transactions"
)


class Callers:
    """The sessions of those who start sagas, and send events, in transactions of their own.

    Args:
        model: The mapped class of the sagas.
        engine: The engine that the sagas are driven on.
        tables: Those in which rows are inserted in the transactions of callers.
    """

    def __init__(self, model: type[Any], engine: AsyncEngine, *tables: Table) -> None:
        self.engine = engine
        self._model, self._places = model, Places(engine, tables)
        if engine.dialect.name == "sqlite":
            begin_before_savepoints(engine.sync_engine)

    async def connection(self, session: object) -> AsyncConnection:
        """Return the connection of a caller's session, in its transaction.

        Raises:
            SagaStateError: The session will not do; nothing has been written.
        """
        if not isinstance(session, AsyncSession):
            raise SagaStateError(f"session= is {type(session).__name__}; give an AsyncSession.")
        self._check(session)
        connection = await session.connection(bind_arguments={"mapper": self._model})
        sync = connection.sync_connection
        if sync is None or is_of_a_step(sync):
            return connection
        if self.engine.dialect.name == "sqlite":
            await _begin(connection, sync)
        elif commits_by_itself(sync):
            raise SagaStateError(_BY_ITSELF)
        return connection

    async def insert(self, connection: AsyncConnection, table: Table, insert: Insert, seconds: float) -> bool:
        """Insert a row in a caller's transaction; return False if another row has stood in its way.

        Args:
            seconds: How long a connection of the engine may be waited for.

        Raises:
            SagaStateError: On this connection the table is another one; nothing is left of the row.
        """
        place = self._places.expression(table)
        if place is None:
            return bool((await connection.execute(insert)).rowcount)
        row = (await connection.execute(insert.returning(table.c.id, place))).first()
        found = (await connection.execute(select(place))).scalar() if row is None else row.place
        own = await self._places.own(table, connection, seconds)
        if own is None or found == own:
            return row is not None
        if row is not None:
            await connection.execute(delete(table).where(table.c.id == row.id))
        raise SagaStateError(
            f"session= has another search_path: there {table.name} is the table of schema '{found}', but the sagas are "
            f"driven in schema '{own}', so this would never be looked at. Nothing was written. Give a session with the "
            "search_path of the orchestrator's engine, or name the schema in the mapped class."
        )

    def _check(self, session: AsyncSession) -> None:
        try:
            bind = session.get_bind(self._model)
        except UnboundExecutionError as error:
            raise SagaStateError(
                f"session= has no engine for {self._model.__name__}; make it with the orchestrator's session_maker."
            ) from error
        ours, theirs = self.engine.sync_engine, bind.engine
        if theirs.pool is not ours.pool and not is_same_database(theirs, ours):
            raise SagaStateError(
                f"session= is bound to {theirs.url!r}, but the sagas are driven on {ours.url!r}: this saga would never "
                "run. Give a session of the same database."
            )
        if _schemas(bind) != _schemas(ours):
            raise SagaStateError(
                "session= has a schema_translate_map that the engine of the sagas does not have: this saga would never "
                "run. Give a session of the same schema."
            )


def _schemas(bind: Engine | Connection) -> Mapping[Any, Any]:
    found: Mapping[Any, Any] | None = bind.get_execution_options().get("schema_translate_map")
    return found or {}


def is_same_database(one: Engine, other: Engine) -> bool:
    """Return whether two engines reach one database through asyncio, as far as their URLs tell."""
    if not (one.dialect.is_async and other.dialect.is_async) or one.dialect.name != other.dialect.name:
        return False
    return one.url.database is not None and _place(one.url) == _place(other.url)


def _place(url: URL) -> tuple[object, ...]:
    """Return where a URL leads."""
    if url.get_backend_name() == "sqlite":
        return (os.path.realpath(str(url.database)),)
    return url.host, url.port, url.database, url.query.get("host"), url.query.get("port"), url.query.get("options")


def commits_by_itself(connection: Connection) -> bool:
    """Return whether the driver commits each statement of a connection by itself."""
    return getattr(connection.connection.dbapi_connection, "autocommit", False) is True


# --- SQLite ----------------------------------------------------------------------------------------------------------


def begin_before_savepoints(engine: Engine) -> None:
    """Have an engine of SQLite begin a transaction before it sets a savepoint, which would else be one by itself."""
    if not event.contains(engine, "savepoint", _begin_before_savepoint):
        event.listen(engine, "savepoint", _begin_before_savepoint)
        event.listen(engine, "before_cursor_execute", _begin_before_statement)


def _begin_before_savepoint(connection: Connection, name: str | None) -> None:
    root = connection.get_transaction()
    if root is None or connection.in_nested_transaction():
        return
    if not _driver_of(connection).in_transaction:
        connection.exec_driver_sql("BEGIN")
    _begun.add(root)


def _begin_before_statement(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
    """Begin a transaction before a savepoint that is set by raw SQL; where each statement commits, take note of it."""
    if _SAVEPOINT.match(statement) is None:
        return
    driver, root = _driver_of(connection), connection.get_transaction()
    if driver.in_transaction or root is None:
        return
    if _commits_each(driver):
        _bare.add(root)
    else:
        connection.exec_driver_sql("BEGIN")
        _begun.add(root)


def _commits_each(driver: Any) -> bool:
    return driver.isolation_level is None or getattr(driver._conn, "autocommit", False) is True  # noqa: SLF001


async def _begin(connection: AsyncConnection, sync: Connection) -> None:
    """See to it that a transaction has begun on a connection of SQLite, before any savepoint."""
    driver, root = _driver_of(sync), sync.get_transaction()
    if not driver.in_transaction:
        if _commits_each(driver):
            raise SagaStateError(_BY_ITSELF)
        _ = await connection.exec_driver_sql("BEGIN")
    elif root in _bare:
        raise SagaStateError(_BY_ITSELF)
    elif sync.in_nested_transaction() and root not in _begun:
        begin_before_savepoints(sync.engine)
        raise SagaStateError(
            "session= is in a savepoint that was set before the orchestrator was made, or on an engine that it does "
            "not know; SQLite would commit it as soon as it is released. Begin the transaction again."
        )
    if root is not None:
        _begun.add(root)


def _driver_of(connection: Connection) -> Any:
    return connection.connection.driver_connection
