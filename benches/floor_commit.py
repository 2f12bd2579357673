"""The floor with one commit per step: a pool of asyncpg connections, each step one data-modifying statement."""

from __future__ import annotations

import asyncpg

from .contender import main
from .floor_saga import ONE_BIRTH, ONE_STEP, FloorSaga
from .floor_schema import postgresql

CONNECTIONS = 8
"""The fastest of 4, 8, 16, 32 and 64 at 256 sagas in flight."""


class OneCommit:
    """Writes every birth and every step in a transaction of its own."""

    async def open(self, url: str) -> None:
        self._pool = await asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, ssl=False)
        for statement in postgresql():
            await self._pool.execute(statement)

    async def saga(self, number: int, steps: int) -> None:
        saga = FloorSaga(number, steps)
        await self._write(ONE_BIRTH, saga.birth())
        for _ in range(steps):
            await self._write(ONE_STEP, saga.step())

    async def close(self) -> None:
        await self._pool.close()

    async def _write(self, statement: str, values: tuple[object, ...]) -> None:
        if await self._pool.fetchval(statement, *values) is None:
            raise RuntimeError("the row was not the one that was expected")


if __name__ == "__main__":
    main(OneCommit)
