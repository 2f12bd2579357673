"""What is done about sagas that have failed and left effects standing: who they are, and the calls of their hooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from ..definition.awaited import check_run
from ..definition.failure import DirtyState, FailureAction, FailurePlan
from ..definition.graph import Graph, Node
from ..definition.io import Payloads
from ..kernel.codec import decode
from ..kernel.effects import Phase, RecordStatus
from ..kernel.projection import residue, stands
from ..kernel.state import SagaStatus, State
from ..kernel.step_status import Failed
from ..kernel.undo_status import UndoFailed
from ..storage.contract import Store
from ..storage.rows import Head, HistoryRow
from .calls import settled
from .error_text import open_message
from .registry import Registry
from .snapshots import outputs
from .texts import check_saga_id
from .threads import in_thread

DIRTY = frozenset({SagaStatus.FAILED, SagaStatus.STUCK})
_BAD = (RecordStatus.ERROR, RecordStatus.IN_DOUBT)


class Outcome(NamedTuple):
    """What the call of a hook has come to. `error`: what the hook raised."""

    result: CompensationResult
    error: Exception | None = None


CUT_OFF = "the call of the hook was cut off, so it may have acted; the next owner of the saga calls it again"


@dataclass(frozen=True)
class CompensationResult:
    """What an action has come to: a value, for what an operator meets with is no error of the program."""

    success: bool
    message: str


def is_dirty(head: Head, registry: Registry) -> bool:
    """Return whether something is left to do about a saga: it is stuck, or it has failed and effects stand."""
    if head.status is not SagaStatus.FAILED:
        return head.status is SagaStatus.STUCK
    state = _state_of(head)
    return bool(residue(_graph_of(head, registry, state), state))


async def dirty_state_of(store: Store, registry: Registry, payloads: Payloads, saga_id: UUID) -> DirtyState | None:
    """Return what a saga is like that is dirty; None of one that is not, or that nobody knows."""
    check_saga_id(saga_id)
    head = await store.head(saga_id)
    if head is None or not is_dirty(head, registry):
        return None
    rows = (await store.history([saga_id]))[saga_id]
    state, known = _state_of(head), outputs(rows, payloads)
    graph = _graph_of(head, registry, state)
    standing = [step_id for step_id, status in state.all() if stands(graph, step_id, status)]
    return DirtyState(
        saga_id=saga_id,
        saga_name=head.saga_name,
        aggregation_id=head.aggregation_id,
        status=head.status.value,
        failed_step=_failed_step(head, state, rows),
        error=open_message(head.last_error, payloads),
        partial_state={step_id: known.get(step_id) for step_id in sorted(standing, key=graph.position.__getitem__)},
    )


async def call_hook(plan: FailurePlan, action: FailureAction, dirty: DirtyState) -> CompensationResult:
    """Call what the definition has for this action, and say what has come of it. What a hook raises passes through."""
    hook = hook_of(plan, action)
    if hook is None:
        return CompensationResult(False, without_hook(dirty.saga_name, action))
    if action is FailureAction.ALERT_HUMAN:
        await _called(hook, dirty.saga_id, dirty)
        return CompensationResult(True, "somebody has been told; the saga stays dirty until it is dealt with")
    closed = await _called(hook, dirty.saga_id)
    if closed is not True:
        return CompensationResult(False, f"close_all answered {closed!r}, and not True; the saga stays dirty")
    return CompensationResult(True, "everything is closed")


def hook_of(plan: FailurePlan, action: FailureAction) -> Callable[..., Any] | None:
    """Return what the definition has for an action."""
    hook: Callable[..., Any] | None = getattr(plan, action.value.lower())
    return hook


def without_hook(saga_name: str, action: FailureAction) -> str:
    """Return why an action cannot be ordered for which the definition has no hook."""
    return f"'{saga_name}' was built without {action.value.lower()}="


async def _called(hook: Callable[..., Any], *arguments: Any) -> Any:
    """Call a hook; a synchronous one in a thread. What it returns is awaited if it can be.

    Raises:
        NotRunError: It returned what is still to be run.
    """
    is_async = inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__)
    return check_run(await settled(hook(*arguments) if is_async else await in_thread(hook, *arguments)))


def _failed_step(head: Head, state: State, rows: Sequence[HistoryRow]) -> str | None:
    """Return the step whose error is shown; else the last one whose attempt, or else whose undo, has failed."""
    bad = [row for row in rows if row.status in _BAD]
    shown = [row.step_id for row in bad if row.phase == Phase.EXECUTE and row.error == head.last_error]
    failed = [row.step_id for row in bad if isinstance(state.of(row.step_id), Failed)]
    undone = [row.step_id for row in bad if isinstance(state.of(row.step_id), UndoFailed)]
    return next((found[-1] for found in (shown, failed, undone) if found), None)


def _state_of(head: Head) -> State:
    """Return the state of a row; of one that nobody can read, that of a saga of which nothing is known."""
    try:
        return decode(head.state)
    except ValueError:
        return State()


def _graph_of(head: Head, registry: Registry, state: State) -> Graph:
    """Return a saga's graph; without its definition, one in which whatever has begun may have acted."""
    definition = registry.find(head.saga_name, head.definition_version)
    known = definition is not None and all(step_id in definition.graph.nodes for step_id, _ in state.all())
    return (
        definition.graph if known and definition else Graph.of(*(Node(step_id=step_id) for step_id, _ in state.all()))
    )
