"""SQLite's form of a batched write: one hop to the driver's thread, and there a single statement.

SQLite itself is quick. What costs is the way to it: `aiosqlite` runs a connection in a thread of its own, and each call
is a hop there and back. Worse, that thread has to wait for the interpreter's lock each time SQLite answers it, which on
a busy event loop is up to 5 ms, while the database does nothing. So a whole batch is one statement, in a transaction of
its own: while it runs, the lock is free for whoever drives the sagas meanwhile.

The statement inserts the batch into a temporary view, whose triggers do with each row what it is for: a birth, a step,
another move, each with its entry in the history, or a further entry. If one of them does not fit, none is written, and
the batch is left to the portable form, which finds out which; nearly all batches fit.

A step in the middle of a saga leaves alone what is indexed, its status and its timer. Such a move has an update of its
own, since SQLite writes an index anew for whatever column a statement so much as names.

No BEGIN and no COMMIT stand around the statement, each of which would be another wait for the interpreter's lock: it is
a transaction by itself. Not so where an application has triggers of its own on the tables, or conflict clauses: what
they refuse with FAIL stays half done. There the statement does get both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from threading import Lock
from typing import Any
from uuid import UUID

import aiosqlite
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .bracket import in_thread, is_pep249
from .direct import ENTRY, PAST, DirectBatch, advanced, moved, quoted
from .rows import Birth, Move
from .sent_rows import BIRTH, FURTHER, MOVED, SENT, SENT_HEAD, STEP, WIDTH, values_of

_MOST_ROWS = 32_766 // WIDTH
"""SQLite takes no more parameters than this makes."""
_PATIENCE = 0.001
_LEGACY = -1
"""What `sqlite3.LEGACY_TRANSACTION_CONTROL` is, since Python 3.12."""
_UNUSUAL = """
SELECT 1 FROM main.sqlite_schema WHERE tbl_name IN (?, ?) AND (type = 'trigger' OR sql LIKE '%CONFLICT%')
UNION ALL SELECT 1 FROM temp.sqlite_schema WHERE tbl_name IN (?, ?)"""


class OneHop(DirectBatch):
    """The batched write on SQLite through aiosqlite.

    Args:
        writers: Held while a transaction writes; SQLite has one writer at a time.
        prepare: Makes the database ready, once.
    """

    speaks = ("sqlite", "aiosqlite")

    def __init__(
        self,
        head: Table,
        past: Table,
        engine: AsyncEngine,
        writers: AbstractAsyncContextManager[Any],
        prepare: Callable[[AsyncConnection], Awaitable[None]],
    ) -> None:
        super().__init__(head, engine, writers)
        quote = engine.dialect.identifier_preparer.quote_identifier
        self._view = quote(f"{head.name} batch")
        self._setup = _setup(quote, head.name, past.name)
        self._schema = _Schema((head.name, past.name))
        self._make_ready = prepare
        self._was: str | None = None
        self._was_pep249 = False

    @classmethod
    def fits(cls, head: Table, engine: AsyncEngine) -> bool:
        is_plain = head.schema is None and hasattr(aiosqlite.Connection, "_execute")
        return super().fits(head, engine) and is_plain

    async def _prepare(self, connection: AsyncConnection) -> AsyncConnection:
        await self._make_ready(connection)
        await connection.rollback()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        self._was_pep249 = await in_thread(driver, _set_pep249, False)
        await driver.executescript(self._setup)
        self._was = driver.isolation_level
        await _set_isolation(driver, None)  # otherwise `sqlite3` begins a transaction before what inserts
        return connection

    async def _tidy(self, connection: AsyncConnection) -> None:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.executescript(f"DROP VIEW temp.{self._view}")
        await _set_isolation(driver, self._was)
        await in_thread(driver, _set_pep249, self._was_pep249)

    async def _write(self, driver: Any, births: Sequence[Birth], moves: Sequence[Move]) -> set[UUID] | None:
        count, values = values_of(births, moves)
        if count > _MOST_ROWS:
            return None
        sql, begun = _insert(self._view, count), Lock()
        begun.acquire()
        hop = driver._execute  # noqa: SLF001 - there is no other way to run a function there; `fits` looks for it
        fits = await _AtOnce(hop(_transact, driver._conn, self._schema, sql, values, begun), begun)  # noqa: SLF001
        return set() if fits else None


async def _set_isolation(driver: Any, level: str | None) -> None:
    await driver._execute(setattr, driver._conn, "isolation_level", level)  # noqa: SLF001


def _set_pep249(connection: Any, on: bool) -> bool:
    """Leave, or enter, the mode in which the driver always holds a transaction open; return whether it was on."""
    was = is_pep249(connection)
    if was and not on:
        connection.execute("COMMIT")
        connection.autocommit = _LEGACY
    elif on and not was:
        connection.autocommit = False
    return was


class _AtOnce:
    """Awaits what hands work over to another thread, and holds still until that is at it.

    Otherwise it would begin some milliseconds later, as soon as this thread is made to share the interpreter's lock.
    """

    def __init__(self, handing: Coroutine[Any, Any, bool], begun: Lock) -> None:
        self._handing = handing
        self._begun = begun

    def __await__(self) -> Generator[Any, Any, bool]:
        waiting = self._handing.__await__()
        future = next(waiting)
        self._begun.acquire(timeout=_PATIENCE)
        try:
            yield future
        except BaseException:
            self._handing.close()
            raise
        return (yield from waiting)


class _Schema:
    """Knows whether a statement that writes to these tables is a transaction by itself."""

    def __init__(self, tables: tuple[str, str]) -> None:
        self._tables = tables
        self._version: object = None
        self._is_plain = False

    def is_plain(self, connection: sqlite3.Connection) -> bool:
        """Return whether nothing in the schema, as it is now, could leave a statement half done."""
        version = connection.execute("PRAGMA main.schema_version").fetchone()
        if version != self._version:
            self._version, self._is_plain = version, connection.execute(_UNUSUAL, self._tables * 2).fetchone() is None
        return self._is_plain


def _transact(connection: sqlite3.Connection, schema: _Schema, sql: str, values: Sequence[Any], begun: Lock) -> bool:
    """Write it all durably, or write nothing and return False, or raise. It runs in the driver's thread."""
    try:
        if connection.in_transaction or not schema.is_plain(connection):
            connection.execute("BEGIN IMMEDIATE")  # within somebody's transaction this is refused
    finally:
        begun.release()
    try:
        connection.execute(sql, values)
        if connection.in_transaction:
            connection.execute("COMMIT")
    except BaseException as error:
        connection.rollback()
        if not isinstance(error, sqlite3.IntegrityError):
            raise
        return False
    return True


