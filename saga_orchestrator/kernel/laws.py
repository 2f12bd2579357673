"""What must hold of every state, and of every move, whatever happens: the laws as data.

The tests, the simulation and the users' own crash tests all check these same functions; each is kept alive by a mutant of
the kernel that only it (or a few) can catch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..definition.graph import Graph
from .effects import Decision, Verdict
from .events import Order
from .projection import awaiting, outstanding, residue, stands, status_of, wake_at
from .state import (
    Course,
    Failed,
    Passed,
    Pending,
    Retrying,
    Running,
    SagaStatus,
    Skipped,
    State,
    Succeeded,
    UndoFailed,
    Undoing,
    Undone,
    UndoRetrying,
    Waived,
)

StateLaw = Callable[[Graph, State], bool]
MoveLaw = Callable[[Graph, State, object, Decision], bool]


def _never_stranded(graph: Graph, state: State) -> bool:
    """An active saga has work in flight, a timer, or a person it waits for."""
    if status_of(graph, state).is_terminal or not (state.open or state.done):
        return True
    return bool(outstanding(state)) or wake_at(state) is not None or awaiting(graph, state) == "operator"


def _over_is_over(graph: Graph, state: State) -> bool:
    """A terminal or stuck saga has no work and no timer."""
    resting = status_of(graph, state).is_terminal or status_of(graph, state) is SagaStatus.STUCK
    return not resting or (not outstanding(state) and wake_at(state) is None)


def _completed_means_all(graph: Graph, state: State) -> bool:
    """COMPLETED: every step has acted or was skipped."""
    if status_of(graph, state) is not SagaStatus.COMPLETED:
        return True
    return all(isinstance(state.of(step_id), Succeeded | Skipped) for step_id in graph.nodes)


def _compensated_means_undone(graph: Graph, state: State) -> bool:
    """COMPENSATED: at least one effect was undone, and none stands."""
    if status_of(graph, state) is not SagaStatus.COMPENSATED:
        return True
    nothing_stands = not any(stands(graph, i, s) for i, s in state.all())
    return nothing_stands and any(isinstance(s, Undone) for _, s in state.all())


def _failed_by_itself_leaves_nothing(graph: Graph, state: State) -> bool:
    """FAILED with residue: only where the author or an operator wanted the effects left alone."""
    if status_of(graph, state) is not SagaStatus.FAILED or state.course is Course.HALTED:
        return True
    return not residue(graph, state)


def _forward_order(graph: Graph, state: State) -> bool:
    """A step has started only if all before it had come to rest with success."""
    if state.course is not Course.FORWARD:
        return True
    return all(
        isinstance(state.of(before), Succeeded | Skipped)
        for step_id, _ in state.all()
        for before in graph.nodes[step_id].after
    )


def _backward_order(graph: Graph, state: State) -> bool:
    """A step is being undone, or is undone, only if nothing after it stands or may still move."""
    quiet = (Pending, Undone, Passed, Waived, UndoFailed)
    return all(
        isinstance(after := state.of(dependent), quiet) or after == Failed(getattr(after, "attempt", 1))
        or (isinstance(after, Undoing | UndoRetrying)
        and not isinstance(status, Undoing))
        for step_id, status in state.all()
        if isinstance(status, Undoing | Undone)
        for dependent in graph.dependents[step_id]
    )


def _undo_only_backwards(graph: Graph, state: State) -> bool:
    """On the way forward nothing is undone."""
    undoing = Undoing | UndoRetrying | UndoFailed | Undone | Passed | Waived
    return state.course is not Course.FORWARD or not any(isinstance(s, undoing) for _, s in state.all())


def _no_way_back_past_the_pivot(graph: Graph, state: State) -> bool:
    """Once a PIVOT or RETRIABLE step has acted, nothing is undone."""
    acted = any(isinstance(state.of(step_id), Succeeded) for step_id in graph.final)
    return not (acted and state.course is Course.BACKWARD)


def _attempts_bounded(graph: Graph, state: State) -> bool:
    """No step fails more often than its policy allows."""
    for step_id, status in state.open.items():
        node = graph.nodes[step_id]
        policy = node.compensation_retry if isinstance(status, Undoing | UndoRetrying) else node.retry
        if getattr(status, "failures", 0) >= policy.max_attempts:
            return False
    return True


def _undo_with_output_or_permission(graph: Graph, state: State) -> bool:
    """A compensation runs without the output only where it said that it can."""
    return all(
        graph.nodes[step_id].undoable and (status.with_output or graph.nodes[step_id].undo_without_output)
        for step_id, status in state.open.items()
        if isinstance(status, Undoing)
    )


def _known_steps(graph: Graph, state: State) -> bool:
    """Every step belongs to the graph, and is either open or done."""
    return all(i in graph.nodes for i, _ in state.all()) and not (state.open.keys() & state.done.keys())


def _retries_only_forward(graph: Graph, state: State) -> bool:
    """Off the way forward, no step waits for another attempt."""
    return state.course is Course.FORWARD or not any(isinstance(s, Retrying) for s in state.open.values())


STATE_LAWS: tuple[StateLaw, ...] = (
    _never_stranded,
    _over_is_over,
    _completed_means_all,
    _compensated_means_undone,
    _failed_by_itself_leaves_nothing,
    _forward_order,
    _backward_order,
    _undo_only_backwards,
    _no_way_back_past_the_pivot,
    _attempts_bounded,
    _undo_with_output_or_permission,
    _known_steps,
    _retries_only_forward,
)


def _unmoved_unless_applied(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A verdict other than APPLIED leaves everything as it was."""
    if decision.verdict is Verdict.APPLIED:
        return True
    return decision.state is before and not decision.work and not decision.records


