"""Limits: no call to the database lasts longer than it may, whatever the database or the network does.

On the client a watch ends what lasts too long. It aborts the driver's connection, so that whatever waits for an answer
fails at once; if that does not help, it cancels the task. Nothing is closed in good order, for that takes an answer.

On the server a transaction of the library's own has limits for a lock, a statement and its idle time. They are sent
together with BEGIN. So the locks of a host that has died are free again after a while. Nothing is set for a session,
since the connections are the application's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import aiosqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from ..errors import DatabaseTimeoutError
from .bracket import Bracket
from .capacity import connections_of

_SERVER_LIMITS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
_MOST_MILLISECONDS = 2**31 - 1
_AGAIN = 1.0
"""Seconds after which a watch that has not helped cancels the task, and then cancels it again."""
_IDLE = 10
"""How many leases the transaction of a step without a timeout may be idle, before the server ends it."""
_ALONE = 4
"""The part of a lease for which a step may hold the only connection: every lease lasts that long without a renewal."""
HURRY = 2.0
"""Seconds that a connection may take to be rolled back and given back when its user has failed."""


class Timeouts(NamedTuple):
    """How many seconds things may take.

    Attributes:
        call: One call to the database.
        idle: The transaction of a step without a timeout, while the server hears nothing of it.
        alone: The work of a step in a transaction, where no lease can be renewed meanwhile.
    """

    call: float = 10.0
    idle: float = 300.0
    alone: float = 7.5

    @classmethod
    def within(cls, lease: float, call: float) -> Timeouts:
        """Return how long things may take with leases of so many seconds."""
        return cls(call, lease * _IDLE, lease / _ALONE)


class Watch:
    """Ends a call that lasts too long.

    Args:
        seconds: How long it may last from now on.
    """

    __slots__ = ("_cancels", "_driver", "_handle", "_loop", "_task", "_was", "expired", "seconds")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment] # its user is in a task
        self._was = self._task.cancelling()
        self._driver: Any = None
        self._cancels = 0
        self.expired = False
        self.seconds = seconds
        self._handle = self._loop.call_later(seconds, self._expire)

    def guard(self, driver: Any) -> None:
        """Take the driver's connection, which is aborted when the time is over."""
        self._driver = driver

    def arm(self, seconds: float) -> None:
        """Allow so many seconds from now on."""
        self._handle.cancel()
        if not self.expired:
            self.seconds = seconds
        self._handle = self._loop.call_later(seconds, self._expire)

    def disarm(self) -> None:
        """Allow any time from now on."""
        self._handle.cancel()

    def end(self, error: BaseException | None = None) -> bool:
        """Watch no longer; return whether the error comes from a limit that was passed."""
        self._handle.cancel()
        for _ in range(self._cancels):
            self._task.uncancel()
        if isinstance(error, asyncio.CancelledError):
            return self._cancels > 0 and self._task.cancelling() <= self._was
        return self.expired and isinstance(error, Exception)

    def error(self, engine: AsyncEngine | None = None) -> DatabaseTimeoutError:
        """Return the error that says so; with an engine, also that its pool had no connection to give."""
        is_waiting = engine is not None and self._driver is None
        return DatabaseTimeoutError(self.seconds, _describe_full_pool(engine) if engine and is_waiting else "")

    def _expire(self) -> None:
        if self.expired or self._driver is None:
            self._cancels += 1
            self._task.cancel()
        else:
            _abort(self._driver)
        self.expired = True
        self._handle = self._loop.call_later(_AGAIN, self._expire)


def _abort(driver: Any) -> None:
    """Abort a driver's connection: whatever waits for it fails."""
    if isinstance(driver, aiosqlite.Connection):
        with suppress(Exception):  # it is closed already
            driver._conn.interrupt()  # noqa: SLF001 - what `interrupt` does, without a task to await it in
    elif (terminate := getattr(driver, "terminate", None)) is not None:
        with suppress(Exception):
            terminate()


def _describe_full_pool(engine: AsyncEngine) -> str:
    """Return what to do about a pool all of whose connections are in use; nothing of any other."""
    pool = engine.sync_engine.pool
    most = connections_of(engine)
    if most is None or not isinstance(pool, QueuePool) or pool.checkedout() < most:
        return ""
    return (
        f"All {most} connections of the pool were in use. A transactional step, and a session of the application's, "
        "hold one each while they wait for another call: read by their own session, or make the pool larger."
    )


@asynccontextmanager
async def connect(engine: AsyncEngine, seconds: float) -> AsyncIterator[tuple[AsyncConnection, Watch]]:
    """Take a connection from the pool, and give it back, all within a limit.

    Raises:
        DatabaseTimeoutError: The limit was passed; what was written may or may not be durable.
    """
    watch = Watch(seconds)
    try:
        connection = await take(engine)
        watch.guard(driver_of(connection))
        try:
            yield connection, watch
        except BaseException:
            watch.arm(min(HURRY, seconds))
            raise
        finally:
            await asyncio.shield(asyncio.ensure_future(connection.close()))
    except BaseException as error:
        if watch.end(error):
            distrust(engine)
            raise watch.error(engine) from error
        raise
    watch.end()


