"""Sagas that are half done, for operators: which they are, what stands of each, and a closed menu of what to do.

The part of `SagaAdmin` that answers by values: what comes of an action is for the operator to read, and no error.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from ..definition.failure import DirtyState, FailureAction
from ..errors import SagaStateError
from ..kernel.order_events import CompensateOrdered, FailureOrdered, Order
from ..kernel.state import SagaStatus
from ..runtime.engine import SagaEngine
from ..runtime.error_text import hide_message
from ..runtime.failing import DIRTY, CompensationResult, dirty_state_of, hook_of, is_dirty, without_hook
from ..runtime.numbers import check_count, limit_of
from ..runtime.texts import check_characters, check_name
from ..runtime.watching import ended_or_held_up
from ..storage.rows import SagaFilter

_PAGE = 500


class DirtySagas:
    """Looks after the sagas of one engine that are stuck, or have failed and left effects standing."""

    _engine: SagaEngine[Any]

    async def dirty_sagas(
        self, *, saga_name: str | None = None, limit: int = 1000, timeout: timedelta | None = None
    ) -> list[UUID]:
        """Return the ids of up to `limit` sagas that are dirty, newest first.

        Dirty is one that is STUCK, or that has FAILED with a residue. It is so until its effects are undone or waived:
        to be told of it, or to leave it alone, changes nothing. Each page of 500 is a query of its own, which may take
        `timeout` instead of the engine's `database_timeout`.
        """
        check_count("limit", limit, least=0)
        seconds = limit_of(timeout)
        if saga_name is not None:
            check_characters("saga_name", saga_name)
        wanted, found, before = SagaFilter(status=DIRTY, saga_name=saga_name), list[UUID](), None
        await self._engine.ready_to_read()
        while len(found) < limit:
            heads = await self._engine.store.heads(wanted, _PAGE, before, *seconds)
            found += [head.id for head in heads if is_dirty(head, self._engine.registry)]
            if len(heads) < _PAGE:
                break
            before = heads[-1].id
        return found[:limit]

    async def dirty_state(self, saga_id: UUID) -> DirtyState | None:
        """Return which step of a dirty saga has failed, and what the steps returned whose effects stand.

        None of a saga that is not dirty, or that nobody knows.
        """
        engine = self._engine
        await engine.ready_to_read()
        return await dirty_state_of(engine.store, engine.registry, engine.payloads, saga_id)

    async def execute_compensation(
        self, saga_id: UUID, action: FailureAction | str, *, actor: str | None = None, reason: str | None = None
    ) -> CompensationResult:
        """Do one of four things about a dirty saga, and return what has come of it.

        A saga that is not dirty is left alone, and so is one on which an action is under way: nothing is compensated
        twice. An action is claimed in the saga's row before its hook is called; until the hook has ended, the saga
        obeys no other order, and after a crash the next owner calls the same hook again. REVERT undoes the saga by its
        compensations, and waits until that has ended, or waits for a child that is STUCK. CLOSE_ALL calls the
        definition's `close_all`. Both leave it clean only if they have succeeded, and can be tried again otherwise.
        ALERT_HUMAN calls `alert_human`; it and NOOP leave the saga dirty. What has been done stands in the history,
        with who and why; CLOSE_ALL needs an `actor`, who answers for what the saga leaves behind.

        Raises:
            Exception: Whatever a hook raises; the saga stays dirty.
            SagaError: `actor` or `reason` cannot be stored.
        """
        if actor is not None:
            check_name("actor", actor)
        if reason is not None:
            check_characters("reason", reason)
        if action not in list(FailureAction):
            return CompensationResult(False, f"{action!r} is no action; the actions are {', '.join(FailureAction)}")
        dirty = await self.dirty_state(saga_id)
        if dirty is None:
            return CompensationResult(False, f"saga {saga_id} is not dirty")
        if action == FailureAction.REVERT:
            return await self._revert(saga_id, CompensateOrdered(actor=actor, reason=reason))
        is_closing, calls = action == FailureAction.CLOSE_ALL, action != FailureAction.NOOP
        order = FailureOrdered(action=str(action), calls=calls, closes=is_closing, actor=actor, reason=reason)
        if is_closing and not actor:
            return CompensationResult(False, "CLOSE_ALL needs the name of the operator who answers for it: actor=")
        return await self._call(dirty, order)

    async def _revert(self, saga_id: UUID, order: CompensateOrdered) -> CompensationResult:
        if (refusal := await self._refused(saga_id, order)) is not None:
            return refusal
        head, holder = await ended_or_held_up(self._engine, saga_id)
        if holder is not None:
            return CompensationResult(
                False,
                f"its rollback waits for saga {holder}, a child, which is STUCK; resolve that one first",
            )
        if head.status is SagaStatus.COMPENSATED:
            return CompensationResult(True, "everything is undone")
        return CompensationResult(
            False, f"its rollback has ended as {head.status.value}: {hide_message(head.last_error)}"
        )

    async def _call(self, dirty: DirtyState, order: FailureOrdered) -> CompensationResult:
        head = await self._engine.store.head(dirty.saga_id)
        definition = head and self._engine.registry.find(head.saga_name, head.definition_version)
        if not definition:
            return CompensationResult(False, f"'{dirty.saga_name}' is not registered in this process")
        if not order.calls:
            return await self._refused(dirty.saga_id, order) or CompensationResult(True, "left as it is")
        action = FailureAction(order.action)
        if hook_of(definition.failure, action) is None:
            return CompensationResult(False, without_hook(dirty.saga_name, action))
        try:
            result, error = await self._engine.deal(dirty.saga_id, order)
        except SagaStateError as refused:
            return CompensationResult(False, str(refused))
        if error is not None:
            raise error
        return result

    async def _refused(self, saga_id: UUID, order: Order) -> CompensationResult | None:
        try:
            await self._engine.advance(saga_id, order)
        except SagaStateError as error:
            return CompensationResult(False, str(error))
        return None
