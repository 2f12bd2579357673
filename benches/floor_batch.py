"""The floor with batched commits: coroutines queue what they must write; a leader sends all that has queued at once.

It does what a saga engine cannot avoid, and nothing else: the births and the steps of all the sagas that wait go in one
data-modifying statement, which locks their rows, checks token and revision, and inserts their history. Of the forms that
were tried (see `FORMS`) this is the fastest.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any
from uuid import UUID

import asyncpg

from .contender import main
from .floor_saga import BATCH, BIRTH, BIRTHS, MOVES, STEP, FloorSaga
from .floor_schema import postgresql

FORM = os.environ.get("BENCH_FLOOR_FORM", "one")
Row = tuple[Any, ...]


class BatchedCommits:
    """Writes births and steps in batches, on one connection, one batch after the other."""

    async def open(self, url: str) -> None:
        self._connection = await asyncpg.connect(url, ssl=False)
        for statement in postgresql():
            await self._connection.execute(statement)
        self._queue: list[tuple[bool, Row, asyncio.Future[None]]] = []
        self._leader: asyncio.Task[None] | None = None

    async def saga(self, number: int, steps: int) -> None:
        saga = FloorSaga(number, steps)
        await self._write(True, saga.birth())
        for _ in range(steps):
            await self._write(False, saga.step())

    async def close(self) -> None:
        await self._connection.close()

    def _write(self, birth: bool, row: Row) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._queue.append((birth, row, written))
        if self._leader is None:
            self._leader = loop.create_task(self._lead())
        return written

    async def _lead(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            births = [row for birth, row, _ in batch if birth]
            steps = [row for birth, row, _ in batch if not birth]
            done = await self._send(births, steps)
            for _, row, written in batch:
                if row[0] not in done:
                    raise RuntimeError("a row was not the one that was expected")
                written.set_result(None)
        self._leader = None

    async def _send(self, births: list[Row], steps: list[Row]) -> set[UUID]:
        if FORM == "one":
            rows = await self._connection.fetch(BATCH, *_columns(steps, len(STEP)), *_columns(births, len(BIRTH)))
            return {row[0] for row in rows}
        done: set[UUID] = set()
        if FORM == "two":
            if births:
                done.update(row[0] for row in await self._connection.fetch(BIRTHS, *_columns(births, len(BIRTH))))
            if steps:
                done.update(row[0] for row in await self._connection.fetch(MOVES, *_columns(steps, len(STEP))))
            return done
        async with self._connection.transaction():
            if births:
                done.update(row[0] for row in await self._connection.fetch(BIRTHS, *_columns(births, len(BIRTH))))
            if steps:
                done.update(row[0] for row in await self._connection.fetch(MOVES, *_columns(steps, len(STEP))))
        return done


def _columns(rows: list[Row], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


if __name__ == "__main__":
    main(BatchedCommits)
