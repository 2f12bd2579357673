"""PostgreSQL's form of a batched write: one data-modifying statement, one round trip, one commit.

What costs in a durable step is not the writing but the round trips around it. So a whole batch is sent as arrays in a
single statement on a held connection in autocommit: it locks the rows, moves those whose revision and token still
match, inserts the history of the moved ones, and says which it did not write; newborn sagas are another such statement.
It is atomic because a statement is, and safe against concurrent writers because UPDATE checks its condition again on
the row version that it finally locks.

A batch of one row, as all batches are of a service with little to do, has that row's values as plain parameters: for
arrays PostgreSQL builds a table from each of them first, which takes it longer than the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .direct import ENTRY, HEAD, KEPT, MOVE, NO_ENTRY, PAST, STAYING, DirectBatch, moved, quoted
from .rows import Birth, Move

IMPATIENCE = "100ms"
"""How long a batch waits for the transaction of somebody else who is about to take what a newborn saga wants."""

_Row = tuple[Any, ...]
_TYPES = {
    **dict.fromkeys(("id", "parent_id", "step_execution_token", "token", "new_token"), "uuid"),
    **dict.fromkeys(("deadline_at", "created_at", "updated_at", "finished_at", "started_at"), "timestamptz"),
    **dict.fromkeys(("revision", "definition_version", "priority", "seq", "attempt"), "int"),
    **dict.fromkeys(("current_step_index", "retry_counter"), "int"),
    **dict.fromkeys(("changes", "skipped"), "bool"),
    **dict.fromkeys(("state", "context", "input", "output", "last_error", "error", "reason"), "text"),
}
_JSON = {"state": "jsonb", **dict.fromkeys(("context", "input", "output"), "json")}
"""What a text becomes. Only `json` keeps it byte for byte."""


class _Column(NamedTuple):
    """A value that is sent for each row. `name`: what it is called there. `json`: the kind of JSON that it becomes."""

    name: str
    type: str
    json: str | None


def _columns(names: Iterable[str], prefix: str = "") -> tuple[_Column, ...]:
    return tuple(_Column(prefix + name, _TYPES.get(name, "varchar"), _JSON.get(name)) for name in names)


_BIRTH = _columns(HEAD)
_MOVE = _columns(MOVE) + _columns(ENTRY, "entry_")
"""A move and its entry in the history. One that has none sends none; one that has several sends further rows, which
have no revision and so move nothing."""
_of_head = attrgetter(*HEAD)


class _Sql(NamedTuple):
    """The two forms of a statement."""

    one: str
    many: str

    def of(self, rows: Sequence[_Row]) -> tuple[Any, ...]:
        """Return the statement for these rows, and its parameters."""
        return (self.one, *rows[0]) if len(rows) == 1 else (self.many, *_arrays(rows))


class OneStatement(DirectBatch):
    """The batched write on PostgreSQL through asyncpg, whose array parameters it needs."""

    speaks = ("postgresql", "asyncpg")

    def __init__(self, head: Table, past: Table, engine: AsyncEngine) -> None:
        super().__init__(head, engine)
        quote = engine.dialect.identifier_preparer.format_table
        sent = engine.dialect.identifier_preparer.quote_identifier(f"{head.name} sent")  # no name of theirs
        self._births = _Sql(*(_births_sql(quote(head), sent, source(_BIRTH)) for source in (_one, _many)))
        self._moves = _Sql(*(_moves_sql(quote(head), quote(past), sent, source(_MOVE)) for source in (_one, _many)))

    async def _prepare(self, connection: AsyncConnection) -> AsyncConnection:
        return await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def write_within(self, driver: Any, move: Move) -> bool | None:
        with self._raising_as_sqlalchemy():
            return not await driver.fetch(*self._moves.of(_rows(move)))

    async def _write(self, driver: Any, births: Sequence[Birth], moves: Sequence[Move]) -> set[UUID]:
        missed: list[Any] = []
        if births:
            missed += await driver.fetch(*self._births.of([_of_head(birth.head) for birth in births]))
        if moves:
            missed += await driver.fetch(*self._moves.of([row for move in moves for row in _rows(move)]))
        return {row[0] for row in missed}


def _rows(move: Move) -> list[_Row]:
    """Return what is sent of a move."""
    facts = *move[:STAYING], *((True, *move.ownership) if move.ownership else KEPT)
    first, *others = move.history or [NO_ENTRY]
    rows: list[_Row] = [(*facts, *first)]
    if others:
        shared = tuple(
            fact if name in ("id", "token", "updated_at") else None for name, fact in zip(MOVE, facts, strict=True)
        )
        rows += [(*shared, *entry) for entry in others]
    return rows


def _arrays(rows: Sequence[_Row]) -> list[Sequence[Any]]:
    """Return the columns of some rows. The first is an id; of a column that is the same throughout, one value."""
    ids, *others = zip(*rows, strict=True)
    return [ids, *(_short(values) for values in others)]


def _short(values: Sequence[Any]) -> Sequence[Any]:
    first = values[0]
    return values[:1] if first == values[-1] and values.count(first) == len(values) else values


def _one(columns: Sequence[_Column]) -> str:
    """Return the source of a single row."""
    row = ", ".join(f"${place}::{column.type}" for place, column in enumerate(columns, 1))
    named = ", ".join(_named(column, f'one."{column.name}"') for column in columns)
    return f"SELECT {named} FROM (VALUES ({row})) AS one({_names(columns)})"


def _many(columns: Sequence[_Column]) -> str:
    """Return the source of many rows; where one value was sent for all, `unnest` has filled in NULL."""
    arrays = [f"${place}::{column.type}[]" for place, column in enumerate(columns, 1)]
    filled = ", ".join(
        _named(column, f'COALESCE(many."{column.name}", CASE cardinality({array}) WHEN 1 THEN ({array})[1] END)')
        for column, array in zip(columns, arrays, strict=True)
    )
    return f"SELECT {filled} FROM unnest({', '.join(arrays)}) AS many({_names(columns)})"


def _named(column: _Column, value: str) -> str:
    return f'{value}{f"::{column.json}" if column.json else ""} AS "{column.name}"'


def _names(columns: Iterable[_Column]) -> str:
    return quoted(column.name for column in columns)


def _births_sql(head: str, sent: str, source: str) -> str:
    names = _names(_BIRTH)
    return f"""
