"""The owner of a saga that has failed, and whose definition wants its own code to be called about that.

That it is still to be called is said by the row itself, since the commit by which the saga failed: it has FAILED and is
due all the same. So whoever finds it takes it under a lease, as any other saga, calls the hook, and records this; then
the row is due no more. A process that dies in between leaves it due, and the hook is called again.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from loguru import logger

from ..definition.failure import DirtyState, FailureAction
from ..definition.io import Payloads
from ..errors import SagaStateError
from ..kernel.order_events import FailureOrdered
from ..storage.rows import Head, Move
from .claims import Claims, Intake
from .driver import Driver
from .failing import call_hook, dirty_state_of
from .moves import is_at_work, is_left_to_act, put_off

if TYPE_CHECKING:
    from .tenure import Tenure
    from .tools import Tools

ENGINE = "engine"
"""Who has given the order, where nobody did but the definition."""
_SOONEST, _LATEST = timedelta(seconds=1), timedelta(hours=1)


class Aftermath(Driver):
    """Carries out what is to be done about one saga that has failed. One that does not come off is tried again."""

    def __init__(self, tenure: Tenure, tools: Tools, claims: Claims, payloads: Payloads) -> None:
        super().__init__(tenure, tools)
        self._claims, self._payloads = claims, payloads
        self._is_done = self._has_come_off = False

    async def run(self) -> None:
        """Call the hook, and record that it has come off, or put it off until later."""
        self._is_driven = True
        try:
            await self._act()
        finally:
            self._is_driven = False
            if self._stopped is not None:
                self._stopped.set()

    async def release(self) -> None:
        """Cut the hook off, and leave the saga to whoever looks next."""
        await super().release()
        if not self._is_done:
            await self._put_off(timedelta(0))

    def refresh(self) -> None:
        """Nobody else's move matters here: what it comes to is judged by the row."""

    async def _act(self) -> None:
        tenure = self.tenure
        dirty = await dirty_state_of(tenure.store, self._claims.registry, self._payloads, tenure.saga_id)
        if self._lost:
            return
        hook = asyncio.get_running_loop().create_task(self._call(dirty))
        self._tasks[tenure.definition.failure.action] = hook  # what alone is cut off, and no transaction of ours
        await asyncio.wait([hook])
        if hook.cancelled():
            return
        self._is_done = True
        await (self._record() if self._has_come_off else self._put_off(None))

    async def _call(self, dirty: DirtyState | None) -> None:
        if dirty is None:  # somebody was quicker
            return
        plan = self.tenure.definition.failure
        try:
            result = await call_hook(plan, plan.action, dirty)
        except Exception as error:  # noqa: BLE001 - the author's code
            logger.opt(exception=error).warning("saga {}: its {} failed", dirty.saga_id, plan.action.value)
            return
        self._has_come_off = result.success
        if not result.success:
            logger.warning("saga {}: {}", dirty.saga_id, result.message)

    async def _record(self) -> None:
        action = self.tenure.definition.failure.action
        closed, reason = action is FailureAction.CLOSE_ALL, f"on_failure={action.value}"
        order = FailureOrdered(action=action.value, closed=closed, actor=ENGINE, reason=reason)
        intake = Intake(self._claims, order)
        head, _ = await self.tenure.store.advance(self.tenure.saga_id, intake.judge)
        try:
            intake.raise_if_refused(head)
        except SagaStateError as error:  # an operator has set it going meanwhile
            logger.warning("saga {}: {} was called, and not recorded: {}", head.id, action.value, error)

    async def _put_off(self, pause: timedelta | None) -> None:
        """Have somebody look again; without a pause that is said, when as much time has passed as since it failed."""

        def judge(head: Head, now: datetime) -> Move | None:
            if head.step_execution_token != self.tenure.token:
                return None
            grown = min(max(now - (head.finished_at or now), _SOONEST), _LATEST)
            return put_off(head, now, now + (grown if pause is None else pause))

        await self.tenure.store.advance(self.tenure.saga_id, judge)


def driver_of(tenure: Tenure, tools: Tools, claims: Claims, payloads: Payloads) -> Driver:
    """Return who drives a saga that has just been taken."""
    return Driver(tenure, tools) if is_at_work(tenure.state) else Aftermath(tenure, tools, claims, payloads)


def leaves_more(driver: Driver) -> bool:
    """Return whether a saga has just failed, and its hook is still to be called."""
    return not isinstance(driver, Aftermath) and is_left_to_act(driver.tenure.definition, driver.tenure.state)
