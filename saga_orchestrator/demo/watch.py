"""Watching a run: count the sagas, kill a worker when half of them have ended, and wait for the rest."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from .. import SagaStatus
from .crew import Crew
from .database import DemoError
from .progress import Counts, Screen
from .saga import LEASE, OrderSaga

_LOOK = 0.1
_STANDSTILL = 60
"""Seconds without any change after which a run has failed: far longer than any lease, timeout or pause in it."""


@dataclass
class Watch:
    """One run, watched by the process that placed its orders.

    Attributes:
        orphans: The sagas that the killed worker was driving; None until it is killed.
    """

    engine: AsyncEngine
    crew: Crew
    screen: Screen
    total: int
    orphans: list[UUID] | None = field(default=None, init=False)

    async def until_all_ended(self) -> None:
        """Return when no saga will move any more.

        Raises:
            DemoError: A worker ended by itself, or nothing moves although it should.
        """
        counts, changed = Counts(), time.monotonic()
        while counts.ended < self.total:
            await asyncio.sleep(_LOOK)
            self.crew.check()
            before, counts = counts, await self._count()
            changed = changed if counts == before else time.monotonic()
            if time.monotonic() - changed > _STANDSTILL:
                raise DemoError(
                    f"Nothing has moved for {_STANDSTILL} s; {self.total - counts.ended} sagas have not ended."
                )
            self.screen.show(counts, self.total)
            if self.orphans is None and self.total <= 2 * counts.ended < 2 * self.total:
                await self._kill_the_busiest(counts)

    async def _count(self) -> Counts:
        by_status = select(OrderSaga.status, func.count()).group_by(OrderSaga.status)
        async with self.engine.connect() as connection:
            return Counts({SagaStatus(status): count for status, count in await connection.execute(by_status)})

    async def _kill_the_busiest(self, counts: Counts) -> None:
        """Kill the worker that holds the most sagas, so that there is something to take over."""
        held = Counter(pid for pid, _ in await self._leases())
        victim = max(self.crew.pids, key=lambda pid: held[pid])
        await self.crew.kill(victim)
        self.orphans = [saga_id for pid, saga_id in await self._leases() if pid == victim]
        self.screen.say(
            f"         Worker {victim} is killed (SIGKILL) with {counts.ended} of {self.total} orders ended and "
            f"{len(self.orphans)} in its hands; their leases end within {LEASE.total_seconds():g} s."
        )
        if not self.crew.pids:
            await self.crew.hire(1)

    async def _leases(self) -> list[tuple[int, UUID]]:
        """Return who drives which saga: the owner of a lease is ``host:pid:chance``."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(select(OrderSaga.lease_owner, OrderSaga.id))
            return [(int(owner.split(":")[-2]), saga_id) for owner, saga_id in rows if owner is not None]
