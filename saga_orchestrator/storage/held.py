"""A connection kept between batches: to take one from the pool and give it back costs more than a batch does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .limits import HURRY, take

_LINGER = 0.02
"""How long, in seconds, an idle connection is held at least before it goes back to the pool; twice that at most."""

_LONGEST = 0.1
"""How long, in seconds, one is held in one piece: a pool with no other connection has others who wait for it."""


class HeldConnection:
    """The driver's own connection, for one user at a time: `async with held as driver`.

    One on which something failed is thrown away.

    Args:
        prepare: Makes a connection ready that has just been taken from the pool.
        tidy: Takes back what `prepare` did, where others would see it.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        prepare: Callable[[AsyncConnection], Awaitable[AsyncConnection]],
        tidy: Callable[[AsyncConnection], Awaitable[None]] | None = None,
    ) -> None:
        self._engine = engine
        self._prepare = prepare
        self._tidy = tidy
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._turn = asyncio.Lock()
        self._used, self._since = False, 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Any:
        await self._turn.acquire()
        try:
            if self._connection is None:
                await self._take()
        except BaseException:
            self._turn.release()
            raise
        return self._driver

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._used = True
        try:
            if kind is not None:
                await self._drop()
            elif asyncio.get_running_loop().time() - self._since > _LONGEST:
                self._let_go()
        finally:
            self._turn.release()

    async def aclose(self) -> None:
        """Give the connection back."""
        self._let_go()
        if self._closing:
            await asyncio.wait(self._closing, timeout=HURRY)

    async def _take(self) -> None:
        connection = await take(self._engine)
        try:
            connection = await self._prepare(connection)
            self._driver = (await connection.get_raw_connection()).driver_connection
        except BaseException:
            await connection.invalidate()
            await connection.close()
            raise
        self._connection, self._since = connection, asyncio.get_running_loop().time()
        self._look_again()

    def _look_again(self) -> None:
        """Give the connection back as soon as nobody has used it for a while."""
        if self._used or self._turn.locked():
            self._used = False
            self._idle = asyncio.get_running_loop().call_later(_LINGER, self._look_again)
        else:
            self._let_go()

    async def _drop(self) -> None:
        """Throw away a connection of which nobody knows what state it is in."""
        if (connection := self._detached()) is not None:
            await connection.invalidate()
            await connection.close()

    def _let_go(self) -> None:
        if (connection := self._detached()) is not None:
            closing = asyncio.get_running_loop().create_task(self._give_back(connection))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _give_back(self, connection: AsyncConnection) -> None:
        """Return a connection to the pool as it came from there, or, if it cannot be made so, not at all."""
        try:
            if self._tidy is not None:
                await self._tidy(connection)
        except Exception:  # noqa: BLE001 - the pool makes another one
            await connection.invalidate()
        finally:
            await connection.close()

    def _detached(self) -> AsyncConnection | None:
        """Return the connection, which is held no longer, if there is one."""
        if self._idle is not None:
            self._idle.cancel()
        connection, self._connection = self._connection, None
        return connection
