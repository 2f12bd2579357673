"""Holding the sagas of one definition, in this process: the part of `SagaOrchestrator` that does."""

from __future__ import annotations

import asyncio
from abc import ABC
from typing import Any
from uuid import UUID

from ..errors import SagaError
from ..kernel.effects import Verdict
from ..kernel.order_events import Order
from ..kernel.pause import PauseOrdered, ResumeOrdered
from .engine import SagaEngine


class Pausing(ABC):
    """Holds definitions, and lets them go on."""

    _engine: SagaEngine[Any]

    async def pause_definition(
        self, name: str, hold: bool = False, *, actor: str | None = None, reason: str | None = None
    ) -> None:
        """Begin and take over no saga of this name in this process, until `resume_definition`.

        New starts are written and not begun: they are due, for a process that has not been told so, and for this one
        later. What is in flight here finishes; what waits for an event goes on when it comes, and orders are carried
        out. Other processes, and this one after a restart, know nothing of it.

        Args:
            hold: Pause what is in flight here, too, each saga as `SagaAdmin.pause` does: that is durable.

        Raises:
            SagaDefinitionError: The name is not registered.
        """
        self._engine.registry.hold(name)
        driven = [i for i, driver in self._engine.drivers.items() if driver.tenure.saga_name == name] if hold else []
        for saga_id in driven:
            if await self._ordered(saga_id, PauseOrdered(actor=actor, reason=reason)):
                self._engine.registry.held[name].add(saga_id)

    async def resume_definition(self, name: str, *, actor: str | None = None, reason: str | None = None) -> None:
        """Let the sagas of this name begin again in this process, and resume those that were paused with it.

        What has been left meanwhile is due. Those that are resumed are driven until they end or wait.
        """
        paused = self._engine.registry.let_go(name)
        order = ResumeOrdered(actor=actor, reason=reason)
        await asyncio.gather(*(self._ordered(saga_id, order) for saga_id in paused))

    async def _ordered(self, saga_id: UUID, order: Order) -> bool:
        """Give an order to one of several sagas; return whether it has changed something. One that is over is left."""
        try:
            return await self._engine.advance(saga_id, order) == Verdict.APPLIED.value
        except SagaError:
            return False
