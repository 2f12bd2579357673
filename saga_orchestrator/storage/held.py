"""A connection kept between batches: to take one from the pool and give it back costs more than a batch does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_LINGER = 0.02
"""How long, in seconds, an idle connection is held before it goes back to the pool."""


class HeldConnection:
    """The driver's own connection, for one user at a time.

    Args:
        prepare: Makes a connection ready that has just been taken from the pool.
    """

    def __init__(self, engine: AsyncEngine, prepare: Callable[[AsyncConnection], Awaitable[AsyncConnection]]) -> None:
        self._engine = engine
        self._prepare = prepare
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        """Lend the driver's connection; one on which something failed is thrown away."""
        async with self._turn:
            driver = await self._take()
            try:
                yield driver
            except BaseException:
                await self._drop()
                raise
            self._idle = asyncio.get_running_loop().call_later(_LINGER, self._let_go)

    async def aclose(self) -> None:
        """Give the connection back."""
        self._let_go()
        await asyncio.gather(*self._closing)

    async def _take(self) -> Any:
        if self._idle is not None:
            self._idle.cancel()
        if self._connection is None:
            connection = await self._prepare(await self._engine.connect())
            self._driver = (await connection.get_raw_connection()).driver_connection
            self._connection = connection
        return self._driver

    async def _drop(self) -> None:
        """Throw away a connection of which nobody knows what state it is in."""
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
