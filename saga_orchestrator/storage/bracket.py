"""The bracket around what a step does in its transaction: how it begins, how it ends, and the proof that it is one.

The engine sets a savepoint when it begins the transaction of a step. A COMMIT or a ROLLBACK destroys that savepoint,
also when another BEGIN follows. So a transaction that still has the savepoint is the one that the engine began.

The savepoint costs no round trip: PostgreSQL gets it together with BEGIN, and releases it together with COMMIT; SQLite
sets it in the same hop to the thread of its driver.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .database_errors import sqlstate_of

PROOF = "saga_step"
"""The name of the savepoint."""
_PARTING = 2.0
"""How many seconds a connection of SQLite that is given up may take to say what that undoes."""
_NO_SAVEPOINT = ("3B001", "25P01")
"""PostgreSQL has no such savepoint, or no transaction."""
_HARMLESS = re.compile(
    r"(?:\s|--[^\n]*\n|/\*(?:(?!/\*|\*/).)*\*/)*"
    r"(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|TABLE|LOCK|SET|SHOW|SAVEPOINT|RELEASE|EXPLAIN|DECLARE|FETCH|MOVE"
    r"|CLOSE|CREATE|ALTER|DROP|TRUNCATE|NOTIFY|CALL|ROLLBACK\s+(?:TRANSACTION\s+|WORK\s+)?TO)\b[^;]*;?\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
"""One statement of which it is certain that it ends no transaction; comments may come before it."""


class TransactionEndedError(Exception):
    """The transaction that the engine began is over: the step has ended it itself."""


class Bracket(Protocol):
    """The beginning and the end of a step's transaction on one connection."""

    async def open(self) -> None:
        """Begin the transaction and set the savepoint."""
        ...

    def is_open(self) -> bool:
        """Return False if the driver knows that no transaction is open; it does not ask the database."""
        ...

    def see(self, statement: str) -> None:
        """See a statement that SQLAlchemy is about to send."""
        ...

    async def is_undone(self) -> bool:
        """Return whether the loss of the connection has undone everything; False if that is not known."""
        ...

    def look_before_rollback(self, connection: Connection) -> None:
        """Look whether a rollback that SQLAlchemy is about to send undoes everything since the beginning."""
        ...

    async def prove(self) -> None:
        """Check before the engine writes that no write is committed by itself.

        Raises:
            TransactionEndedError: The transaction is over.
        """
        ...

    async def commit(self) -> None:
        """Commit the transaction that was begun, and no other.

        Raises:
            TransactionEndedError: The transaction is over, and nothing was committed.
        """
        ...

    async def rollback(self) -> bool:
        """Roll back, and return whether it was the transaction that was begun."""
        ...


