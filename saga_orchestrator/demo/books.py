"""How a participant reads and writes its books: one transaction per call, and an entry once per key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy import Executable, Table
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .. import OutcomeUnknown

_DISTANCE = 0.02
"""Seconds to a participant and back, so that a run is worth watching."""


class Books:
    """The participants' way to their tables, on an engine of their own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        # Writers of one process queue here rather than in SQLite, where they would poll for the lock.
        self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock() if self._is_sqlite else nullcontext()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a participant's transaction, and commit it at the end; an error before that leaves nothing.

        Raises:
            OutcomeUnknown: The commit was sent and its answer was lost.
        """
        await asyncio.sleep(_DISTANCE)
        async with self._turn, self._engine.connect() as transaction:
            if self._is_sqlite:
                # What is read in it must still be true when it is written.
                await transaction.exec_driver_sql("BEGIN IMMEDIATE")
            yield transaction
            try:
                await transaction.commit()
            except Exception as error:
                raise OutcomeUnknown("the commit was not answered") from error

    async def read(self, query: Executable) -> Any:
        """Return the first column of the first row, or None."""
        await asyncio.sleep(_DISTANCE)
        async with self._engine.connect() as connection:
            return await connection.scalar(query)


async def add_once(transaction: AsyncConnection, table: Table, **entry: Any) -> bool:
    """Add an entry unless its key is there already; return whether it was added.

    Waits for another transaction that is adding the same key, so exactly one of the two adds it.
    """
    insert = postgresql_insert if transaction.dialect.name == "postgresql" else sqlite_insert
    added = await transaction.execute(insert(table).values(**entry).on_conflict_do_nothing())
    return added.rowcount == 1
