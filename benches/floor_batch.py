"""The floor with batched commits: coroutines queue what they must write; a leader sends all that has queued at once.

It does what a saga engine cannot avoid, and nothing else: the births and the steps of all the sagas that wait go in one
data-modifying statement, which locks their rows, checks token and revision, and inserts their history. That is faster
than a transaction of two statements, and as fast as two leaders with a connection each.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from .contender import main
from .floor_saga import BATCH, BIRTH, STEP, FloorSaga
from .floor_schema import postgresql

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
            rows = await self._connection.fetch(BATCH, *columns(steps, len(STEP)), *columns(births, len(BIRTH)))
            done = {row[0] for row in rows}
            for _, row, written in batch:
                if row[0] not in done:
                    raise RuntimeError("a row was not the one that was expected")
                written.set_result(None)
        self._leader = None


def columns(rows: list[Row], width: int) -> list[list[Any]]:
    """Turn rows into the columns that `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


if __name__ == "__main__":
    main(BatchedCommits)
