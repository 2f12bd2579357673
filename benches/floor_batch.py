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

LEADERS = int(os.environ.get("BENCH_FLOOR_LEADERS", "1"))
Row = tuple[Any, ...]


class BatchedCommits:
    """Writes births and steps in batches, on one connection, one batch after the other."""

    async def open(self, url: str) -> None:
        self._idle = [await asyncpg.connect(url, ssl=False) for _ in range(LEADERS)]
        self._connections = list(self._idle)
        for statement in postgresql():
            await self._idle[0].execute(statement)
        self._queue: list[tuple[bool, Row, asyncio.Future[None]]] = []
        self._leaders = set()

    async def saga(self, number: int, steps: int) -> None:
        saga = FloorSaga(number, steps)
        await self._write(True, saga.birth())
        for _ in range(steps):
            await self._write(False, saga.step())

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    def _write(self, birth: bool, row: Row) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._queue.append((birth, row, written))
        if self._idle:
            leader = loop.create_task(self._lead(self._idle.pop()))
            self._leaders.add(leader)
            leader.add_done_callback(self._leaders.discard)
        return written

    async def _lead(self, connection) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            births = [row for birth, row, _ in batch if birth]
            steps = [row for birth, row, _ in batch if not birth]
            rows = await connection.fetch(BATCH, *_columns(steps, len(STEP)), *_columns(births, len(BIRTH)))
            done = {row[0] for row in rows}
            for _, row, written in batch:
                if row[0] not in done:
                    raise RuntimeError("a row was not the one that was expected")
                written.set_result(None)
        self._idle.append(connection)


def _columns(rows: list[Row], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


if __name__ == "__main__":
    main(BatchedCommits)
