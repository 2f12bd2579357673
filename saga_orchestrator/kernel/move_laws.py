"""What must hold of every decision: of the step from one state to the next, and of what it orders."""

from __future__ import annotations

from collections.abc import Callable

from ..definition.graph import Graph
from .action_laws import an_action_is_claimed_by_an_order, nothing_crosses_an_action, what_was_not_closed_stands
from .attempt_laws import (
    a_claim_burns_nothing,
    a_doubt_is_kept,
    a_note_is_kept_and_moves_nothing,
    commits,
    no_attempt_twice,
    only_the_current_attempt_answers,
    replies_are_believed,
    taint_stays,
)
from .choice_laws import what_is_omitted_stays_so, what_was_chosen_is_done
from .doubt_laws import what_is_refused_is_not_tried_again
from .effects import Decision, Phase, Verdict
from .events import Claimed, Doubted
from .order_events import Order
from .pause_laws import (
    a_pause_begins_and_ends_for_a_reason,
    a_step_begins_something,
    nothing_begins_in_a_pause,
    nothing_passes_a_breakpoint,
)
from .projection import outstanding, stands, status_of
from .rewind_laws import (
    a_rewind_ends_when_nothing_stands,
    a_rewind_leaves_the_rest,
    begun_again,
    who_begins_again_counts_on,
)
from .state import Course, SagaStatus, State
from .step_status import Failed, Omitted, Pending
from .undo_status import Passed, UndoAsking, UndoFailed, Undoing, UndoRetrying, UndoWaiting, Waived
from .wait_laws import (
    an_event_that_fits_is_taken,
    asking_goes_on_until_somebody_has_looked,
    one_event_ends_one_wait,
    waits_end_for_a_reason,
    what_is_asked_is_asked,
    what_was_heard_is_not_forgotten,
    what_was_never_learnt_stays_so,
    who_is_let_out_looks_again,
)

MoveLaw = Callable[[Graph, State, object, Decision], bool]


def _unmoved_unless_applied(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A verdict other than APPLIED leaves everything as it was."""
    if decision.verdict is Verdict.APPLIED:
        return True
    return decision.state is before and not decision.work and not decision.records


def _over_stays_over(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """Only an order moves a saga that is over, or stuck; a COMPLETED one only its parent's, or in its undo window.

    Or a doubt, which takes back what was said too soon.
    """
    if isinstance(event, Doubted):
        return True
    status = status_of(graph, before)
    in_time = graph.undo_window is not None and getattr(event, "finished_at", None) is not None
    reopens = status is SagaStatus.COMPLETED and (in_time or getattr(event, "by_parent", False))
    proved = status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED) and not reopens
    resting = status.is_terminal or status is SagaStatus.STUCK
    is_lost = before.action is not None and isinstance(event, Claimed)
    may_move = not resting or (isinstance(event, Order) and not proved) or is_lost
    return may_move or (decision.state == before and not decision.records)


def _work_is_new_and_outstanding(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What is ordered is in flight afterwards, once."""
    return set(decision.work) <= set(outstanding(decision.state)) and len(set(decision.work)) == len(decision.work)


def _nothing_in_flight_unordered(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What is in flight afterwards was in flight before, or is ordered now; a new owner is ordered all of it."""
    known = () if isinstance(event, Claimed) else outstanding(before)
    return set(outstanding(decision.state)) <= {*known, *decision.work}


def _history_grows(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """Rows are numbered without gaps."""
    expected = range(before.recorded, decision.state.recorded)
    return [record.seq for record in decision.records] == list(expected)


def _orders_are_signed(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """An order that is carried out stands in the history, with who gave it and why."""
    if decision.verdict is not Verdict.APPLIED or not isinstance(event, Order):
        return True
    signatures = [(record.phase, record.actor, record.reason) for record in decision.records]
    return (Phase.ORDER, event.actor, event.reason) in signatures


def _what_may_turn_back_begins_nothing(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """While a saga that has failed waits whether it is past its pivot, no further step begins."""
    after = decision.state
    failed = any(isinstance(status, Failed) for status in after.open.values())
    if not failed or after.course is not Course.FORWARD or any(commits(after.of(step_id)) for step_id in graph.final):
        return True
    return not any(isinstance(before.of(step_id), Pending) for step_id in after.open)


def _undo_begins_in_turn(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """The undo of a step begins only when nothing that comes after it stands, or moves, or is to be undone again."""
    after = decision.state
    begun = [
        step_id
        for step_id, status in after.open.items()
        if isinstance(status, Undoing) and not isinstance(before.of(step_id), _BEING_UNDONE)
    ]
    return all(_is_out_of_the_way(graph, after, dependent) for i in begun for dependent in graph.dependents[i])


_BEING_UNDONE = Undoing | UndoRetrying | UndoAsking | UndoWaiting


def _is_out_of_the_way(graph: Graph, state: State, step_id: str) -> bool:
    status = state.of(step_id)
    if isinstance(status, UndoFailed):
        return graph.nodes[step_id].on_undo_failure == "continue" and not status.again
    if isinstance(status, Waived | Omitted | Passed):
        return all(_is_out_of_the_way(graph, state, dependent) for dependent in graph.dependents[step_id])
    return isinstance(status, Pending) or not (status.is_live or stands(graph, step_id, status))


def _no_turning_back_twice(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """Only an order changes a course that is not FORWARD, or the end of a rewind."""
    ends = before.rewind is not None and decision.state.course is Course.FORWARD
    return before.course in (Course.FORWARD, decision.state.course) or isinstance(event, Order | Doubted) or ends


def _what_acted_stays_recorded(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What acted does not become what never ran, unless it was rewound."""
    again = begun_again(graph, before, event, decision)
    return all(i in again or not isinstance(decision.state.of(i), Pending) for i, _ in before.all())


MOVE_LAWS: tuple[MoveLaw, ...] = (
    _unmoved_unless_applied,
    _over_stays_over,
    _work_is_new_and_outstanding,
    _nothing_in_flight_unordered,
    _history_grows,
    only_the_current_attempt_answers,
    replies_are_believed,
    a_doubt_is_kept,
    a_note_is_kept_and_moves_nothing,
    _orders_are_signed,
    no_attempt_twice,
    what_is_refused_is_not_tried_again,
    a_claim_burns_nothing,
    _what_may_turn_back_begins_nothing,
    _undo_begins_in_turn,
    taint_stays,
    _no_turning_back_twice,
    _what_acted_stays_recorded,
    what_is_omitted_stays_so,
    what_was_chosen_is_done,
    one_event_ends_one_wait,
    an_event_that_fits_is_taken,
    waits_end_for_a_reason,
    asking_goes_on_until_somebody_has_looked,
    what_is_asked_is_asked,
    what_was_heard_is_not_forgotten,
    what_was_never_learnt_stays_so,
    who_is_let_out_looks_again,
    a_rewind_ends_when_nothing_stands,
    a_rewind_leaves_the_rest,
    who_begins_again_counts_on,
    nothing_begins_in_a_pause,
    nothing_passes_a_breakpoint,
    a_pause_begins_and_ends_for_a_reason,
    a_step_begins_something,
    nothing_crosses_an_action,
    an_action_is_claimed_by_an_order,
    what_was_not_closed_stands,
)