def _over_stays_over(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """Only an order moves a saga that is over, or stuck."""
    status = status_of(graph, before)
    resting = status.is_terminal or status is SagaStatus.STUCK
    return not resting or isinstance(event, Order) or status_of(graph, decision.state) is status


def _work_is_new_and_outstanding(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What is ordered is in flight afterwards, once."""
    return set(decision.work) <= set(outstanding(decision.state)) and len(set(decision.work)) == len(decision.work)


def _history_grows(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """Rows are numbered without gaps."""
    expected = range(before.recorded, decision.state.recorded)
    return [record.seq for record in decision.records] == list(expected)


def _taint_stays(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """Doubt about a step in flight ends only in success, an answer from its probe, an undo, or an operator's word."""
    after = decision.state
    return all(
        getattr(after.of(step_id), "tainted", True)
        for step_id, status in before.open.items()
        if getattr(status, "tainted", False) and isinstance(after.of(step_id), Running | Retrying | Failed)
    )


def _no_turning_back_twice(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """Only an order changes a course that is not FORWARD."""
    return before.course in (Course.FORWARD, decision.state.course) or isinstance(event, Order)


def _undone_stays_recorded(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What acted does not become what never ran."""
    return all(not isinstance(decision.state.of(step_id), Pending) for step_id, _ in before.all())


MOVE_LAWS: tuple[MoveLaw, ...] = (
    _unmoved_unless_applied,
    _over_stays_over,
    _work_is_new_and_outstanding,
    _history_grows,
    _taint_stays,
    _no_turning_back_twice,
    _undone_stays_recorded,
)


STRUCTURAL_LAWS: tuple[StateLaw, ...] = (
    _forward_order,
    _backward_order,
    _undo_only_backwards,
    _no_way_back_past_the_pivot,
    _known_steps,
    _retries_only_forward,
)
"""Those by which a row edited into nonsense is told from one that a saga of this graph could have: they ask nothing of
retry policies and compensations, which may have changed since the row was written."""


def broken_by(graph: Graph, state: State) -> Iterator[str]:
    """Yield what each broken law says, for a state."""
    yield from (law.__doc__ or law.__name__ for law in STATE_LAWS if not law(graph, state))


def broken_by_move(graph: Graph, before: State, event: object, decision: Decision) -> Iterator[str]:
    """Yield what each broken law says, for a decision and the state that it leads to."""
    yield from (law.__doc__ or law.__name__ for law in MOVE_LAWS if not law(graph, before, event, decision))
    yield from broken_by(graph, decision.state)
