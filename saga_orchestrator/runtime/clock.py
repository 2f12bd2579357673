"""Time as the database sees it, without asking it each time.

Leases and timers are judged by the database's clock, so that hosts whose clocks disagree still agree on them. Asking it
costs a round trip; so it is asked now and then, and in between the event loop's monotonic clock carries the answer on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta


class DatabaseClock:
    """The database's time, carried on by the event loop's clock."""

    def __init__(self, ask: Callable[[], Awaitable[datetime]]) -> None:
        self._ask = ask
        self._base: tuple[datetime, float] | None = None

    async def sync(self) -> None:
        """Ask the database again."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        now = await self._ask()
        self._base = now, (asked + loop.time()) / 2

    async def ready(self) -> None:
        """Ask the database, if it has never been asked."""
        if self._base is None:
            await self.sync()

    def now(self) -> datetime:
        """Return the database's time, as far as it is known."""
        assert self._base is not None, "the clock is made ready before the first saga is touched"
        base, measured = self._base
        return base + timedelta(seconds=asyncio.get_running_loop().time() - measured)