class PortableBracket:
    """The bracket in the words that each driver of SQLAlchemy understands; it costs two round trips."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._is_proved = False

    async def open(self) -> None:
        _ = await self._connection.begin()
        await self._connection.exec_driver_sql(f"SAVEPOINT {PROOF}")

    def is_open(self) -> bool:
        return True

    def see(self, statement: str) -> None:
        """Do nothing: what is sent past SQLAlchemy is not seen, so nothing is certain anyway."""

    async def is_undone(self) -> bool:
        return False

    def look_before_rollback(self, connection: Connection) -> None:
        self._is_proved = self._is_proved or _is_there(connection)

    async def prove(self) -> None:
        try:
            await self._connection.exec_driver_sql(f"RELEASE SAVEPOINT {PROOF}")
        except DBAPIError as error:
            if not _is_missing(error.orig):
                raise
            raise TransactionEndedError from error
        self._is_proved = True

    async def commit(self) -> None:
        await self._connection.commit()

    async def rollback(self) -> bool:
        stood = self._is_proved
        if not stood:
            with suppress(DBAPIError):
                await self._connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {PROOF}")
                stood = True
        await self._connection.rollback()
        return stood


class AsyncpgBracket:
    """The bracket on PostgreSQL through asyncpg, which takes several commands at once.

    SQLAlchemy is told that the connection commits by itself. So a commit or a rollback of SQLAlchemy's reaches no
    database, and only the engine ends the transaction.

    Args:
        limits: Commands that are sent together with BEGIN, each after a semicolon.
    """

    def __init__(self, connection: AsyncConnection, limits: str = "") -> None:
        self._connection, self._limits = connection, limits
        self._driver: Any = None
        self._is_sure, self._is_ending = True, False

    async def open(self) -> None:
        raw = await self._connection.get_raw_connection()
        self._driver = raw.driver_connection
        begin = _begin(raw.dbapi_connection)
        _ = await self._connection.execution_options(isolation_level="AUTOCOMMIT")
        await self._send(f"{begin}{self._limits}; SAVEPOINT {PROOF}")
        self._driver._query_loggers = _Lasting(self._driver._query_loggers)  # noqa: SLF001 - see there
        self._driver.add_query_logger(self._look)
        _ = await self._connection.begin()

    def is_open(self) -> bool:
        try:
            return bool(self._driver.is_in_transaction())
        except AttributeError:  # a connection that was given up knows nothing any more
            return True

    def see(self, statement: str) -> None:
        self._is_sure = self._is_sure and _HARMLESS.match(statement) is not None

    async def is_undone(self) -> bool:
        """Return whether all that was sent is known, and none of it could end the transaction."""
        await asyncio.sleep(0)  # the driver tells of what was sent in the loop's next turn
        return self._is_sure and (self._is_ending or self.is_open())

    def look_before_rollback(self, connection: Connection) -> None:
        """Do nothing: it reaches no database. The engine's own one is still to come, and proves it."""

    def _look(self, sent: Any) -> None:
        """See a statement that was sent past SQLAlchemy; the driver tells of it in the loop's next turn."""
        self.see(sent.query)

    async def prove(self) -> None:
        if not self.is_open():
            raise TransactionEndedError

    async def commit(self) -> None:
        self._end()
        await self._connection.commit()
        await self._send(f"RELEASE SAVEPOINT {PROOF}; COMMIT")

    async def rollback(self) -> bool:
        self._end()
        await self._connection.rollback()
        try:
            await self._send(f"ROLLBACK TO SAVEPOINT {PROOF}; ROLLBACK")
        except TransactionEndedError:
            return False
        return True

    def _end(self) -> None:
        """Look no longer: what is sent from now on is the engine's."""
        self._driver.remove_query_logger(self._look)
        self._is_sure = self._is_sure and (self._is_ending or self.is_open())
        self._is_ending = True

    async def _send(self, script: str) -> None:
        try:
            await self._driver.execute(script)
        except BaseException as error:
            await self._clear()
            if _is_missing(error):
                raise TransactionEndedError from error
            raise

    async def _clear(self) -> None:
        """Leave no transaction on the connection; throw the connection away if that fails."""
        try:
            if not self._driver.is_closed() and self.is_open():
                await self._driver.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - the error that led here is the one to tell of
            await self._connection.invalidate()
        if self._driver.is_closed():
            await self._connection.invalidate()


class _Lasting(set[Any]):
    """Query loggers that are still told of a statement whose connection has been lost.

    The driver removes all loggers when a connection is lost, and then would log what was in flight.
    """

    def clear(self) -> None:
        """Do nothing."""


def _begin(adapted: Any) -> str:
    """Return the BEGIN that SQLAlchemy would have sent on this connection."""
    level = getattr(adapted, "isolation_level", None)
    if level in (None, "autocommit"):
        return "BEGIN"
    return f"BEGIN ISOLATION LEVEL {str(level).replace('_', ' ').upper()}"


