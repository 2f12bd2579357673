"""Time as the database sees it, without asking it each time.

Leases and timers are judged by the database's clock, so that hosts whose clocks disagree still agree on them. Asking it
costs a round trip; so it is asked now and then, and in between the event loop's monotonic clock carries the answer on.

An answer is as good as it was quick: the database looked at its clock at some moment between question and answer. So
each answer gives bounds, and further answers narrow them (Cristian, "Probabilistic clock synchronization", 1989). One
that took seconds, because the database was slow or this process stood still meanwhile, must not spoil what is known
better.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

_PRECISE = timedelta(seconds=1)
"""With bounds wider than this the database is asked again."""
_TRIES = 3
"""How often in a row; then one has to make do with what is known, until the next occasion."""
_DRIFT = 0.0005
"""Seconds by which the two clocks may part, per second."""


class DatabaseClock:
    """The database's time, carried on by the event loop's clock."""

    def __init__(self, ask: Callable[[], Awaitable[datetime]]) -> None:
        self._ask = ask
        self._bounds: tuple[datetime, datetime] | None = None
        self._zero: float | None = None  # when the event loop's clock stood at zero, in seconds since 1970
        self._measured = 0.0
        self._good_until = -math.inf

    async def sync(self, ask: Callable[[], Awaitable[datetime]] | None = None) -> None:
        """Ask the database again, in another way if one is given."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        now = await (ask or self._ask)()
        answered = loop.time()
        bounds = now - timedelta(seconds=answered), now - timedelta(seconds=asked)
        self._bounds = earliest, latest = self._narrowed(*bounds, answered)
        self._zero = (earliest + (latest - earliest) / 2).timestamp()
        self._measured = answered
        self._good_until = answered + (_PRECISE - (latest - earliest)).total_seconds() / (2 * _DRIFT)

    async def ready(self, ask: Callable[[], Awaitable[datetime]] | None = None) -> None:
        """Ask the database, if it has never been asked, or if its answer was too slow, or is too old, to tell.

        One that is away just then is asked another time.
        """
        for _ in range(_TRIES):
            if self.is_ready:
                return
            try:
                await self.sync(ask)
            except Exception:
                if self._bounds is None:
                    raise
                return

    @property
    def is_ready(self) -> bool:
        """Whether the bounds are narrow enough, although the clocks may have parted since they were measured."""
        return asyncio.get_running_loop().time() <= self._good_until

    def now(self) -> datetime:
        """Return the database's time, as far as it is known."""
        assert self._zero is not None, "the clock is made ready before the first saga is touched"
        return datetime.fromtimestamp(self._zero + asyncio.get_running_loop().time(), UTC)

    def at(self, moment: float) -> datetime:
        """Return what the database's time is when the event loop's clock says `moment`."""
        assert self._zero is not None, "the clock is made ready before the first saga is touched"
        return datetime.fromtimestamp(self._zero + moment, UTC)

    def _narrowed(self, earliest: datetime, latest: datetime, at: float) -> tuple[datetime, datetime]:
        """Return what old and new bounds allow for the time at the loop's zero; when they disagree, a clock was set."""
        if self._bounds is None:
            return earliest, latest
        drift = timedelta(seconds=_DRIFT * (at - self._measured))
        narrowed = max(earliest, self._bounds[0] - drift), min(latest, self._bounds[1] + drift)
        return narrowed if narrowed[0] <= narrowed[1] else (earliest, latest)
