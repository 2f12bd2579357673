"""One simulated process: an orchestrator, a worker, and whoever calls them there."""

from __future__ import annotations

import asyncio
from contextvars import Context
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from saga_orchestrator import SagaAdmin, SagaOrchestrator, SagaWorker
from saga_orchestrator.testing.simulation import Host

from .database import Line
from .plan import LEASE

if TYPE_CHECKING:
    from .world import World


class Machine:
    """A process that comes back after a while whenever it goes down, each time as a new one."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self._name = name
        self._boots = 0
        self.boot()

    @property
    def is_up(self) -> bool:
        """Whether it can be asked for something, with any hope of an answer."""
        return self.host.is_running and not self._stopping

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was begun here goes on, not even what its caller has turned his back on."""
        return not self.orchestrator.engine.background._tasks

    def boot(self) -> None:
        """Begin anew."""
        self._boots += 1
        self._stopping = False
        self.host = Host(f"{self._name}.{self._boots}")
        self.line = Line(self)
        self.orchestrator: SagaOrchestrator[Any] = self.host.run(
            lambda: SagaOrchestrator(store=self.line, execution_lease=timedelta(seconds=LEASE))
        )
        forgotten = self.world.random.choice(sorted(self.world.definitions)) if self._is_old() else None
        for name, definition in self.world.definitions.items():
            if name != forgotten:
                self.orchestrator.register(name, definition)
        self.admin: SagaAdmin[Any] = SagaAdmin(engine=self.orchestrator.engine)
        drain = timedelta(seconds=self.world.random.choice((0, 0, 2)))
        poll = timedelta(seconds=2)
        self.worker = SagaWorker(self.orchestrator, poll_interval=poll, concurrency=4, drain=drain)
        self._working = self.host.spawn(self.worker.run(handle_signals=False))
        self.world.simulation.note(f"{self.host.name} is up")

    def _is_old(self) -> bool:
        """Return whether an old release comes up here; the first machine is always of the newest."""
        return self._name != "A" and self.world.rolls(self.world.plan.old_releases)

    async def boundary(self, where: str, crashes: float, *, counted: bool = True) -> None:
        """Perhaps end here, or stand still here for a while: a place where a real process might."""
        world = self.world
        if world.calm:
            return
        if world.rolls(crashes) or (counted and world.is_the_chosen_boundary()):
            self.crash(where)
            await asyncio.get_running_loop().create_future()
        if world.rolls(world.plan.freezes):
            self.freeze(where)
            await asyncio.sleep(0)

    def crash(self, where: str) -> None:
        """Be killed here and now."""
        self.world.simulation.note(f"CRASH at {where}")
        self.host.kill()
        self.world.ledger.forget(self.host)
        self._come_back()

    def freeze(self, where: str) -> None:
        """Stand still, for less than a lease or for more."""
        seconds = self.world.random.uniform(0.1, 3) * LEASE
        self.world.simulation.note(f"FREEZE for {seconds:.1f} s at {where}")
        self.line.faults += 1
        self.host.freeze(seconds)

    def shut_down(self) -> None:
        """Be asked to stop, as by a deployment."""
        if self.is_up:
            self._stopping = True
            self.host.spawn(self._shut_down())

    async def _shut_down(self) -> None:
        self.world.simulation.note("SHUTDOWN")
        faults, drivers = self.line.faults, dict(self.orchestrator.engine.drivers)
        lasting = {i for i, driver in drivers.items() if driver.tenure.lease_until > self._time() + 0.75 * LEASE}
        before = self._time()
        await self._end_work()
        await self.orchestrator.aclose()
        self.world.simulation.note("is down")
        if self.line.faults == faults and self._time() - before < LEASE / 4:
            self._check_leases(lasting)
        self._come_back()
        self.host.kill()  # a process that has ended has nobody in it who might try again

    async def stop(self) -> None:
        """Stop for good, at the end."""
        self._stopping = True
        self.worker.stop()
        await asyncio.wait([self._working])
        await self.orchestrator.aclose()

    async def _end_work(self) -> None:
        if self.world.rolls(0.5):
            self.worker.stop()
        else:
            self._working.cancel()
        await asyncio.wait([self._working])

    def _check_leases(self, driven: set[Any]) -> None:
        """A process that was allowed to end keeps nothing: nobody has to wait for its leases to run out."""
        for saga_id in sorted(driven):
            if self.world.database.rows[saga_id].lease_owner == self.orchestrator.engine.owner:
                self.world.blame(f"{self.world.label(saga_id)}: {self.host.name} has ended and not let go of it")

    def _come_back(self) -> None:
        delay = self.world.random.uniform(0.1, 8)
        asyncio.get_running_loop().call_later(delay, self.boot, context=Context())

    def _time(self) -> float:
        return asyncio.get_running_loop().time()
