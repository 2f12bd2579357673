"""PostgreSQL's form of a batched write: one data-modifying statement, one round trip, one commit.

What costs in a durable step is not the writing but the round trips around it. So a whole batch is sent as arrays in a
single statement on a held connection in autocommit: it locks the rows, moves those whose revision and token still match,
inserts the history of the moved ones and the newborn sagas, and says which it wrote. It is atomic because a statement is,
and safe against concurrent writers because UPDATE checks its condition again on the row version that it finally locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .rows import Birth, HistoryRow, Move, Write

_HEAD = (
    ("id", "uuid"),
    ("saga_name", "varchar"),
    ("definition_version", "int"),
    ("fingerprint", "varchar"),
    ("aggregation_id", "varchar"),
    ("trace_id", "varchar"),
    ("status", "varchar"),
    ("state", "text"),
    ("context", "text"),
    ("step_execution_token", "uuid"),
    ("lease_owner", "varchar"),
    ("deadline_at", "timestamptz"),
    ("idempotency_key", "varchar"),
    ("parent_id", "uuid"),
    ("priority", "int"),
    ("created_at", "timestamptz"),
)
_MOVE = (
    ("id", "uuid"),
    ("revision", "int"),
    ("token", "uuid"),
    ("status", "varchar"),
    ("state", "text"),
    ("current_step_index", "int"),
    ("retry_counter", "int"),
    ("last_error", "text"),
    ("updated_at", "timestamptz"),
    ("changes", "bool"),
    ("new_token", "uuid"),
    ("lease_owner", "varchar"),
    ("deadline_at", "timestamptz"),
    ("awaiting", "varchar"),
    ("finished_at", "timestamptz"),
)
_PAST = (
    ("saga_id", "uuid"),
    ("seq", "int"),
    ("timestamp", "timestamptz"),
    ("phase", "varchar"),
    ("status", "varchar"),
    ("step_id", "varchar"),
    ("step_name", "varchar"),
    ("attempt", "int"),
    ("token", "uuid"),
    ("input", "text"),
    ("output", "text"),
    ("error", "text"),
    ("skipped", "bool"),
    ("actor", "varchar"),
    ("reason", "text"),
    ("started_at", "timestamptz"),
)
_JSON = ("state", "context", "input", "output")
_KEPT = (False, None, None, None, None, None)
_LINGER = 0.02
"""How long, in seconds, an idle connection is held before it goes back to the pool."""


class OneStatement:
    """The batched write of one saga table, on a connection of its own."""

    def __init__(self, head: Table, past: Table, engine: AsyncEngine) -> None:
        self._engine = engine
        quote = engine.dialect.identifier_preparer.format_table
        self._moves = _moves_sql(quote(head), quote(past))
        self._births = _births_sql(quote(head))
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @staticmethod
    def fits(engine: AsyncEngine) -> bool:
        """Return whether this engine speaks to PostgreSQL through asyncpg, whose array parameters this form needs."""
        return engine.dialect.name == "postgresql" and engine.dialect.driver == "asyncpg"

    async def write(self, batch: Sequence[Write]) -> set[UUID]:
        """Write what fits, durably; return the ids of the sagas written."""
        births = [item for item in batch if isinstance(item, Birth)]
        moves = sorted((item for item in batch if isinstance(item, Move)), key=_by_id)
        driver = await self._hold()
        try:
            done: set[UUID] = set()
            if births:
                done.update(row[0] for row in await driver.fetch(self._births, *_born(births)))
            if moves:
                done.update(row[0] for row in await driver.fetch(self._moves, *_moved(moves)))
        except BaseException:
            await self._drop()
            raise
        self._idle = asyncio.get_running_loop().call_later(_LINGER, self._let_go)
        return done

    async def aclose(self) -> None:
        """Give the connection back."""
        self._let_go()
        await asyncio.gather(*self._closing)

    async def _hold(self) -> Any:
        if self._idle is not None:
            self._idle.cancel()
        if self._connection is None:
            connection = await self._engine.connect()
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            self._driver = (await connection.get_raw_connection()).driver_connection
            self._connection = connection
        return self._driver

    async def _drop(self) -> None:
        """Throw away a connection on which something failed: nobody knows what state it is in."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            closing = asyncio.get_running_loop().create_task(connection.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _by_id(move: Move) -> UUID:
    return move.saga_id


def _born(births: Sequence[Birth]) -> list[list[Any]]:
    return [[getattr(birth.head, name) for birth in births] for name, _ in _HEAD]


def _moved(moves: Sequence[Move]) -> list[list[Any]]:
    rows = [(*move[:9], *((True, *move.ownership) if move.ownership else _KEPT)) for move in moves]
    history = [row for move in moves for row in move.history]
    return [*_columns(rows, len(_MOVE)), *_columns(history, len(_PAST))]


def _columns(rows: Sequence[Any], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _unnest(columns: Sequence[tuple[str, str]], alias: str, start: int = 1) -> str:
    arrays = ", ".join(f"${start + i}::{kind}[]" for i, (_, kind) in enumerate(columns))
    return f"unnest({arrays}) AS {alias}({', '.join(_quoted(columns))})"


def _quoted(columns: Sequence[tuple[str, str]]) -> list[str]:
    return [f'"{name}"' for name, _ in columns]


def _selected(columns: Sequence[tuple[str, str]], alias: str) -> str:
    return ", ".join(f'{alias}."{name}"' + ("::jsonb" if name in _JSON else "") for name, _ in columns)


def _births_sql(head: str) -> str:
    return (
        f"INSERT INTO {head} ({', '.join(_quoted(_HEAD))}, updated_at) "
        f"SELECT {_selected(_HEAD, 'b')}, b.created_at FROM {_unnest(_HEAD, 'b')} "
        "ON CONFLICT DO NOTHING RETURNING id"
    )


def _moves_sql(head: str, past: str) -> str:
    kept = "CASE WHEN m.changes THEN m.{0} ELSE s.{1} END"
    ownership = ", ".join(
        f"{column} = {kept.format(given, column)}"
        for given, column in (
            ("new_token", "step_execution_token"),
            ("lease_owner", "lease_owner"),
            ("deadline_at", "deadline_at"),
            ("awaiting", "awaiting"),
            ("finished_at", "finished_at"),
        )
    )
    return f"""
WITH m AS MATERIALIZED (SELECT * FROM {_unnest(_MOVE, "m")}),
locked AS MATERIALIZED (
    SELECT s.id FROM {head} AS s JOIN m ON m.id = s.id ORDER BY s.id FOR UPDATE OF s
),
moved AS (
    UPDATE {head} AS s
    SET revision = m.revision + 1, status = m.status, state = m.state::jsonb,
        current_step_index = m.current_step_index, retry_counter = m.retry_counter,
        last_error = m.last_error, updated_at = m.updated_at, {ownership}
    FROM m JOIN locked ON locked.id = m.id
    WHERE s.id = m.id AND s.revision = m.revision AND s.step_execution_token = m.token
    RETURNING s.id
),
past AS (
    INSERT INTO {past} ({", ".join(_quoted(_PAST))})
    SELECT {_selected(_PAST, "h")} FROM {_unnest(_PAST, "h", len(_MOVE) + 1)} JOIN moved ON moved.id = h.saga_id
)
SELECT id FROM moved
"""


assert tuple(name for name, _ in _PAST) == HistoryRow._fields
