"""What differs between databases, in one place: how a write transaction begins, what time it is, which errors pass.

Nothing else in this package asks which database it talks to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import aiosqlite
from sqlalchemy import ColumnElement, Table, TextClause, event, func, literal, text
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import StaticPool

from ..errors import DatabaseTimeoutError, SagaDefinitionError
from .bracket import (
    AiosqliteBracket,
    AsyncpgBracket,
    PortableBracket,
    begin_immediate,
    in_thread,
    let_go,
    use_wal,
)
from .capacity import Room, connections_of
from .database_errors import is_blocked, is_contention, is_passing
from .direct import DirectBatch
from .limits import WatchedBracket, begin_with, connect, give_up_after
from .one_hop import OneHop
from .one_statement import IMPATIENCE, OneStatement
from .types import UtcDateTime

__all__ = ["Clock", "SqlDialect", "SqliteDialect", "dialect_for", "is_blocked", "is_passing", "through_contention"]

_TESTED_DRIVERS = {"postgresql": "asyncpg", "sqlite": "aiosqlite"}
_AFTER = 1.0
"""Seconds after which the server gives up a step's transaction that the engine should have ended."""
_PAUSES = (0.01, 0.05, 0.2, 0.5)
"""Seconds between the tries of a transaction that met contention."""

T = TypeVar("T")


class Clock(Protocol):
    """A source of the time that stands in for the database's, for tests."""

    def now(self) -> datetime: ...


