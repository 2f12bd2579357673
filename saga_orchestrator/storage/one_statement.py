"""PostgreSQL's form of a batched write: one data-modifying statement, one round trip, one commit.

What costs in a durable step is not the writing but the round trips around it. So a whole batch is sent as arrays in a
single statement on a held connection in autocommit: it locks the rows, moves those whose revision and token still
match, inserts the history of the moved ones and the newborn sagas, and says which it wrote. It is atomic because a
statement is, and safe against concurrent writers because UPDATE checks its condition again on the row version that it
finally locks.

A batch of one row, as all batches are of a service with little to do, has that row's values as plain parameters: for
arrays PostgreSQL builds a table from each of them first, which takes it longer than the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..kernel.state import SagaStatus
from .direct import HEAD, KEPT, MOVE, PAST, STAYING, DirectBatch, moved, quoted
from .rows import Birth, Move

IMPATIENCE = "100ms"
"""How long a batch waits for the transaction of somebody else who is about to take what a newborn saga wants."""


class _Column(NamedTuple):
    """A column of a batch. One in which every row has the default is not sent: PostgreSQL fills it in."""

    name: str
    type: str
    default: Any = None
    sql_default: str = ""


_TYPES = {
    **dict.fromkeys(("id", "saga_id", "parent_id", "step_execution_token", "token", "new_token"), "uuid"),
    **dict.fromkeys(
        ("deadline_at", "created_at", "updated_at", "finished_at", "timestamp", "started_at"), "timestamptz"
    ),
    **dict.fromkeys(("revision", "definition_version", "priority", "seq", "attempt"), "int"),
    **dict.fromkeys(("current_step_index", "retry_counter"), "int"),
    **dict.fromkeys(("changes", "skipped"), "bool"),
    **dict.fromkeys(("state", "context", "input", "output", "last_error", "error", "reason"), "text"),
}
_Source = Callable[..., str]
_ZERO, _FALSE = (0, "0"), (False, "false")
_HEAD_DEFAULTS: dict[str, tuple[Any, str]] = {"priority": _ZERO}
_MOVE_DEFAULTS = {"status": (SagaStatus.RUNNING, "'RUNNING'"), "retry_counter": _ZERO, "changes": _FALSE}
_PAST_DEFAULTS = {
    "phase": ("EXECUTE", "'EXECUTE'"),
    "status": ("SUCCESS", "'SUCCESS'"),
    "attempt": (1, "1"),
    "skipped": _FALSE,
}


def _columns(names: Sequence[str], defaults: dict[str, tuple[Any, str]]) -> tuple[_Column, ...]:
    return tuple(_Column(name, _TYPES.get(name, "varchar"), *defaults.get(name, ())) for name in names)


_HEAD = _columns(HEAD, _HEAD_DEFAULTS)
_MOVE = _columns(MOVE, _MOVE_DEFAULTS)
_PAST = _columns(PAST, _PAST_DEFAULTS)
_JSON = ("state", "context", "input", "output")


class OneStatement(DirectBatch):
    """The batched write on PostgreSQL through asyncpg, whose array parameters it needs."""

    speaks = ("postgresql", "asyncpg")

    def __init__(self, head: Table, past: Table, engine: AsyncEngine) -> None:
        super().__init__(head, engine)
        quote = engine.dialect.identifier_preparer.format_table
        self._moves, self._move = (_moves_sql(quote(head), quote(past), source) for source in (_unnest, _values))
        self._births, self._birth = (_births_sql(quote(head), source) for source in (_unnest, _values))

    async def _prepare(self, connection: AsyncConnection) -> AsyncConnection:
        return await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def _write(self, driver: Any, births: Sequence[Birth], moves: Sequence[Move]) -> set[UUID]:
        done: set[UUID] = set()
        if births:
            done.update([row[0] for row in await driver.fetch(*self._born(births))])
        if moves:
            done.update([row[0] for row in await driver.fetch(*self._moved(moves))])
        return done

    def _born(self, births: Sequence[Birth]) -> tuple[Any, ...]:
        """Return the statement for these births, and its parameters."""
        rows = [[getattr(birth.head, name) for name in HEAD] for birth in births]
        return (self._birth, *rows[0]) if len(rows) == 1 else (self._births, *_arrays(rows, _HEAD))

    def _moved(self, moves: Sequence[Move]) -> tuple[Any, ...]:
        """Return the statement for these moves, and its parameters."""
        rows = [(*move[:STAYING], *((True, *move.ownership) if move.ownership else KEPT)) for move in moves]
        history = [row for move in moves for row in move.history]
        if len(rows) == len(history) == 1:
            return self._move, *rows[0], *history[0]
        return self._moves, *_arrays(rows, _MOVE), *_arrays(history, _PAST)


def _arrays(rows: Sequence[Any], columns: Sequence[_Column]) -> list[list[Any]]:
    if not rows:
        return [[] for _ in columns]
    return [_sent(list(values), column) for values, column in zip(zip(*rows, strict=True), columns, strict=True)]


def _sent(values: list[Any], column: _Column) -> list[Any]:
    """Return the array to send; none of it if all its values are the default, since `unnest` fills short arrays up."""
    default = column.default
    return [] if values[0] == default and values.count(default) == len(values) else values


def _values(columns: Sequence[_Column], alias: str, start: int = 1) -> str:
    """Return the source of a single row."""
    row = ", ".join(f"${start + i}::{column.type}" for i, column in enumerate(columns))
    return f"(VALUES ({row})) AS {alias}({_names(columns)})"


def _unnest(columns: Sequence[_Column], alias: str, start: int = 1) -> str:
    """Return the source of many rows."""
    arrays = ", ".join(f"${start + i}::{column.type}[]" for i, column in enumerate(columns))
    return f"unnest({arrays}) AS {alias}({_names(columns)})"


def _names(columns: Sequence[_Column]) -> str:
    return quoted(column.name for column in columns)


def _selected(columns: Sequence[_Column], alias: str) -> str:
    return ", ".join(_value(column, alias) for column in columns)


def _value(column: _Column, alias: str) -> str:
    value = f'{alias}."{column.name}"'
    if column.sql_default:
        return f"COALESCE({value}, {column.sql_default})"
    return f"{value}::jsonb" if column.name in _JSON else value


def _named(columns: Sequence[_Column], alias: str) -> str:
    return ", ".join(f'{_value(column, alias)} AS "{column.name}"' for column in columns)


def _births_sql(head: str, source: _Source) -> str:
    return (
        f"INSERT INTO {head} ({_names(_HEAD)}, updated_at) "
        f"SELECT {_selected(_HEAD, 'b')}, b.created_at FROM {source(_HEAD, 'b')}, "
        f"(SELECT set_config('lock_timeout', '{IMPATIENCE}', true)) AS impatience "
        "ON CONFLICT DO NOTHING RETURNING id"
    )


def _moves_sql(head: str, past: str, source: _Source) -> str:
    return f"""
WITH locked AS MATERIALIZED (
    SELECT {_named(_MOVE, "m")} FROM {source(_MOVE, "m")}
    JOIN {head} AS s ON s.id = m.id AND s.revision = m.revision
        AND s.step_execution_token IS NOT DISTINCT FROM m.token
    ORDER BY s.id FOR NO KEY UPDATE OF s SKIP LOCKED
),
moved AS (
    UPDATE {head} AS s SET {moved("s")}
    FROM locked AS m WHERE s.id = m.id
    RETURNING s.id
),
past AS (
    INSERT INTO {past} ({_names(_PAST)})
    SELECT {_selected(_PAST, "h")} FROM {source(_PAST, "h", len(_MOVE) + 1)} JOIN moved ON moved.id = h.saga_id
)
SELECT id FROM moved
"""
