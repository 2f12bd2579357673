"""SQLite's form of a batched write: each kind of row in one statement, each statement one hop to the driver's thread.

SQLite itself is quick. What costs is the way to it: `aiosqlite` runs a connection in a thread of its own, and between
any two rows of an `executemany` that thread waits for the interpreter's lock. So all rows of a batch are the VALUES of
one statement, during which the lock is free for whoever drives the sagas meanwhile.

The types are written as SQLAlchemy writes them: UUIDs as 32 hexadecimal digits, times as UTC texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .direct import HEAD, MOVE, PAST, DirectBatch, moved, quoted
from .rows import Birth, HistoryRow, Move

_Row = tuple[Any, ...]
_Sql = Callable[[int], str]
_AT_ONCE = 256
"""Rows in one statement: SQLite takes 32 766 parameters."""
_KEPT: _Row = (0, None, None, None, None, None)


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
        super().__init__(head, engine)
        quote = engine.dialect.identifier_preparer.format_table
        self._births, self._moves, self._past = (
            _births_sql(quote(head)),
            _moves_sql(quote(head)),
            _past_sql(quote(past)),
        )
        self._writers, self._make_ready = writers, prepare

    async def _prepare(self, connection: AsyncConnection) -> AsyncConnection:
        await self._make_ready(connection)
        await connection.rollback()
        return connection

    async def _write(self, driver: Any, births: Sequence[Birth], moves: Sequence[Move]) -> set[UUID]:
        async with self._writers:
            await driver.execute("BEGIN IMMEDIATE")
            born = await _written(driver, self._births, [_born(birth) for birth in births])
            gone = await _written(driver, self._moves, [_moved(move) for move in moves])
            rows = [_past(row) for move in moves if move.saga_id.hex in gone for row in move.history]
            await _written(driver, self._past, rows)
            await driver.commit()
        return {UUID(hex=found) for found in born | gone}


async def _written(driver: Any, sql: _Sql, rows: Sequence[_Row]) -> set[str]:
    """Write rows, and return the ids that come back."""
    found: set[str] = set()
    for chosen in _chunks(rows):
        answer = await driver.execute_fetchall(sql(len(chosen)), tuple(chain.from_iterable(chosen)))
        found.update([row[0] for row in answer])
    return found


def _chunks(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    return (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE))


def _births_sql(head: str) -> _Sql:
    names = quoted((*HEAD, "updated_at"))
    return _with_values(f"INSERT INTO {head} ({names}) ", len(HEAD) + 1, " ON CONFLICT DO NOTHING RETURNING id")


def _moves_sql(head: str) -> _Sql:
    fits = f"{head}.id = m.id AND {head}.revision = m.revision AND {head}.step_execution_token IS m.token"
    update = f" UPDATE {head} SET {moved(head)} FROM m WHERE {fits} RETURNING id"
    return _with_values(f"WITH m ({quoted(MOVE)}) AS (", len(MOVE), f"){update}")


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
    owned = _KEPT
    if ownership is not None:
        new_token, owner, deadline_at, awaiting, finished_at = ownership
        owned = (1, _hex(new_token), owner, _text(deadline_at), awaiting, _text(finished_at))
    here = saga_id.hex, revision, _hex(token), status.value, state, index, failures, error, _text(updated_at)
    return (*here, *owned)


def _past(row: HistoryRow) -> _Row:
    token, timestamp, started_at = _hex(row.token), _text(row.timestamp), _text(row.started_at)
    return (row.saga_id.hex, row.seq, timestamp, *row[3:8], token, *row[9:15], started_at)


def _hex(value: UUID | None) -> str | None:
    return None if value is None else value.hex


def _text(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).isoformat(" ", "microseconds")[:26]
