"""SQLite's form of a batched write: one hop to the driver's thread, and there one statement for each kind of row.

SQLite itself is quick. What costs is the way to it: `aiosqlite` runs a connection in a thread of its own, and each call
is a hop there and back, which waits for the event loop's turn. And between any two rows of an `executemany` that thread
waits for the interpreter's lock. So the whole transaction is one function, run there, and all rows of a kind are the
VALUES of one statement, during which the lock is free for whoever drives the sagas meanwhile.

A batch all of whose items fit, as nearly every batch does, is written this way. One that holds an item that does not is
left to the portable form, which finds out which.

A step in the middle of a saga leaves alone what is indexed, its status and its timer. Such moves are written by a
statement of their own, since SQLite writes an index anew for whatever column a statement so much as names.

The types are written as SQLAlchemy writes them: UUIDs as 32 hexadecimal digits, times as UTC texts.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

import aiosqlite
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .direct import HEAD, KEPT, MOVE, PAST, STAYING, DirectBatch, advanced, moved, quoted
from .rows import Birth, Move

_Row = tuple[Any, ...]
_Sql = Callable[[int], str]
_AT_ONCE = 256
"""Rows in one statement: SQLite takes 32 766 parameters."""
_FITS = "s.id = m.id AND s.revision = m.revision AND s.step_execution_token IS m.token"


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
        writers: asyncio.Lock,
        prepare: Callable[[AsyncConnection], Awaitable[None]],
    ) -> None:
        super().__init__(head, engine, writers)
        quote = engine.dialect.identifier_preparer.format_table
        self._sql = _Statements(quote(head), quote(past))
        self._make_ready = prepare

    @classmethod
    def fits(cls, head: Table, engine: AsyncEngine) -> bool:
        return super().fits(head, engine) and hasattr(aiosqlite.Connection, "_execute")

    async def _prepare(self, connection: AsyncConnection) -> AsyncConnection:
        await self._make_ready(connection)
        await connection.rollback()
        return connection

    async def _write(self, driver: Any, births: Sequence[Birth], moves: Sequence[Move]) -> set[UUID] | None:
        rows = _Rows([_born(birth) for birth in births], [], [], [])
        for move in moves:
            row = _moved(move)
            (rows.changing if row[STAYING] else rows.staying).append(row)
            rows.history.extend(_past(move, row))
        hop = driver._execute  # noqa: SLF001 - there is no other way to run a function there; `fits` looks for it
        return set() if await hop(self._sql.transact, driver._conn, rows) else None  # noqa: SLF001


class _Rows(NamedTuple):
    """What a batch consists of. `staying`: the moves that leave the ownership as it is."""

    births: list[_Row]
    staying: list[_Row]
    changing: list[_Row]
    history: list[_Row]


class _Statements:
    """The transaction, as it runs in the driver's thread."""

    def __init__(self, head: str, past: str) -> None:
        self._births, self._past = _births_sql(head), _past_sql(past)
        self._staying, self._changing = _staying_sql(head), _changing_sql(head)

    def transact(self, connection: sqlite3.Connection, rows: _Rows) -> bool:
        """Write it all and commit, or write nothing and return False, or raise; the write lock is let go of at once."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            fits = self._writes(connection, rows)
            connection.execute("COMMIT" if fits else "ROLLBACK")
        except BaseException:
            connection.rollback()
            raise
        return fits

    def _writes(self, connection: sqlite3.Connection, rows: _Rows) -> bool:
        if _written(connection, self._births, rows.births) < len(rows.births):
            return False
        moved = _written(connection, self._staying, [row[:STAYING] for row in rows.staying])
        left = rows.changing if moved == len(rows.staying) else rows.staying + rows.changing
        if moved + _written(connection, self._changing, left) < len(rows.staying) + len(rows.changing):
            return False
        _written(connection, self._past, rows.history)
        return True


def _written(connection: sqlite3.Connection, sql: _Sql, rows: Sequence[_Row]) -> int:
    """Write rows, and return how many it were: of those that do not fit, none is."""
    count = 0
    for start in range(0, len(rows), _AT_ONCE):
        chosen = rows[start : start + _AT_ONCE]
        count += connection.execute(sql(len(chosen)), tuple(chain.from_iterable(chosen))).rowcount
    return count


def _births_sql(head: str) -> _Sql:
    names = quoted((*HEAD, "updated_at"))
    return _with_values(f"INSERT INTO {head} ({names}) ", len(HEAD) + 1, " ON CONFLICT DO NOTHING")


def _staying_sql(head: str) -> _Sql:
    """Return the statement for moves that leave the ownership as it is; it passes over those that change the status."""
    return _update_sql(head, advanced(), MOVE[:STAYING], f"{_FITS} AND s.status = m.status")


def _changing_sql(head: str) -> _Sql:
    return _update_sql(head, moved("s"), MOVE, _FITS)


def _update_sql(head: str, assignments: str, columns: Sequence[str], condition: str) -> _Sql:
    """Return an update from the rows sent. It begins with UPDATE: of what does not, `sqlite3` tells no row count."""
    named = ", ".join(f'column{place} AS "{name}"' for place, name in enumerate(columns, 1))
    before = f"UPDATE {head} AS s SET {assignments} FROM (SELECT {named} FROM ("
    return _with_values(before, len(columns), f")) AS m WHERE {condition}")


def _past_sql(past: str) -> _Sql:
    return _with_values(f"INSERT INTO {past} ({quoted(PAST)}) ", len(PAST), "")


def _with_values(before: str, width: int, after: str) -> _Sql:
    """Return the statement for each number of rows; the same text again is one that SQLite need not read again."""
    row = f"({', '.join('?' * width)})"
    return lru_cache(maxsize=_AT_ONCE)(lambda count: f"{before}VALUES {', '.join([row] * count)}{after}")


def _born(birth: Birth) -> _Row:
    head = birth.head
    created = _text(head.created_at)
    return (
        head.id.hex,
        head.saga_name,
        head.definition_version,
        head.fingerprint,
        head.aggregation_id,
        head.trace_id,
        head.status.value,
        head.state,
        head.context,
        _hex(head.step_execution_token),
        head.lease_owner,
        _text(head.deadline_at),
        head.idempotency_key,
        _hex(head.parent_id),
        head.priority,
        created,
        created,
    )


def _moved(move: Move) -> _Row:
    saga_id, revision, token, status, state, index, failures, error, updated_at, ownership, _ = move
    owned: _Row = KEPT
    if ownership is not None:
        new_token, owner, deadline_at, awaiting, finished_at = ownership
        owned = (True, _hex(new_token), owner, _text(deadline_at), awaiting, _text(finished_at))
    here = saga_id.hex, revision, _hex(token), status.value, state, index, failures, error, _text(updated_at)
    return (*here, *owned)


def _past(move: Move, row: _Row) -> list[_Row]:
    """Return the history rows of a move; what they share with it is written out already."""
    return [(row[0], row[8], row[2], *entry[:-1], _text(entry.started_at)) for entry in move.history]


def _hex(value: UUID | None) -> str | None:
    return None if value is None else value.hex


def _text(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).isoformat(" ", "microseconds")[:26]
