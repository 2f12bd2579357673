"""Leases: how an owner keeps its sagas, and how it learns that it has lost them.

A lease is the row's `deadline_at`: until then, by the database's clock, nobody else claims the saga. One beat every
quarter of the lease extends, in one statement, every lease that is older than that. Young sagas are never renewed:
most are over by then.

The trust window. An owner believes in its lease only until the time at which it *asked* for it plus its length, by
its own monotonic clock, less a margin. A beat that is late, a database that is away, a renewal that passed over a
locked row: all the same. When the belief runs out the owner stops its own steps, before the lease can be anybody
else's. If it was merely slow, nothing is lost: the saga is claimed again like any other whose owner vanished. The
execution token makes the result right even when the stop comes too late: a stale owner's writes are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from loguru import logger

from ..storage.contract import Store
from .background import cut_off
from .clock import DatabaseClock

if TYPE_CHECKING:
    from .driver import Driver

_BEATS_PER_LEASE = 4
_AT_ONCE = 3
"""How many renewals may be under way."""
_MARGIN = 0.1
"""The part of a lease, at its end, in which its owner does not believe in it any more."""


class LeaseKeeper:
    """Renews the leases of one engine's drivers.

    Args:
        drivers: The drivers, by saga; looked at anew with every beat.
    """

    def __init__(
        self, owner: str, lease: timedelta, store: Store, clock: DatabaseClock, drivers: Mapping[UUID, Driver]
    ) -> None:
        self.owner = owner
        self.lease = lease
        self._store = store
        self._clock = clock
        self._drivers = drivers
        self._task: asyncio.Task[None] | None = None
        self._renewing: dict[asyncio.Task[None], float] = {}
        """The renewals that are under way, with the time by which each should have ended."""
        self.is_stuck: Callable[[], bool] = lambda: False
        """Returns whether commits make no progress; then no lease is renewed, and others take the sagas over."""
        self.surrender: Callable[[UUID, UUID], None] = lambda *_: None
        """Takes note of a saga that is given up because the database was away."""
        self._late = 0.0
        """By how much the beats came late since a renewal has succeeded: what the event loop, and no database, did."""

    def wake(self) -> None:
        """Beat from now on, until no saga is left."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep(), name="saga-leases")

    def lasts(self, lease_until: float) -> bool:
        """Return whether a lease can be believed in until the next beat."""
        length = self.lease.total_seconds()
        return lease_until - length * (_MARGIN + 1 / _BEATS_PER_LEASE) > asyncio.get_running_loop().time()

    def trusted_until(self, lease_until: float) -> datetime:
        """Return until when, by the database's clock, a lease can be believed in that ends then by the loop's."""
        return self._clock.at(lease_until - self.lease.total_seconds() * _MARGIN)

    async def aclose(self) -> None:
        """Stop beating."""
        await cut_off(self._task, *self._renewing)

    async def _keep(self) -> None:
        """Beat on time, however long a renewal takes: what cannot be renewed has to be let go of all the same."""
        try:
            while self._drivers:
                beat, before = self.lease.total_seconds() / _BEATS_PER_LEASE, asyncio.get_running_loop().time()
                await asyncio.sleep(beat)
                self._late += asyncio.get_running_loop().time() - before - beat
                self._let_go()
                self._renew_soon()
        finally:
            self._task = None

    def _renew_soon(self) -> None:
        """Begin a renewal, also beside one that hangs: another connection may work. A few at once are enough."""
        loop, length = asyncio.get_running_loop(), self.lease.total_seconds()
        if self.is_stuck():
            logger.warning("no lease is renewed: commits have made no progress for as long as a lease lasts")
            return
        if sum(overdue > loop.time() for overdue in self._renewing.values()) >= _AT_ONCE:
            return
        task = loop.create_task(self._renew_old(), name="saga-renewal")
        self._renewing[task] = loop.time() + length * (1 + 1 / _BEATS_PER_LEASE)
        task.add_done_callback(self._renewing.pop)

    def _let_go(self) -> None:
        """Stop the steps of every saga whose lease may end before the next beat."""
        for saga_id, driver in tuple(self._drivers.items()):
            if not self.lasts(driver.tenure.lease_until):
                if driver.is_lost:
                    continue
                logger.error("saga {}: its lease could not be renewed in time; its steps are stopped", saga_id)
                driver.lose()
                if self._late < self.lease.total_seconds() * _MARGIN:
                    self.surrender(saga_id, driver.tenure.token)

    async def _renew_old(self) -> None:
        """Renew every lease that is old enough."""
        asked, length = asyncio.get_running_loop().time(), self.lease.total_seconds()
        young = asked + length * (1 - 0.5 / _BEATS_PER_LEASE)
        if old := {i: driver for i, driver in self._drivers.items() if driver.tenure.lease_until < young}:
            try:
                async with asyncio.timeout(length):
                    await self._renew(old, asked + length)
            except Exception as error:  # noqa: BLE001 - whatever it was, the belief runs out
                logger.warning("renewing {} leases failed: {!r}", len(old), error)

    async def _renew(self, old: Mapping[UUID, Driver], until: float) -> None:
        await self._clock.sync()
        alive = await self._store.renew(self.owner, old, self._clock.now() + self.lease)
        self._late = 0.0
        for saga_id, revision in alive.items():
            driver = old[saga_id]
            driver.tenure.lease_until = max(until, driver.tenure.lease_until)
            if revision > driver.tenure.revision:
                driver.refresh()
        for saga_id in old.keys() - alive.keys():  # passed over, or no longer ours: the row says which
            old[saga_id].refresh()