@dataclass(slots=True)
class SqlDialect:
    """A database that locks rows: PostgreSQL, and any other that SQLAlchemy gives FOR UPDATE."""

    clock: Clock | None = None
    locks_rows: bool = True
    timeout: float = 10.0
    """Seconds that a call may take."""
    idle: float = 300.0
    """Seconds that the transaction of a step without a timeout may be idle, as the server counts them."""
    room: Room = field(default_factory=partial(Room, None))
    """The room that steps have in the pool."""

    def now(self) -> ColumnElement[Any]:
        """Return the database's time as an expression, or the test clock's as a literal."""
        if self.clock is not None:
            return literal(self.clock.now(), UtcDateTime)
        return self._now()

    def due_by(self) -> ColumnElement[Any]:
        """Return the time by which a saga must be due to be claimed, in a form that an index can be searched by."""
        return self.now() if self.clock is not None else self._due_by()

    def insert_or_nothing(self, table: Table) -> Any:
        """Return an insert that can pass over rows that clash."""
        return postgresql_insert(table)

    def _now(self) -> ColumnElement[Any]:
        return func.clock_timestamp(type_=UtcDateTime)

    def direct(self, head: Table, past: Table, engine: AsyncEngine) -> DirectBatch | None:
        """Return the form of a batched write that is this driver's own, if there is one."""
        return OneStatement(head, past, engine) if OneStatement.fits(head, engine) else None

    def _due_by(self) -> ColumnElement[Any]:
        return func.statement_timestamp(type_=UtcDateTime)

    def sent(self) -> ColumnElement[Any]:
        """Return when a letter that is inserted now is sent, by the one clock that all its senders share."""
        return self._now()

    def by_sending(self, inbox: Table) -> tuple[ColumnElement[Any] | TextClause, ...]:
        """Return the order in which letters were sent."""
        return inbox.c.sent_at.asc().nulls_first(), inbox.c.id

    async def hurry(self, connection: AsyncConnection) -> None:
        """Wait for nobody's lock for long, in this transaction."""
        if connection.dialect.name == "postgresql":
            await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{IMPATIENCE}'")

    @asynccontextmanager
    async def taking_turns(
        self, engine: AsyncEngine, seconds: float | None = None
    ) -> AsyncIterator[tuple[AsyncConnection, WatchedBracket]]:
        """Take a connection for a step's transaction, and the bracket that opens and closes it.

        Args:
            seconds: The step's timeout. The server gives an idle transaction a little longer, so the engine is first.
        """
        idle = self.idle if seconds is None else seconds + _AFTER
        async with self.room.taken(), connect(engine, self.timeout) as (connection, watch):
            is_asyncpg = (connection.dialect.name, connection.dialect.driver) == ("postgresql", "asyncpg")
            bracket = AsyncpgBracket(connection, give_up_after(idle)) if is_asyncpg else PortableBracket(connection)
            yield connection, WatchedBracket(bracket, watch, self.timeout)

    @asynccontextmanager
    async def reading(self, engine: AsyncEngine, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        """Take a connection to read from.

        Args:
            seconds: How long all of it may take, instead of the usual time.
        """
        async with connect(engine, self.timeout if seconds is None else seconds) as (connection, _):
            yield connection

    @asynccontextmanager
    async def writing(self, engine: AsyncEngine, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that may write; commit at the end, roll back on an error.

        Args:
            seconds: How long all of it may take, instead of the usual time.
        """
        limit = self.timeout if seconds is None else seconds
        async with connect(engine, limit) as (connection, _), connection.begin():
            if connection.dialect.name == "postgresql":
                await begin_with(connection, limit)
            yield connection


@dataclass(slots=True)
class SqliteDialect(SqlDialect):
    """SQLite: one writer at a time, said at the beginning, so that what was read is still true when it is written."""

    locks_rows: bool = False
    writers: asyncio.Lock = field(default_factory=asyncio.Lock)
    _prepared: bool = False

    def _now(self) -> ColumnElement[Any]:
        return func.strftime("%Y-%m-%d %H:%M:%f", "now", type_=UtcDateTime)

    def _due_by(self) -> ColumnElement[Any]:
        return self._now()

    def by_sending(self, inbox: Table) -> tuple[ColumnElement[Any] | TextClause, ...]:
        return (text("rowid"),)  # its clock counts milliseconds, and there is one writer at a time

    def insert_or_nothing(self, table: Table) -> Any:
        return sqlite_insert(table)

    def direct(self, head: Table, past: Table, engine: AsyncEngine) -> DirectBatch | None:
        return OneHop(head, past, engine, _Turn(self), self._prepare) if OneHop.fits(head, engine) else None

    async def _prepare(self, connection: AsyncConnection) -> None:
        if not self._prepared:
            if not event.contains(connection.engine.sync_engine, "invalidate", _let_go):
                event.listen(connection.engine.sync_engine, "invalidate", _let_go)
            await in_thread((await connection.get_raw_connection()).driver_connection, use_wal)
            self._prepared = True

    @asynccontextmanager
    async def taking_turns(
        self, engine: AsyncEngine, seconds: float | None = None
    ) -> AsyncIterator[tuple[AsyncConnection, WatchedBracket]]:
        async with self.writers, connect(engine, self.timeout) as (connection, watch):
            await self._prepare(connection)
            yield connection, WatchedBracket(AiosqliteBracket(connection), watch, self.timeout)

    @asynccontextmanager
    async def writing(self, engine: AsyncEngine, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        limit = self.timeout if seconds is None else seconds
        async with _Turn(self, limit), connect(engine, limit) as (connection, _):
            await self._prepare(connection)
            try:
                await begin_immediate(connection)
                yield connection
                await connection.commit()
            except BaseException:
                await connection.rollback()
                raise


class _Turn:
    """A turn to write on SQLite, which is waited for so long, and no longer.

    Args:
        seconds: How long; None for the dialect's own limit.
    """

    def __init__(self, dialect: SqliteDialect, seconds: float | None = None) -> None:
        self._dialect, self._seconds = dialect, seconds

    async def __aenter__(self) -> None:
        seconds = self._dialect.timeout if self._seconds is None else self._seconds
        try:
            async with asyncio.timeout(seconds):
                await self._dialect.writers.acquire()
        except TimeoutError:
            raise DatabaseTimeoutError(seconds) from None

    async def __aexit__(self, *_: object) -> None:
        self._dialect.writers.release()


def _let_go(connection: Any, record: object, error: object) -> None:
    driver = getattr(connection, "driver_connection", None)
    if isinstance(driver, aiosqlite.Connection):
        let_go(driver)


def dialect_for(engine: AsyncEngine, clock: Clock | None) -> SqlDialect:
    """Return how to talk to this database.

    Raises:
        SagaDefinitionError: It has one connection for everybody, which cannot hold two transactions: it is an in-memory
            SQLite database, or its pool is a StaticPool. Or its driver is none that is tested, or it is in AUTOCOMMIT.
    """
    _check_driver(engine)
    if isinstance(engine.pool, StaticPool) and not _is_in_memory(engine):
        raise SagaDefinitionError(
            "A StaticPool has one connection for everybody, and the transactions on it would mix; use another pool."
        )
    if commits_each_statement(engine):
        raise SagaDefinitionError(
            "The engine of session_maker is in AUTOCOMMIT, where each statement is committed by itself, and a saga "
            'needs transactions; give it an engine without isolation_level="AUTOCOMMIT".'
        )
    if engine.dialect.name != "sqlite":
        return SqlDialect(clock, room=Room(connections_of(engine)))
    if _is_in_memory(engine):
        raise SagaDefinitionError(
            "An in-memory SQLite database has one connection for everything and cannot hold sagas; "
            "use a file (a temporary one in tests), or saga_orchestrator.testing.MemoryStore."
        )
    return SqliteDialect(clock, room=Room(1))


def _check_driver(engine: AsyncEngine) -> None:
    """Refuse a driver that no test has run with, where another one is tested."""
    tested = _TESTED_DRIVERS.get(engine.dialect.name)
    if tested is not None and engine.dialect.driver != tested:
        url = f"{engine.dialect.name}+{tested}://…"
        raise SagaDefinitionError(
            f"Sagas are not tested with the driver '{engine.dialect.driver}'. Give the orchestrator its own engine: "
            f"create_async_engine('{url}'). The application's other engines may keep their driver."
        )


def commits_each_statement(engine: AsyncEngine) -> bool:
    """Return whether an engine was made, or its options were set, for AUTOCOMMIT."""
    option = engine.get_execution_options().get("isolation_level")
    level = option or getattr(engine.dialect, "_on_connect_isolation_level", None)
    return str(level).upper() == "AUTOCOMMIT"


def _is_in_memory(engine: AsyncEngine) -> bool:
    database = engine.url.database
    return engine.dialect.name == "sqlite" and (database in (None, "", ":memory:") or "mode=memory" in str(database))


async def through_contention(transaction: Callable[[], Awaitable[T]], patient: bool = True) -> T:
    """Run a transaction again while it fails by contention with others, which leaves nothing of it behind.

    A lost connection is not contention: nobody knows what it left behind.

    Args:
        patient: Also run again one that gave up because another transaction holds what it needs.
    """
    for pause in _PAUSES:
        try:
            return await transaction()
        except DBAPIError as error:
            if not is_contention(error) or (is_blocked(error) and not patient):
                raise
        await asyncio.sleep(pause)
    return await transaction()
