"""From decisions to writes: folding events over a state, and the row that the result becomes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid4

from ..definition.graph import Graph
from ..definition.saga import SagaDefinition
from ..kernel.codec import UnreadableStateError, decode, encode
from ..kernel.effects import Decision, Record, Verdict
from ..kernel.events import Event, Ticked
from ..kernel.projection import (
    awaiting,
    current_step_index,
    is_live,
    last_error,
    residue,
    retry_counter,
    status_of,
    wake_at,
)
from ..kernel.state import SagaStatus, State
from ..kernel.transition import decide
from ..storage.rows import Head, Letter, Move, Ownership
from .endings import end_of

if TYPE_CHECKING:
    from .tenure import Tenure

_AHEAD = timedelta(seconds=1)
"""How far a process may be ahead of the database's clock: what is to be due at once must be due by that clock."""


class Fold(NamedTuple):
    """What some events came to. `verdict` and `reason` are the last event's; `moved`: at least one was applied."""

    state: State
    records: tuple[Record, ...]
    last_error: str | None
    verdict: Verdict
    reason: str
    moved: bool


_Begun = tuple[State, tuple[Record, ...], str | None, Verdict, str, bool]
"""A fold of no events, as plain as it can be made: there is one for each step of each saga."""


def fold(graph: Graph, state: State, error: str | None, events: Iterable[Event], now: datetime) -> Fold:
    """Apply events one after another."""
    return fold_on(graph, (state, (), error, Verdict.UNMATCHED, "", False), events, now)


def fold_on(graph: Graph, done: Fold | _Begun, events: Iterable[Event], now: datetime) -> Fold:
    """Apply further events after those of a fold."""
    state, records, error, verdict, reason, moved = done
    for event in events:
        decision = decide(graph, state, event, now=now)
        error = last_error(error, state, decision)
        state, verdict, reason = decision.state, decision.verdict, decision.reason
        records += decision.records
        moved = moved or (verdict is Verdict.APPLIED and not _is_idle_tick(event, decision))
    return Fold(state, records, error, verdict, reason, moved)


def _is_idle_tick(event: Event, decision: Decision) -> bool:
    """Return whether time has passed and nothing was due, so that there is nothing to write."""
    return isinstance(event, Ticked) and not decision.work and not decision.records


def read_state(definition: SagaDefinition, head: Head) -> State:
    """Return the state that a row holds.

    Raises:
        UnreadableStateError: It is nonsense, or names steps that the definition does not have.
    """
    state = decode(head.state, key=str(head.id))
    known = definition.graph.unfolded(state.fans).nodes
    unknown = [step_id for step_id in (*state.fans, *state.stops, *(i for i, _ in state.all())) if step_id not in known]
    if unknown:
        raise UnreadableStateError(f"the state names steps that the definition does not have: {', '.join(unknown)}")
    return state


class Grip(NamedTuple):
    """What a writer knows of the row that it is about to move: which, of what definition, and from where.

    An owner knows it from its `Tenure`.
    """

    definition: SagaDefinition
    saga_id: UUID
    revision: int
    token: UUID | None
    parent_id: UUID | None


def compose(grip: Grip | Tenure, done: Fold, now: datetime, ownership: Ownership | None) -> Move:
    """Return the write that makes a fold durable."""
    graph, state = grip.definition.graph, done.state
    status = status_of(graph, state)
    return Move(
        grip.saga_id,
        grip.revision,
        grip.token,
        status,
        encode(state),
        current_step_index(graph, state),
        retry_counter(state),
        done.last_error,
        now,
        ownership,
        done.records,
        told(grip, status, now),
    )


def told(grip: Grip | Tenure, status: SagaStatus, now: datetime) -> tuple[Letter, ...]:
    """Return what a move has to say: to the saga's parent, that it is over."""
    if grip.parent_id is None or not status.is_terminal:
        return ()
    return (end_of(grip.saga_id, grip.parent_id, grip.revision + 1, status, now),)


def taken(owner: str, until: datetime) -> Ownership:
    """Return the ownership of a new owner."""
    return Ownership(uuid4(), owner, until, None, None)


def released(graph: Graph, state: State, now: datetime) -> Ownership:
    """Return the ownership of a saga that nobody works on: over, or waiting for a time or a person."""
    if status_of(graph, state).is_terminal:
        return Ownership(None, None, None, None, now)
    return Ownership(uuid4(), None, wake_at(state), awaiting(graph, state), None)


def left_by_owner(definition: SagaDefinition, state: State, now: datetime) -> Ownership | None:
    """Return the ownership that its owner leaves a saga in: as it is while there is work, and let go of afterwards."""
    return None if is_at_work(state) else let_go(definition, state, now)


def let_go(definition: SagaDefinition, state: State, now: datetime) -> Ownership:
    """Return the ownership of a saga that has come to rest by itself; one whose failure is to be acted upon is due."""
    rests = released(definition.graph, state, now)
    return rests._replace(deadline_at=now - _AHEAD) if is_left_to_act(definition, state) else rests


def is_left_to_act(definition: SagaDefinition, state: State) -> bool:
    """Return whether a saga has failed and left effects standing, and code of its author's is to be called for that."""
    if not definition.failure.calls or status_of(definition.graph, state) is not SagaStatus.FAILED:
        return False
    return bool(residue(definition.graph, state))


def put_off(head: Head, now: datetime, until: datetime) -> Move:
    """Return the move that leaves a row as it is, to be looked at later by anybody."""
    ownership = Ownership(None, None, until, head.awaiting, head.finished_at)
    place = head.current_step_index, head.retry_counter
    token = head.step_execution_token
    return Move(head.id, head.revision, token, head.status, head.state, *place, head.last_error, now, ownership, ())


def left_to_anybody(now: datetime) -> Ownership:
    """Return the ownership of a saga that has work, and that whoever looks next is to take."""
    return Ownership(uuid4(), None, now - _AHEAD, None, None)


def is_at_work(state: State) -> bool:
    """Return whether somebody has to own the saga."""
    return not state.quarantined and is_live(state)
