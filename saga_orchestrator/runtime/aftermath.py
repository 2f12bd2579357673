"""The owner of a saga that has failed, while a hook of its author's is called about that.

Which hook is called stands in the row: the action is claimed under a lease before the call, by the order of an operator
or, where the definition wants it, by the owner that finds the saga FAILED and due. A process that dies in between
leaves the claim and a row that is due, so the next owner calls the same hook again, and no other action begins before.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from loguru import logger

from ..definition.failure import DirtyState, FailureAction
from ..definition.io import Payloads
from ..errors import SagaStateError
from ..kernel.order_events import ActionEnded
from ..kernel.state import Action, SagaStatus
from ..storage.rows import Head, Move
from .claims import Claims, grip_of
from .driver import Driver
from .error_text import describe, log_failure, show
from .failing import CompensationResult, Outcome, call_hook, dirty_state_of
from .moves import compose, fold, is_at_work, is_left_to_act, put_off, read_state, released

if TYPE_CHECKING:
    from .tenure import Tenure
    from .tools import Tools

_SOONEST, _LATEST = timedelta(seconds=1), timedelta(hours=1)


class Aftermath(Driver):
    """Carries out the action that is claimed on one saga, and ends the claim.

    Attributes:
        outcome: The hook's result. It is None while the hook is at work, and after a call that was cut off.
    """

    def __init__(self, tenure: Tenure, tools: Tools, claims: Claims, payloads: Payloads) -> None:
        super().__init__(tenure, tools)
        self._claims, self._payloads = claims, payloads
        self.outcome: Outcome | None = None

    async def run(self) -> None:
        """Call the hook, and record what it has come to."""
        self._is_driven = True
        try:
            await self._act()
        finally:
            self._is_driven = False
            if self._stopped is not None:
                self._stopped.set()

    async def release(self) -> None:
        """Cut the hook off, and leave the saga, with the claim, to the next owner."""
        await super().release()
        if self.outcome is None:
            await self.tenure.store.advance(self.tenure.saga_id, self._judge_release)

    def refresh(self) -> None:
        """Ignore the moves of others: no order moves the saga while its action is claimed."""

    async def _act(self) -> None:
        tenure = self.tenure
        action = tenure.state.action
        assert action is not None
        dirty = await dirty_state_of(tenure.store, self._claims.registry, self._payloads, tenure.saga_id)
        if self._lost:
            return
        hook: asyncio.Task[Any] = asyncio.get_running_loop().create_task(self._call(action, dirty))
        self._tasks[action.name] = hook  # what alone is cut off, and no transaction of ours
        await asyncio.wait([hook])
        if not hook.cancelled():
            self.outcome = outcome = hook.result()
            came_off, message = outcome.result.success, outcome.result.message
            if not came_off and self._payloads.codec is not None:  # the message may quote what a codec encrypts
                message = describe(outcome.error or SagaStateError(message), payloads=self._payloads)
            end = ActionEnded(came_off=came_off, error=message, actor=action.actor, reason=action.reason)
            await tenure.store.advance(tenure.saga_id, lambda head, now: self._judge_end(head, now, end))

    async def _call(self, action: Action, dirty: DirtyState | None) -> Outcome:
        saga_id = self.tenure.saga_id
        if dirty is None:
            return Outcome(CompensationResult(False, f"saga {saga_id} is not dirty"))
        try:
            result = await call_hook(self.tenure.definition.failure, FailureAction(action.name), dirty)
        except Exception as error:  # noqa: BLE001 - the author's code
            log_failure(error, f"saga {saga_id}: its {action.name} failed", self._payloads, "WARNING")
            return Outcome(CompensationResult(False, show(error, self._payloads)), error)
        if not result.success:
            told = show(SagaStateError(result.message), self._payloads)
            logger.warning("saga {}: its {} has not come off: {}", saga_id, action.name, told)
        return Outcome(result)

    def _judge_end(self, head: Head, now: datetime, end: ActionEnded) -> Move | None:
        """End the claim, unless another owner has the saga by now; have the engine's own action tried again later."""
        if head.step_execution_token != self.tenure.token:
            logger.warning("saga {}: its hook ended after the lease, and another owner has the saga", head.id)
            return None
        definition = self.tenure.definition
        action = self.tenure.state.action
        done = fold(definition.graph, read_state(definition, head), head.last_error, [end], now)
        if not done.moved or action is None:
            return None
        ownership = released(definition.graph, done.state, now)
        if head.status is SagaStatus.FAILED and not (end.came_off and action.closes):
            ownership = ownership._replace(finished_at=head.finished_at)
        is_done = end.came_off and action.name == definition.failure.action
        if action.again and not is_done and is_left_to_act(definition, done.state):
            pause = min(max(now - (head.finished_at or now), _SOONEST), _LATEST)
            ownership = ownership._replace(deadline_at=now + pause)
        return compose(grip_of(head, definition), done, now, ownership)

    def _judge_release(self, head: Head, now: datetime) -> Move | None:
        if head.step_execution_token != self.tenure.token:
            return None
        return put_off(head, now, now)


def driver_of(tenure: Tenure, tools: Tools, claims: Claims, payloads: Payloads) -> Driver:
    """Return who drives a saga that has just been taken."""
    return Driver(tenure, tools) if is_at_work(tenure.state) else Aftermath(tenure, tools, claims, payloads)


def leaves_more(driver: Driver) -> bool:
    """Return whether a saga has just failed, and its hook is still to be called."""
    return not isinstance(driver, Aftermath) and is_left_to_act(driver.tenure.definition, driver.tenure.state)
