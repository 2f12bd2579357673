"""The children of an engine's sagas: started in their parent's transaction, looked at, and ordered back.

A child is found by the key that it was started under, which names its parent and the step. So what has been started is
known wherever the parent goes on, whatever has been lost of the step that did it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ..definition.child import Child, ChildKey
from ..definition.context import StepContext
from ..definition.io import Payloads
from ..definition.saga import SagaDefinition
from ..errors import PermanentError, SagaDefinitionError
from ..kernel.events import Event, Ticked
from ..kernel.order_events import CancelOrdered, CompensateOrdered
from ..kernel.projection import stands, status_of
from ..kernel.state import Course, SagaStatus, State
from ..storage.contract import Store
from ..storage.rows import Head, Judge, Move
from .after_commit import after_commit
from .background import Background
from .birth import Beginning, StartResult
from .claims import Claims, Intake, unknown_definition
from .error_text import open_message
from .moves import read_state
from .registry import Registry
from .tenure import Past, patiently
from .texts import LONGEST_NAME

_OVER_BY_ROW = (SagaStatus.FAILED, SagaStatus.COMPENSATED)
"""How a child has ended that is over for its parent also where its definition is not known, for it has no output."""
_DIGEST = 16
"""The length in bytes of what stands for the end of a name that is too long."""


class Nursery(Protocol):
    """What children need of the engine that they live in."""

    registry: Registry
    payloads: Payloads
    background: Background
    now: Callable[[], datetime]

    @property
    def store(self) -> Store:
        """The store of the engine's sagas."""

    async def add(self, session: AsyncSession, wanted: Beginning) -> StartResult:
        """Insert a saga in a transaction, unless its key has started it before."""

    def wake_soon(self, saga_ids: Iterable[UUID]) -> None:
        """Look at some sagas in the background."""

    async def apply(self, saga_id: UUID, judge: Judge) -> tuple[Head, Move | None, float]:
        """Apply a judge to one saga, durably; return the row, its move, and when that was begun."""

    def follow(self, head: Head, move: Move | None, since: float) -> object:
        """Drive a saga that has just been moved, if that gave it to this engine."""


@dataclass
class Recall(Intake):
    """The order by which a child is undone, chosen by how it stands when the order reaches it."""

    def event_for(self, head: Head, definition: SagaDefinition, state: State) -> Event | None:
        is_over = status_of(definition.graph, state).is_terminal
        is_undone = state.course is Course.BACKWARD and state.rewind is None
        if is_undone or state.action is not None or (is_over and not standing(definition, state)):
            return None
        actor, reason = f"saga {head.parent_id}", "its parent is undone"
        if is_over:
            return CompensateOrdered(by_parent=True, actor=actor, reason=reason)
        return CancelOrdered(actor=actor, reason=reason)


class SagaChildren:
    """The children of one engine's sagas; see `definition.child.Children`.

    A database that is away is waited for: it says nothing of a child, and is no reason for its parent to fail.
    """

    def __init__(self, nursery: Nursery, claims: Claims) -> None:
        self._nursery, self._claims = nursery, claims

    async def begin(self, ctx: StepContext, child: ChildKey, initial_data: Any, *, detached: bool) -> UUID:
        wanted = self._wanted(ctx, child, initial_data, parent_id=None if detached else ctx.saga_id)
        saga_id = (await self._nursery.add(ctx.session, wanted)).saga_id
        wake = partial(self._nursery.wake_soon, [saga_id])
        if isinstance(ctx.session, AsyncSession):
            after_commit(ctx.session.sync_session, wake)
        else:
            ctx.session.append(wake)
        return saga_id

    def _wanted(self, ctx: StepContext, child: ChildKey, initial_data: Any, parent_id: UUID | None) -> Beginning:
        try:
            definition = self._nursery.registry.newest(child.saga_name)
        except SagaDefinitionError as error:
            raise PermanentError(f"its child cannot be started: {error}") from error
        return Beginning(
            saga_name=child.saga_name,
            definition=definition,
            initial=self._nursery.payloads.dump(initial_data, what=f"initial_data of child saga '{child.saga_name}'"),
            aggregation_id=shortened(f"{ctx.aggregation_id}/{ctx.step_id}"),
            trace_id=ctx.trace_id,
            idempotency_key=child.key,
            parent_id=parent_id,
            on_conflict="first",  # what the step has started is its child, whatever its input is by now
        )

    async def look(self, child: ChildKey) -> Child | None:
        return await patiently(partial(self._look, child))

    async def undo(self, child: ChildKey) -> Child | None:
        return await patiently(partial(self._undo, child))

    async def _look(self, child: ChildKey) -> Child | None:
        head = await self._nursery.store.started(*child)
        return None if head is None else await self._seen(head)

    async def _undo(self, child: ChildKey) -> Child | None:
        head = await self._nursery.store.started(*child)
        is_early = False
        if head is not None and self._claims.known(head) is not None:
            is_early = await self._nursery.background.outcome(self._recall, head.id)
        found = await self._look(child)
        if found is not None and found.standing and (is_early or not found.is_known):  # it can be undone later
            return found._replace(is_over=False, is_known=False)
        return found

    async def _recall(self, child: UUID) -> bool:
        """Have a child undone; return whether it was too early, because its former owner may still be at work."""
        recall = Recall(self._claims, Ticked())
        head, move, since = await self._nursery.apply(child, recall.judge)
        if recall.is_early:
            return True
        recall.raise_if_refused(head)
        self._nursery.follow(head, move, since)
        return False

    async def _seen(self, head: Head) -> Child:
        definition = known = self._claims.known(head)
        if definition is None and head.status in _OVER_BY_ROW:
            definition = unknown_definition(head)
        if definition is None or not head.status.is_terminal:
            return Child(head.id, head.status.value, is_over=False, is_known=known is not None)
        state = read_state(definition, head)
        if state.action is not None:  # its effects may be closed: it tells its end again then
            return Child(head.id, head.status.value, is_over=False, is_known=known is not None)
        output = await self._output(head, definition) if head.status is SagaStatus.COMPLETED else None
        is_undone = known is None and head.status is SagaStatus.COMPENSATED
        effects = () if is_undone else standing(definition, state)
        error = open_message(head.last_error, self._nursery.payloads)
        return Child(head.id, head.status.value, True, output, error, effects, is_known=known is not None)

    async def _output(self, head: Head, definition: SagaDefinition) -> Any:
        """Return what the last step returned; of several side by side, what each did, by step id."""
        past = Past()
        past.learn((await self._nursery.store.history([head.id]))[head.id])
        ends = [i for i, after in definition.graph.dependents.items() if not after and i in past.outputs]
        outputs = {step_id: self._nursery.payloads.load(past.output(step_id)) for step_id in ends}
        return outputs[ends[0]] if len(ends) == 1 else outputs


def standing(definition: SagaDefinition, state: State) -> tuple[str, ...]:
    """Return the steps whose effects stand, whether they are meant to or not."""
    graph = definition.graph.unfolded(state.fans)
    return tuple(step_id for step_id, status in state.all() if stands(graph, step_id, status))


def shortened(name: str) -> str:
    """Return a name that a column holds: of one that is too long a digest stands for the end."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = blake2b(name.encode(), digest_size=_DIGEST).hexdigest()
    return f"{name[: LONGEST_NAME - len(digest) - 1]}~{digest}"