WITH {sent} AS MATERIALIZED ({source}),
born AS (
    INSERT INTO {head} ({names}, updated_at)
    SELECT {names}, created_at FROM {sent}, (SELECT set_config('lock_timeout', '{IMPATIENCE}', true)) AS impatience
    ON CONFLICT DO NOTHING RETURNING id
)
SELECT id FROM {sent} EXCEPT SELECT id FROM born
"""


def _moves_sql(head: str, past: str, sent: str, source: str) -> str:
    return f"""
WITH {sent} AS MATERIALIZED ({source}),
locked AS MATERIALIZED (
    SELECT m.* FROM {sent} AS m
    JOIN {head} AS s ON s.id = m.id AND s.revision = m.revision
        AND s.step_execution_token IS NOT DISTINCT FROM m.token
    ORDER BY s.id FOR NO KEY UPDATE OF s SKIP LOCKED
),
moved AS (
    UPDATE {head} AS s SET {moved("s", "m.{}".format)}
    FROM locked AS m WHERE s.id = m.id
    RETURNING s.id
),
past AS (
    INSERT INTO {past} ({quoted(PAST)})
    SELECT id, updated_at, token, {_names(_MOVE[len(MOVE) :])} FROM {sent} JOIN moved USING (id)
    WHERE entry_seq IS NOT NULL
)
SELECT id FROM {sent} EXCEPT SELECT id FROM moved
"""
