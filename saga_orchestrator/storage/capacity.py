"""How many connections an application's pool gives out, and how many of them steps may hold at once.

A step that works in a transaction holds a connection for as long as it works. Meanwhile the leases of all sagas have to
be renewed, by another connection. So one connection of the pool is never lent to a step. Where there is no other one, a
step has to end before a lease could: on SQLite, which has one writer at a time, and with a pool of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AssertionPool, Pool, QueuePool


def connections_of(engine: AsyncEngine) -> int | None:
    """Return how many connections the pool of an engine gives out at once; None where there is no bound."""
    pool: Pool = engine.sync_engine.pool
    if isinstance(pool, AssertionPool):
        return 1
    if not isinstance(pool, QueuePool) or pool._max_overflow < 0 or not pool.size():  # noqa: SLF001 - no public way
        return None
    return pool.size() + pool._max_overflow  # noqa: SLF001


class Room:
    """The room that steps have in a pool.

    Args:
        connections: How many connections the pool gives out at once; None where there is no bound.
    """

    def __init__(self, connections: int | None) -> None:
        self.is_alone = connections == 1
        """Whether no other connection is there while a step holds one."""
        self._free = None if connections is None else asyncio.Semaphore(max(connections - 1, 1))

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait until a step may hold a connection, and hold its place."""
        if self._free is None:
            yield
        else:
            async with self._free:
                yield
