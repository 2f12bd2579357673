"""Rounds of work that nobody waits for: one at a time, each within a budget, and ended when the engine stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .background import Background

IsOver = Callable[[], bool]
"""Returns whether a round is to begin nothing more."""


class Rounds:
    """Does rounds of one kind of work in the background.

    Args:
        seconds: The budget of a round. It begins nothing more after that.
        work: Does one round of at most so many items, until it is over.
    """

    def __init__(self, background: Background, seconds: float, work: Callable[[int, IsOver], Awaitable[None]]) -> None:
        self._background, self._seconds, self._work = background, seconds, work
        self._rounds: list[asyncio.Task[Any]] = []
        self._stop = asyncio.Event()

    @property
    def under_way(self) -> list[asyncio.Task[Any]]:
        """The round at work, and the one that comes next, if there are any."""
        return [task for task in self._rounds if not task.done()]

    def begin(self, limit: int) -> None:
        """Do a round from now on, or when the one at work has ended; one that waits for that already will do."""
        before = self.under_way
        if len(before) < 2:  # noqa: PLR2004 - the one at work, and the next
            self._rounds = [*before, self._background.begin(self._do(before, limit, self._stop))]

    def end(self) -> list[asyncio.Task[Any]]:
        """Have the rounds that have begun end with the item at hand; return them."""
        self._stop.set()
        self._stop = asyncio.Event()
        return self.under_way

    async def _do(self, before: Sequence[asyncio.Task[Any]], limit: int, stop: asyncio.Event) -> None:
        if before:
            await asyncio.wait(before)
        if not stop.is_set():
            loop = asyncio.get_running_loop()
            until = loop.time() + self._seconds
            await self._work(limit, lambda: stop.is_set() or loop.time() >= until)
