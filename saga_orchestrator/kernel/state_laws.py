"""What must hold of every state, whatever has happened."""

from __future__ import annotations

from collections.abc import Callable

from ..definition.graph import Graph
from .action_laws import an_action_is_of_what_has_failed, crash_loops_of_an_action_end
from .choice_laws import one_branch_at_most
from .fan_laws import fans_are_unfolded, no_more_missed_than_tolerated
from .pause_laws import what_is_over_is_not_paused
from .projection import awaiting, outstanding, residue, stands, status_of, waits, wake_at
from .rewind_laws import rewinds_go_back
from .state import Course, SagaStatus, State
from .step_status import (
    Asking,
    Failed,
    Missed,
    Omitted,
    Pending,
    Probing,
    Retrying,
    Running,
    Skipped,
    Succeeded,
    Waiting,
)
from .undo_status import Passed, UndoAsking, UndoFailed, Undoing, Undone, UndoRetrying, UndoWaiting, Waived
from .wait_laws import asking_is_acting, time_is_kept, waits_say_for_what

StateLaw = Callable[[Graph, State], bool]


def _never_stranded(graph: Graph, state: State) -> bool:
    """An active saga has work in flight, a timer, or an event or a person it waits for."""
    if status_of(graph, state).is_terminal or not (state.open or state.done):
        return True
    if outstanding(state) or wake_at(state) is not None or awaiting(graph, state) in ("operator", "pause"):
        return True
    return any(status.types for _, status in waits(state))


def _over_is_over(graph: Graph, state: State) -> bool:
    """A terminal or stuck saga has no work and no timer."""
    resting = status_of(graph, state).is_terminal or status_of(graph, state) is SagaStatus.STUCK
    return not resting or (not outstanding(state) and wake_at(state) is None)


def _completed_means_all(graph: Graph, state: State) -> bool:
    """COMPLETED: every step has acted, was skipped, was not chosen, or is one of many that need not succeed."""
    if status_of(graph, state) is not SagaStatus.COMPLETED:
        return True
    return all(isinstance(state.of(step_id), Succeeded | Skipped | Omitted | Missed) for step_id in graph.nodes)


def _compensated_means_undone(graph: Graph, state: State) -> bool:
    """COMPENSATED: at least one effect was undone, and none stands that nobody waived."""
    if status_of(graph, state) is not SagaStatus.COMPENSATED:
        return True
    nothing_stands = not any(stands(graph, i, s) for i, s in state.all())
    return nothing_stands and any(isinstance(s, Undone) for _, s in state.all())


def _failed_by_itself_leaves_nothing(graph: Graph, state: State) -> bool:
    """FAILED with residue: only where the author or an operator wanted the effects left alone."""
    if status_of(graph, state) is not SagaStatus.FAILED or state.course is Course.HALTED:
        return True
    return not residue(graph, state)


def _crash_loops_end(graph: Graph, state: State) -> bool:
    """A saga that has lost too many owners in a row is quarantined."""
    return state.quarantined or state.recoveries <= graph.max_recoveries


def _forward_order(graph: Graph, state: State) -> bool:
    """A step has started, or was omitted, only if all before it had come to rest with success, or were omitted."""
    if state.course is not Course.FORWARD:
        return True
    return all(
        isinstance(state.of(before), Succeeded | Skipped | Omitted | Missed)
        for step_id, _ in state.all()
        for before in graph.nodes[step_id].after
    )


def _backward_order(graph: Graph, state: State) -> bool:
    """What comes after a step that is being undone, or is undone, had its own turn before."""
    begun = Undoing | UndoRetrying | UndoAsking | UndoWaiting | UndoFailed | Undone
    stays = Running | Probing | Retrying | Asking | Waiting | Succeeded | Skipped
    return not any(
        isinstance(state.of(dependent), stays)
        for step_id, status in state.all()
        if isinstance(status, begun)
        for dependent in graph.dependents[step_id]
    )


def _undo_only_backwards(graph: Graph, state: State) -> bool:
    """On the way forward nothing is undone."""
    undoing = Undoing | UndoRetrying | UndoAsking | UndoWaiting | UndoFailed | Undone | Passed | Waived
    return state.course is not Course.FORWARD or not any(isinstance(s, undoing) for _, s in state.all())


def _no_way_back_past_the_pivot(graph: Graph, state: State) -> bool:
    """Nothing is undone unless it is certain that no PIVOT or RETRIABLE step has acted, or may yet."""
    innocent = (Pending(), Omitted(), Skipped(), Passed(0, acted=False))
    return state.course is not Course.BACKWARD or all(
        status in innocent or (isinstance(status, Failed) and not status.tainted)
        for status in map(state.of, graph.final)
    )


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


def _stuck_for_a_reason(graph: Graph, state: State) -> bool:
    """A rollback is STUCK only because of an undo that has failed, or that nobody can try."""
    if state.course is not Course.BACKWARD or state.quarantined or status_of(graph, state) is not SagaStatus.STUCK:
        return True
    return any(isinstance(status, UndoFailed) for status in state.open.values())


def _known_steps(graph: Graph, state: State) -> bool:
    """Every step belongs to the graph, and is either open or done."""
    return all(i in graph.nodes for i, _ in state.all()) and not (state.open.keys() & state.done.keys())


def _retries_only_forward(graph: Graph, state: State) -> bool:
    """Off the way forward, no step waits for another attempt, or for an event to go on with."""
    going_on = Retrying | Asking | Waiting
    return state.course is Course.FORWARD or not any(isinstance(s, going_on) for s in state.open.values())


STATE_LAWS: tuple[StateLaw, ...] = (
    _known_steps,
    _never_stranded,
    _over_is_over,
    _completed_means_all,
    _compensated_means_undone,
    _failed_by_itself_leaves_nothing,
    _crash_loops_end,
    _forward_order,
    _backward_order,
    _undo_only_backwards,
    _no_way_back_past_the_pivot,
    _attempts_bounded,
    _undo_with_output_or_permission,
    _retries_only_forward,
    no_more_missed_than_tolerated,
    fans_are_unfolded,
    rewinds_go_back,
    one_branch_at_most,
    _stuck_for_a_reason,
    waits_say_for_what,
    asking_is_acting,
    time_is_kept,
    what_is_over_is_not_paused,
    an_action_is_of_what_has_failed,
    crash_loops_of_an_action_end,
)

STRUCTURAL_LAWS: tuple[StateLaw, ...] = (
    _known_steps,
    _forward_order,
    _backward_order,
    _undo_only_backwards,
    _no_way_back_past_the_pivot,
    _retries_only_forward,
    no_more_missed_than_tolerated,
    fans_are_unfolded,
    one_branch_at_most,
    waits_say_for_what,
)
"""Those by which a row edited into nonsense is told from one that a saga of this graph could have: they ask nothing of
retry policies and compensations, which may have changed since the row was written."""
