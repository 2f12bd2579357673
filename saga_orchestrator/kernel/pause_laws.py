"""What must hold of pauses and breakpoints: of every state, and of every decision."""

from __future__ import annotations

from ..definition.graph import Graph
from .effects import Decision, Verdict
from .order_events import AbortOrdered, RetryOrdered
from .pause import PauseOrdered, ResumeOrdered, StepOrdered
from .projection import is_live, status_of
from .state import SagaStatus, State
from .step_status import Asking, Failed, Pending, Probing, Retrying, Running, StepStatus
from .undo_status import UndoAsking, Undoing


def what_is_over_is_not_paused(graph: Graph, state: State) -> bool:
    """A pause ends with its saga."""
    return not (state.paused and status_of(graph, state).is_terminal)


def nothing_begins_in_a_pause(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """While a saga is paused, what is in flight goes on, and nothing else begins but what an order names."""
    if not before.paused or isinstance(event, ResumeOrdered | StepOrdered):
        return True
    begun = [(before.of(i), status) for i, status in decision.state.open.items() if status.is_live]
    may_begin = Retrying | Failed if isinstance(event, RetryOrdered) else ()
    return all(isinstance(was, may_begin) or _goes_on(was, now) for was, now in begun)


def nothing_passes_a_breakpoint(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """The step before which a saga is to be paused begins only by a single step; else it begins to be paused."""
    if isinstance(event, StepOrdered):
        return True
    after = decision.state
    forgotten = isinstance(event, ResumeOrdered) and not before.paused
    return forgotten or not any(_has_begun(before, after, step_id) for step_id in before.stops)


def a_pause_begins_and_ends_for_a_reason(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A pause is begun by an order, or a breakpoint that it uses up; it ends by an order, or with what it held."""
    after = decision.state
    if after.paused and not before.paused:
        return isinstance(event, PauseOrdered) or set(after.stops) < set(before.stops)
    if before.paused and not after.paused:
        return isinstance(event, ResumeOrdered | AbortOrdered) or _rests(graph, after)
    return True


def a_step_begins_something(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A single step is made by a saga that rests in a pause, and leaves it paused, over, or stuck."""
    if not isinstance(event, StepOrdered) or decision.verdict is not Verdict.APPLIED:
        return True
    rested = before.paused and not is_live(before)
    return rested and (decision.state.paused or _rests(graph, decision.state))


def _rests(graph: Graph, state: State) -> bool:
    return status_of(graph, state).is_terminal or status_of(graph, state) is SagaStatus.STUCK


def _has_begun(before: State, after: State, step_id: str) -> bool:
    return isinstance(before.of(step_id), Pending) and after.of(step_id).is_live


def _goes_on(before: StepStatus, after: StepStatus) -> bool:
    """Return whether what is in flight was in flight: in the same attempt, or in what has come of it."""
    if type(before) is type(after):
        return getattr(before, "attempt", 0) == getattr(after, "attempt", 0)
    return any(isinstance(before, way) and isinstance(after, way) for way in (_DOING, _UNDOING))


_DOING = Running | Probing | Asking
_UNDOING = Undoing | UndoAsking