@lru_cache(maxsize=256)
def _insert(view: str, count: int) -> str:
    """Return the statement for so many rows; the same text again is one that SQLite need not read again."""
    names = ", ".join(_names())
    row = f"({', '.join('?' * WIDTH)})"
    rows = ", ".join([row] * count)
    return f"INSERT INTO temp.{view} ({names}) VALUES {rows}"


def _names() -> list[str]:
    return ["kind", *(f"value{place}" for place in range(1, WIDTH))]


def _setup(quote: Callable[[str], str], head: str, past: str) -> str:
    """Return the script that makes the view and its triggers, all named after the table."""
    view, columns = quote(f"{head} batch"), ", ".join(f"NULL AS {name}" for name in _names())
    script = [f"DROP VIEW IF EXISTS temp.{view}; CREATE TEMP VIEW {view} AS SELECT {columns};"]
    entry = _entry_sql(quote(past))
    step, move = _move_sql(quote(head), steps=True), _move_sql(quote(head), steps=False)
    actions = {BIRTH: _birth_sql(quote(head)), STEP: f"{step}; {entry}", MOVED: f"{move}; {entry}", FURTHER: entry}
    for kind, sql in actions.items():
        event = f"INSTEAD OF INSERT ON {view} WHEN NEW.kind = {kind}"
        script.append(f"CREATE TEMP TRIGGER {quote(f'{head} batch {kind}')} {event} BEGIN {sql}; END;")
    return "\n".join(script)


def _birth_sql(head: str) -> str:
    values = ", ".join(f"NEW.value{place}" for place, _ in enumerate(SENT_HEAD, 1))
    arrived = f"EXISTS (SELECT 1 FROM {head} WHERE id = NEW.value1)"
    return (
        f"INSERT INTO {head} ({quoted(SENT_HEAD)}) VALUES ({values}); "
        f"SELECT RAISE(ABORT, 'a saga has not arrived') WHERE NOT {arrived}"
    )


def _entry_sql(past: str) -> str:
    values = ", ".join(map(_sent, ("id", "updated_at", "token", *(f"entry_{name}" for name in ENTRY))))
    return f"INSERT INTO {past} ({quoted(PAST)}) SELECT {values} WHERE {_sent('entry_seq')} IS NOT NULL"


def _move_sql(head: str, *, steps: bool) -> str:
    """Return what a move is, or such a one that leaves status and ownership alone: refused if it does not fit."""
    fits = f"id = {_sent('id')} AND revision = {_sent('revision')} AND step_execution_token IS {_sent('token')}"
    if steps:
        update = f"UPDATE {head} SET {advanced(_sent)} WHERE {fits} AND status = {_sent('status')}"
    else:
        update = f"UPDATE {head} SET {moved(head, _sent)} WHERE {fits}"
    return f"{update}; SELECT RAISE(ABORT, 'a saga is not where its move begins') WHERE changes() = 0"


def _sent(name: str) -> str:
    return f"NEW.value{1 + SENT.index(name)}"