@asynccontextmanager
async def limited(seconds: float) -> AsyncIterator[None]:
    """Limit what is done on a caller's own connection; when the time is over, SQLAlchemy gives that connection up.

    Raises:
        DatabaseTimeoutError: The limit was passed; the caller's transaction is over.
    """
    watch = Watch(seconds)
    try:
        yield
    except BaseException as error:
        if watch.end(error):
            raise watch.error() from error
        raise
    watch.end()


async def take(engine: AsyncEngine) -> AsyncConnection:
    """Take a connection from the pool in a task of its own, which is left behind when its user is cancelled."""
    taking = asyncio.ensure_future(_connected(engine))
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        taking.cancel()
        taking.add_done_callback(_give_back)
        raise


async def _connected(engine: AsyncEngine) -> AsyncConnection:
    return await engine.connect()


_CLOSING: set[asyncio.Future[Any]] = set()


def _give_back(taking: asyncio.Task[AsyncConnection]) -> None:
    """Give back a connection that nobody waits for any more."""
    if not taking.cancelled() and taking.exception() is None:
        closing = asyncio.ensure_future(taking.result().close())
        _CLOSING.add(closing)
        closing.add_done_callback(_CLOSING.discard)


def driver_of(connection: AsyncConnection) -> Any:
    """Return the driver's own connection."""
    sync = connection.sync_connection
    return None if sync is None else sync.connection.driver_connection


def distrust(engine: AsyncEngine) -> None:
    """Have the pool replace the connections it holds when they are asked for, as SQLAlchemy does after a disconnect."""
    pool: Any = engine.sync_engine.pool
    if hasattr(pool, "_invalidate_time"):
        pool._invalidate_time = time.time()  # noqa: SLF001 - there is no public way


class WatchedBracket:
    """The bracket of a step's transaction, whose beginning and end have limits; the step's own work has its own."""

    def __init__(self, bracket: Bracket, watch: Watch, seconds: float) -> None:
        self._bracket, self._watch, self._seconds = bracket, watch, seconds

    async def open(self) -> None:
        await self._bracket.open()
        self._watch.disarm()

    def is_open(self) -> bool:
        return self._bracket.is_open()

    def see(self, statement: str) -> None:
        self._bracket.see(statement)

    async def is_undone(self) -> bool:
        return await self._bracket.is_undone()

    def look_before_rollback(self, connection: Connection) -> None:
        self._bracket.look_before_rollback(connection)

    def limit(self) -> None:
        """Limit what follows: the step has returned, and the rest is the engine's."""
        self._watch.arm(self._seconds)

    async def prove(self) -> None:
        self.limit()
        await self._bracket.prove()

    async def commit(self) -> None:
        self.limit()
        await self._bracket.commit()

    async def rollback(self) -> bool:
        self._watch.arm(min(HURRY, self._seconds))
        return await self._bracket.rollback()


def give_up_after(idle: float) -> str:
    """Return the command for PostgreSQL that ends a transaction which is idle for so long."""
    return f"; SET LOCAL idle_in_transaction_session_timeout = {_milliseconds(idle)}"


def _milliseconds(seconds: float) -> int:
    """Return a limit as PostgreSQL takes it: at most 24 days, and not 0, which is no limit."""
    return min(max(int(seconds * 1000), 1), _MOST_MILLISECONDS)


async def begin_with(connection: AsyncConnection, seconds: float) -> None:
    """Begin a transaction on PostgreSQL with limits on the server, in one round trip where the driver allows it."""
    adapter: Any = (await connection.get_raw_connection()).dbapi_connection
    driver: Any = driver_of(connection)
    if getattr(adapter, "isolation_level", None) == "autocommit":
        return
    limit = _milliseconds(seconds)
    if not _fits(adapter, driver):
        chosen = ", ".join(f"set_config('{name}', '{limit}', true)" for name in _SERVER_LIMITS)
        await connection.exec_driver_sql(f"SELECT {chosen}")
        return
    script = "; ".join([_begin_of(adapter), *(f"SET LOCAL {name} = {limit}" for name in _SERVER_LIMITS)])
    try:
        begun = driver.transaction(
            isolation=adapter.isolation_level, readonly=adapter.readonly, deferrable=adapter.deferrable
        )
        await driver.execute(script)
    except Exception as error:
        distrust(connection.engine)
        await connection.invalidate()
        raise DBAPIError.instance(script, None, error, Exception, connection_invalidated=True) from error
    except BaseException:
        await connection.invalidate()
        raise
    begun._state = type(begun._state).STARTED  # noqa: SLF001 - as after `start`, which cannot be given more to send
    driver._top_xact = adapter._transaction = begun  # noqa: SLF001
    if hasattr(adapter, "_started"):
        adapter._started = True  # noqa: SLF001


def _fits(adapter: Any, driver: Any) -> bool:
    """Return whether a transaction can be begun past SQLAlchemy: on asyncpg, and when none has begun."""
    is_known = type(driver).__module__.partition(".")[0] == "asyncpg" and hasattr(driver, "_top_xact")
    return is_known and getattr(adapter, "_transaction", driver) is None and hasattr(adapter, "deferrable")


def _begin_of(adapter: Any) -> str:
    level = f" ISOLATION LEVEL {adapter.isolation_level.replace('_', ' ').upper()}" if adapter.isolation_level else ""
    return f"BEGIN{level}{' READ ONLY' if adapter.readonly else ''}{' DEFERRABLE' if adapter.deferrable else ''}"