class AiosqliteBracket:
    """The bracket on SQLite through aiosqlite, where each command is a hop to the driver's thread."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._driver: Any = None
        self._is_proved = False
        self._undone_at: int | None = None
        self._parting: Future[bool] | None = None

    async def open(self) -> None:
        self._driver = await begin_immediate(self._connection, f"SAVEPOINT {PROOF}")
        _opened[self._driver] = self

    def is_open(self) -> bool:
        return bool(self._driver.in_transaction)

    def see(self, statement: str) -> None:
        """Do nothing: the connection can be asked, also when it is given up."""

    async def is_undone(self) -> bool:
        """Return what the connection said of the savepoint before it was closed."""
        if self._parting is None:
            return False
        try:
            async with asyncio.timeout(_PARTING):
                return await asyncio.shield(asyncio.wrap_future(self._parting))
        except (TimeoutError, sqlite3.Error):
            return False

    def part(self) -> Callable[[sqlite3.Connection], None]:
        """Return what ends the transaction in the driver's thread, and finds out whether that undoes everything."""
        parting = self._parting = Future()

        def end(connection: sqlite3.Connection) -> None:
            try:
                parting.set_result(_ran(connection, f"ROLLBACK TO SAVEPOINT {PROOF}") or self._is_proved)
            except sqlite3.Error as error:
                parting.set_exception(error)
            connection.rollback()

        return end

    def look_before_rollback(self, connection: Connection) -> None:
        if _is_there(connection):
            self._undone_at = self._driver.total_changes

    async def prove(self) -> None:
        if not self.is_open():
            raise TransactionEndedError

    async def commit(self) -> None:
        if not await in_thread(self._driver, self._release):
            raise TransactionEndedError
        await self._connection.commit()

    async def rollback(self) -> bool:
        is_there = await in_thread(self._driver, _ran, f"ROLLBACK TO SAVEPOINT {PROOF}")
        stood = is_there or self._is_proved or self._undone_at == self._driver.total_changes
        if self.is_open():
            await self._connection.rollback()
        return stood

    def _release(self, connection: sqlite3.Connection) -> bool:
        """Release the savepoint, in the driver's thread, where no cancellation of the engine's task reaches it."""
        self._is_proved = _ran(connection, f"RELEASE SAVEPOINT {PROOF}")
        return self._is_proved


_opened: WeakKeyDictionary[Any, AiosqliteBracket] = WeakKeyDictionary()
"""The last bracket of each connection of SQLite."""


def let_go(driver: Any) -> None:
    """Have a connection of SQLite that is about to be closed end its transaction before, and tell its bracket.

    Closed in the middle of a statement, as it is when its user is cancelled, it would keep the write lock until Python
    happens to collect the cursor.
    """
    bracket = _opened.get(driver)
    end = sqlite3.Connection.rollback if bracket is None else bracket.part()
    with suppress(ValueError):  # it is closed already
        handing = driver._execute(end, driver._conn)  # noqa: SLF001 - the only way to have something done in its thread
        handing.send(None)
        handing.close()


async def begin_immediate(connection: AsyncConnection, *then: str) -> Any:
    """Begin a transaction of SQLite that may write, whatever the driver and the application begin by themselves.

    Args:
        then: Statements that are run in the same hop.

    Returns:
        The driver's connection.
    """
    driver = (await connection.get_raw_connection()).driver_connection
    _ = await connection.begin()
    await in_thread(driver, _begin_immediate, then)
    return driver


async def in_thread(driver: Any, act: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function on SQLite's connection in the driver's thread; its errors are as SQLAlchemy would raise them."""
    try:
        return await driver._execute(act, driver._conn, *arguments)  # noqa: SLF001 - the only way into that thread
    except sqlite3.Error as error:
        raise DBAPIError.instance("a transaction of SQLite", None, error, sqlite3.Error) from error


def _begin_immediate(connection: sqlite3.Connection, then: tuple[str, ...]) -> None:
    if connection.in_transaction:  # an event of the application's, or PEP 249's mode, has begun a deferred one
        connection.execute("COMMIT")
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error:
        if is_pep249(connection):
            connection.execute("BEGIN")
        raise
    for statement in then:
        connection.execute(statement)


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to write-ahead logging, which SQLite does outside of transactions only."""
    if connection.in_transaction:
        connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode=WAL")
    if is_pep249(connection):
        connection.execute("BEGIN")


def _ran(connection: sqlite3.Connection, statement: str) -> bool:
    """Run a statement on the savepoint, and return whether the savepoint was there."""
    try:
        connection.execute(statement)
    except sqlite3.OperationalError as error:
        if "no such savepoint" in str(error):
            return False
        raise
    return True


def is_pep249(connection: Any) -> bool:
    """Return whether the driver always holds a transaction open, as `autocommit=False` of Python 3.12 says."""
    return getattr(connection, "autocommit", None) is False


def _is_there(connection: Connection) -> bool:
    """Return whether the savepoint is there, to which the transaction is rolled back."""
    try:
        connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {PROOF}")
    except DBAPIError:
        return False
    return True


def _is_missing(error: BaseException | None) -> bool:
    return sqlstate_of(error) in _NO_SAVEPOINT or "no such savepoint" in str(error)
