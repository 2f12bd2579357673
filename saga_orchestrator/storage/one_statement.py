"""PostgreSQL's form of a batched write: one data-modifying statement, one round trip, one commit.

What costs in a durable step is not the writing but the round trips around it. So a whole batch is sent as arrays in a
single statement on a held connection in autocommit: it locks the rows, moves those whose revision and token still
match, inserts the history of the moved ones and the newborn sagas, and says which it wrote. It is atomic because a
statement is, and safe against concurrent writers because UPDATE checks its condition again on the row version that it
finally locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..kernel.state import SagaStatus
from .dialect import IMPATIENCE
from .rows import Birth, HistoryRow, Move, Write


class _Column(NamedTuple):
    """A column of a batch. One in which every row has the default is not sent: PostgreSQL fills it in."""

    name: str
    type: str
    default: Any = None
    sql_default: str = ""


_HEAD = (
    _Column("id", "uuid"),
    _Column("saga_name", "varchar"),
    _Column("definition_version", "int"),
    _Column("fingerprint", "varchar"),
    _Column("aggregation_id", "varchar"),
    _Column("trace_id", "varchar"),
    _Column("status", "varchar"),
    _Column("state", "text"),
    _Column("context", "text"),
    _Column("step_execution_token", "uuid"),
    _Column("lease_owner", "varchar"),
    _Column("deadline_at", "timestamptz"),
    _Column("idempotency_key", "varchar"),
    _Column("parent_id", "uuid"),
    _Column("priority", "int", 0, "0"),
    _Column("created_at", "timestamptz"),
)
_MOVE = (
    _Column("id", "uuid"),
    _Column("revision", "int"),
    _Column("token", "uuid"),
    _Column("status", "varchar", SagaStatus.RUNNING, "'RUNNING'"),
    _Column("state", "text"),
    _Column("current_step_index", "int"),
    _Column("retry_counter", "int", 0, "0"),
    _Column("last_error", "text"),
    _Column("updated_at", "timestamptz"),
    _Column("changes", "bool", False, "false"),
    _Column("new_token", "uuid"),
    _Column("lease_owner", "varchar"),
    _Column("deadline_at", "timestamptz"),
    _Column("awaiting", "varchar"),
    _Column("finished_at", "timestamptz"),
)
_PAST = (
    _Column("saga_id", "uuid"),
    _Column("seq", "int"),
    _Column("timestamp", "timestamptz"),
    _Column("phase", "varchar", "EXECUTE", "'EXECUTE'"),
    _Column("status", "varchar", "SUCCESS", "'SUCCESS'"),
    _Column("step_id", "varchar"),
    _Column("step_name", "varchar"),
    _Column("attempt", "int", 1, "1"),
    _Column("token", "uuid"),
    _Column("input", "text"),
    _Column("output", "text"),
    _Column("error", "text"),
    _Column("skipped", "bool", False, "false"),
    _Column("actor", "varchar"),
    _Column("reason", "text"),
    _Column("started_at", "timestamptz"),
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
        self._has_defaults = any(column.default is not None for column in head.columns)
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._turn = asyncio.Lock()  # the connection carries one statement at a time
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @staticmethod
    def fits(engine: AsyncEngine) -> bool:
        """Return whether this engine speaks to PostgreSQL through asyncpg, whose array parameters this form needs."""
        return engine.dialect.name == "postgresql" and engine.dialect.driver == "asyncpg"

    def bears(self, birth: Birth) -> bool:
        """Return whether this form can insert the saga: not if it has columns that only SQLAlchemy can fill."""
        return not birth.values and not self._has_defaults

    async def write(self, batch: Sequence[Write]) -> set[UUID]:
        """Write what fits, durably; return the ids of the sagas written."""
        births = [item for item in batch if isinstance(item, Birth)]
        moves = sorted((item for item in batch if isinstance(item, Move)), key=_by_id)
        async with self._turn:
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
            connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
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


def _by_id(move: Move) -> int:
    return move.saga_id.int


def _born(births: Sequence[Birth]) -> list[list[Any]]:
    return [_sent([getattr(birth.head, column.name) for birth in births], column) for column in _HEAD]


def _moved(moves: Sequence[Move]) -> list[list[Any]]:
    rows = [(*move[:9], *((True, *move.ownership) if move.ownership else _KEPT)) for move in moves]
    history = [row for move in moves for row in move.history]
    return [*_arrays(rows, _MOVE), *_arrays(history, _PAST)]


def _arrays(rows: Sequence[Any], columns: Sequence[_Column]) -> list[list[Any]]:
    if not rows:
        return [[] for _ in columns]
    return [_sent(list(values), column) for values, column in zip(zip(*rows, strict=True), columns, strict=True)]


def _sent(values: list[Any], column: _Column) -> list[Any]:
    """Return the array to send; none of it if all its values are the default, since `unnest` fills short arrays up."""
    default = column.default
    return [] if values[0] == default and values.count(default) == len(values) else values


def _unnest(columns: Sequence[_Column], alias: str, start: int = 1) -> str:
    arrays = ", ".join(f"${start + i}::{column.type}[]" for i, column in enumerate(columns))
    return f"unnest({arrays}) AS {alias}({', '.join(_quoted(columns))})"


def _quoted(columns: Sequence[_Column]) -> list[str]:
    return [f'"{column.name}"' for column in columns]


def _selected(columns: Sequence[_Column], alias: str) -> str:
    return ", ".join(_value(column, alias) for column in columns)


def _value(column: _Column, alias: str) -> str:
    value = f'{alias}."{column.name}"'
    if column.sql_default:
        return f"COALESCE({value}, {column.sql_default})"
    return f"{value}::jsonb" if column.name in _JSON else value


def _named(columns: Sequence[_Column], alias: str) -> str:
    return ", ".join(f'{_value(column, alias)} AS "{column.name}"' for column in columns)


def _births_sql(head: str) -> str:
    return (
        f"INSERT INTO {head} ({', '.join(_quoted(_HEAD))}, updated_at) "
        f"SELECT {_selected(_HEAD, 'b')}, b.created_at FROM {_unnest(_HEAD, 'b')}, "
        f"(SELECT set_config('lock_timeout', '{IMPATIENCE}', true)) AS impatience "
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
WITH locked AS MATERIALIZED (
    SELECT {_named(_MOVE, "m")} FROM {_unnest(_MOVE, "m")}
    JOIN {head} AS s ON s.id = m.id AND s.revision = m.revision
        AND s.step_execution_token IS NOT DISTINCT FROM m.token
    ORDER BY s.id FOR NO KEY UPDATE OF s SKIP LOCKED
),
moved AS (
    UPDATE {head} AS s
    SET revision = m.revision + 1, status = m.status, state = m.state, current_step_index = m.current_step_index,
        retry_counter = m.retry_counter, last_error = m.last_error, updated_at = m.updated_at, {ownership}
    FROM locked AS m WHERE s.id = m.id
    RETURNING s.id
),
past AS (
    INSERT INTO {past} ({", ".join(_quoted(_PAST))})
    SELECT {_selected(_PAST, "h")} FROM {_unnest(_PAST, "h", len(_MOVE) + 1)} JOIN moved ON moved.id = h.saga_id
)
SELECT id FROM moved
"""


assert tuple(column.name for column in _PAST) == HistoryRow._fields
