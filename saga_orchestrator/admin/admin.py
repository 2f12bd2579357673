"""The operator's API: look, and give orders.

An order is an event like any other: it is decided by the kernel under the saga's lock, recorded in the history with
who gave it and why, and either carried out or refused with a reason. When an order sets a saga going, it is driven
here, as `start` would, until it ends or waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, RootModel, ValidationError

from ..errors import SagaDefinitionError, SagaNotFoundError, SagaStateError
from ..kernel.codec import UnreadableStateError, decode
from ..kernel.forward_orders import SKIPPABLE
from ..kernel.order_events import (
    AbortOrdered,
    CancelOrdered,
    CompensateOrdered,
    Order,
    RetryOrdered,
    RewindOrdered,
    SkipOrdered,
    WaiveOrdered,
)
from ..kernel.pause import PauseOrdered, ResumeOrdered, StepOrdered
from ..kernel.state import SagaStatus
from ..runtime.engine import SagaEngine
from ..runtime.numbers import check_count, check_moment, limit_of
from ..runtime.orchestrator import SagaOrchestrator, engine_of
from ..runtime.snapshots import SagaAdminSnapshot, SagaSnapshot, admin_snapshot, snapshot
from ..runtime.tenure import initial_of
from ..runtime.texts import check_characters, check_name, check_saga_id
from ..storage.mixins import SagaStateMixin
from ..storage.rows import Head, SagaFilter
from .dirty import DirtySagas
from .ended import EndedSagas
from .statuses import statuses_of

ModelT = TypeVar("ModelT", bound=SagaStateMixin)
_LARGEST_PAGE = 1_000
_NOBODY = ""
"""Whom an order is for that names no step and finds none, or several: whoever waits by the time it is carried out is
not meant, and has not had its output checked."""


@dataclass(frozen=True)
class SagaPage:
    """Some sagas, newest first. `next_cursor` asks for those that follow; None: there are none."""

    items: list[SagaSnapshot]
    next_cursor: UUID | None


class SagaAdmin(DirtySagas, EndedSagas, Generic[ModelT]):
    """Looks at sagas and gives orders to them. Every order takes who gives it and why, for the history.

    All orders raise `SagaNotFoundError` for an unknown id, and `SagaStateError` when they are refused: the message
    names the saga, its status, and what is allowed.
    """

    def __init__(self, engine: SagaEngine[ModelT] | SagaOrchestrator[ModelT]) -> None:
        """Look after the sagas of an orchestrator, or of its engine.

        Raises:
            SagaDefinitionError: It is something else, most often the engine of SQLAlchemy.
        """
        self._engine: SagaEngine[ModelT] = engine_of(engine, "SagaAdmin")

    async def get_saga(self, saga_id: UUID) -> SagaAdminSnapshot:
        """Return everything about a saga: where it stands, its context and its history."""
        head = await self._head(saga_id)
        rows = (await self._engine.store.history([saga_id]))[saga_id]
        return admin_snapshot(head, rows, self._engine.registry, self._engine.payloads)

    async def list_sagas(
        self,
        *,
        status: SagaStatus | Iterable[SagaStatus] | None = None,
        saga_name: str | None = None,
        aggregation_id: str | None = None,
        trace_id: str | None = None,
        awaiting: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 100,
        cursor: UUID | None = None,
        timeout: timedelta | None = None,
    ) -> SagaPage:
        """Return sagas, newest first, `limit` (1 to 1000) at a time; pass `next_cursor` on for the next page.

        A saga that is created while you turn the pages is not seen; none is seen twice. ``awaiting="definition"`` finds
        the sagas that a process has put back because their definition has changed under the same version. The query may
        take `timeout` instead of the engine's `database_timeout`, for a filter that no index of yours serves.
        """
        check_count("limit", limit, most=_LARGEST_PAGE)
        seconds = limit_of(timeout)
        for name, moment in (("created_after", created_after), ("created_before", created_before)):
            if moment is not None:
                check_moment(name, moment)
        names = {"saga_name": saga_name, "aggregation_id": aggregation_id, "trace_id": trace_id, "awaiting": awaiting}
        for name, value in names.items():
            if value is not None:
                check_characters(name, value)
        if cursor is not None and not isinstance(cursor, UUID):
            raise SagaStateError(f"cursor is {cursor!r:.80}; give it the next_cursor of the page before.")
        wanted = SagaFilter(
            status=None if status is None else statuses_of(status),
            saga_name=saga_name,
            aggregation_id=aggregation_id,
            trace_id=trace_id,
            awaiting=awaiting,
            created_after=created_after,
            created_before=created_before,
        )
        await self._engine.ready_to_read()
        heads = await self._engine.store.heads(wanted, limit + 1, cursor, *seconds)
        items = [snapshot(head, self._engine.registry, self._engine.payloads) for head in heads[:limit]]
        return SagaPage(items, items[-1].id if len(heads) > limit else None)

    async def retry_step(
        self, saga_id: UUID, step_id: str | None = None, *, actor: str | None = None, reason: str | None = None
    ) -> None:
        """Try again, now and with a fresh count of attempts, what failed or waits for its next attempt.

        Needs a saga that is SUSPENDED, STUCK or FAILED and whose rollback has not begun. A child that has FAILED is
        tried again only while its parent can still go on: not once that has COMPLETED, or is COMPENSATED.
        """
        await self._refuse_orphan(saga_id)
        await self._order(saga_id, RetryOrdered(step_id=step_id, actor=actor, reason=reason))

    async def skip_step(
        self,
        saga_id: UUID,
        mock_output: BaseModel | dict[str, Any] | list[Any] | None = None,
        step_id: str | None = None,
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Go on without the step that failed, or waits: for its next attempt, for an event, or for a time.

        With `mock_output` the step counts as done by hand, and is undone like any other if the saga fails later.
        Without, it counts as not done; later steps see an empty output, which therefore must fit its model.
        """
        found = await self._skippable(saga_id, step_id)
        order = SkipOrdered(step_id=found or _NOBODY, acted=mock_output is not None, actor=actor, reason=reason)
        if found is not None:
            order = await self._with_mock(order, saga_id, found, mock_output)
        await self._order(saga_id, order)

    async def compensate_step(self, saga_id: UUID, *, actor: str | None = None, reason: str | None = None) -> None:
        """Undo the saga, or resume an undo that failed; one that has COMPLETED within its `undo_window`.

        Needs a saga that is SUSPENDED, STUCK, FAILED or COMPENSATING, that has something to undo and is not past its
        pivot.
        """
        await self._order(saga_id, CompensateOrdered(actor=actor, reason=reason))

    async def rewind(
        self,
        saga_id: UUID,
        to_step: str,
        *,
        patch: Mapping[str, Any] | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Undo back to a step, that one included, and go forward again from there.

        What comes after the step is undone in reverse order, and then run again, under new idempotency keys. What comes
        before it, or beside it, stays. Needs a saga on its way forward that is not past its pivot, and has come to the
        step; or one that has COMPLETED and whose `undo_window` is open. The deadline of a saga ends with its rewind.

        Args:
            to_step: A step, or a savepoint.
            patch: What is another from now on of the initial data, if that is a dict; `input_map`s see it.

        Raises:
            SagaStateError: The order is refused, or the initial data is no dict.
        """
        payloads = self._engine.payloads
        if patch is not None and not isinstance(payloads.load(initial_of(await self._head(saga_id))), dict):
            raise SagaStateError(f"Saga {saga_id}: patch= is for initial data that is a dict.")
        text = None if patch is None else payloads.dump(dict(patch), what="patch")
        await self._order(saga_id, RewindOrdered(step_id=to_step, patch=text, actor=actor, reason=reason))

    async def cancel(self, saga_id: UUID, *, actor: str | None = None, reason: str | None = None) -> None:
        """Let the steps in flight come to a known end, then undo the saga. Durable when it returns.

        Needs an active saga that is not past its pivot. Cancelling one that is being undone changes nothing.
        """
        await self._order(saga_id, CancelOrdered(actor=actor, reason=reason))

    async def abort(self, saga_id: UUID, *, actor: str | None = None, reason: str | None = None) -> None:
        """Stop an active saga at once, undoing nothing: FAILED, with its effects as residue.

        This works without the saga's definition, too: then its residue is every step that has ended or is in flight,
        save those that surely did not act.

        The answers of steps in flight are ignored from now on; such a step is in doubt, and part of the residue.
        """
        await self._order(saga_id, AbortOrdered(actor=actor, reason=reason))

    async def waive_step(
        self, saga_id: UUID, step_id: str, *, actor: str | None = None, reason: str | None = None
    ) -> None:
        """Accept that a step of the residue stays as it is; `actor`, who takes it on himself, is required.

        Of a saga that was aborted this works without its definition.
        """
        await self._order(saga_id, WaiveOrdered(step_id=step_id, actor=actor, reason=reason))

    async def pause(
        self, saga_id: UUID, before: str | None = None, *, actor: str | None = None, reason: str | None = None
    ) -> None:
        """Begin nothing of an active saga any more, until it is resumed. Durable when it returns.

        What is in flight goes on to its end and is recorded. In a pause no time is up (of a retry's pause, a wait, the
        deadline) and events are kept; what is due by then is due when the saga is resumed.

        Args:
            before: A step: pause when it is about to begin, and nothing of what would begin with it. A breakpoint is
                used up when the saga comes to it; several can be set.
        """
        await self._order(saga_id, PauseOrdered(step_id=before, actor=actor, reason=reason))

    async def resume(self, saga_id: UUID, *, actor: str | None = None, reason: str | None = None) -> None:
        """Let a saga in a pause go on: what is due is done at once, and what it waits for may have come meanwhile.

        Of a saga that is not in a pause, its breakpoints are forgotten.
        """
        await self._order(saga_id, ResumeOrdered(actor=actor, reason=reason))

    async def step(self, saga_id: UUID, *, actor: str | None = None, reason: str | None = None) -> None:
        """Let a saga in a pause begin what is ready, once, past any breakpoint; it is in a pause again afterwards.

        Needs one that has nothing in flight. Returns when what was begun has ended.
        """
        await self._order(saga_id, StepOrdered(actor=actor, reason=reason))

    async def _order(self, saga_id: UUID, order: Order) -> None:
        if order.actor is not None:
            check_name("actor", order.actor)
        if order.reason is not None:
            check_characters("reason", order.reason)
        check_saga_id(saga_id)
        await self._engine.advance(saga_id, order)

    async def _refuse_orphan(self, saga_id: UUID) -> None:
        """Refuse to let a child go forward again whose parent is over.

        Raises:
            SagaStateError: Its parent is.
        """
        head = await self._head(saga_id)
        if head.parent_id is None or head.status is not SagaStatus.FAILED:
            return
        parent = await self._engine.store.head(head.parent_id)
        if parent is None or (parent.status.is_terminal and parent.status is not SagaStatus.FAILED):
            stands = "gone" if parent is None else parent.status.value
            raise SagaStateError(
                f"Saga {saga_id} ({head.saga_name}): refused, it is FAILED and its parent {head.parent_id} is "
                f"{stands}, so nothing would be done with its result. Start a saga of its own, or waive what stands."
            )

    async def _head(self, saga_id: UUID) -> Head:
        check_saga_id(saga_id)
        await self._engine.ready_to_read()
        head = await self._engine.store.head(saga_id)
        if head is None:
            raise SagaNotFoundError(saga_id)
        return head

    async def _skippable(self, saga_id: UUID, step_id: str | None) -> str | None:
        """Return the step that the order is about, so that its output can be checked against its model."""
        if step_id is not None:
            return step_id
        try:
            state = decode((await self._head(saga_id)).state)
        except UnreadableStateError as error:
            raise SagaStateError(f"Saga {saga_id}: {error}. Only a change of the row itself can mend this.") from error
        waiting = [found for found, status in state.open.items() if isinstance(status, SKIPPABLE)]
        return waiting[0] if len(waiting) == 1 else None

    async def _with_mock(self, order: SkipOrdered, saga_id: UUID, step_id: str, mock: Any) -> SkipOrdered:
        """Return the order with the output that an operator gives for the step, or with an empty one."""
        head = await self._head(saga_id)
        definition = self._engine.registry.find(head.saga_name, head.definition_version)
        if definition is None:
            raise SagaStateError(f"Saga {saga_id}: '{head.saga_name}' is not registered in this process.")
        try:
            step = definition.step(step_id)
        except SagaDefinitionError as error:
            raise SagaStateError(f"Saga {saga_id}: {error}") from error
        model = step.output_model
        empty: Any = {} if step.fan is None and step.gathers is None else []
        try:
            output = mock if isinstance(mock, model) else model.model_validate(empty if mock is None else mock)
        except ValidationError as error:
            why = self._engine.payloads.why(error, model)
            misfit = SagaStateError(
                f"Saga {saga_id}: mock_output does not fit {model.__name__}, the output of step '{step_id}': {why}"
            )
        else:
            items = len(output.root) if isinstance(output, RootModel) and step.fan is not None else None
            stored = self._engine.payloads.dump(output, what="mock_output", model=model)
            return replace(order, output=stored, items=items)
        raise misfit  # where no error is handled, which would show the values
