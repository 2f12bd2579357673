"""What must hold of waits: of every state, and of every decision."""

from __future__ import annotations

from ..definition.graph import Graph
from .attempt_laws import commits
from .effects import Decision, Verdict
from .events import Asked, Collected, Doubted, Returned, Signalled
from .order_events import Order
from .projection import waits
from .rewind_laws import begun_again
from .state import Course, State
from .step_status import Asking, Running, StepStatus, Wait, Waiting
from .undo_status import UndoAsking, UndoFailed, Undoing, UndoRetrying, UndoWaiting


def waits_say_for_what(graph: Graph, state: State) -> bool:
    """A wait is for an event, or has an end."""
    return all(
        status.types or getattr(status, "until", None) is not None
        for status in state.open.values()
        if isinstance(status, Wait)
    )


def asking_is_acting(graph: Graph, state: State) -> bool:
    """What waits for an event, and could be undone or never is, counts as having acted."""
    return all(
        status.tainted or not (graph.nodes[step_id].undoable or graph.nodes[step_id].kind.is_final)
        for step_id, status in state.open.items()
        if isinstance(status, Asking | Waiting)
    )


def one_event_ends_one_wait(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """An event that is taken ends one wait that it fits, whose time is not up, and no other."""
    if not isinstance(event, Signalled) or decision.verdict is not Verdict.APPLIED:
        return True
    ended = [step_id for step_id in before.open if _heard(decision.state.of(step_id)) > _heard(before.of(step_id))]
    return len(ended) == 1 and _fits(before.of(ended[0]), event) and event.step_id in (None, ended[0])


def an_event_that_fits_is_taken(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """No event is turned away that a wait is open for; one whose time has an end is asked whether it is over."""
    if not isinstance(event, Signalled) or decision.verdict is Verdict.APPLIED:
        return True
    return not any(
        _fits(status, event) and getattr(status, "until", None) is None
        for step_id, status in waits(before)
        if event.step_id in (None, step_id)
    )


def waits_end_for_a_reason(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A wait goes on, in the same words, unless an event, its time, a turn of the saga or an order has ended it.

    Or news: an undo that does without what the step returned begins again when that is told after all.
    """
    after = decision.state
    if isinstance(event, Signalled | Order | Doubted) or after.course is not before.course:
        return True
    for step_id, status in before.open.items():
        if not isinstance(status, Wait) or (isinstance(event, Returned) and event.step_id == step_id):
            continue
        now = after.of(step_id)
        if isinstance(now, Wait):
            if _words(now) != _words(status):
                return False
        elif not _has_run_out(status, now):
            return False
    return True


def asking_goes_on_until_somebody_has_looked(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A step that has asked waits only when it is known that nothing had come before."""
    looked = event.step_id if isinstance(event, Collected) else None
    return all(
        isinstance(before.of(step_id), type(status)) or step_id == looked or not status.types
        for step_id, status in decision.state.open.items()
        if isinstance(status, Wait) and not isinstance(status, Asking | UndoAsking)
    )


def who_is_let_out_looks_again(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What waits in quarantine, or in a pause, is looked up when it is let out, for it was given nothing meanwhile."""
    after = decision.state
    was_held, is_held = (state.quarantined or state.paused for state in (before, after))
    if not was_held or is_held:
        return True
    return not any(isinstance(status, Waiting | UndoWaiting) and status.types for status in after.open.values())


def what_is_asked_is_asked(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A step that has asked, waits for just that."""
    if not isinstance(event, Asked) or decision.verdict is not Verdict.APPLIED:
        return True
    after = decision.state.of(event.step_id)
    if not isinstance(after, Wait):
        turned = decision.state.course is not Course.FORWARD
        return turned or event.step_id in begun_again(graph, before, event, decision)
    return (after.types, after.correlation, after.resumes) == (event.types, event.correlation, event.resumes)


def what_was_heard_is_not_forgotten(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A step that has been given an event goes on from there, on each further attempt of the same way."""
    again = begun_again(graph, before, event, decision)
    return all(
        _heard(after) >= _heard(status)
        for step_id, status in before.open.items()
        if (after := decision.state.of(step_id)).is_open and isinstance(after, _UNDO) is isinstance(status, _UNDO)
        if not (isinstance(event, Returned) and event.step_id == step_id) and step_id not in again
    )


def what_was_never_learnt_stays_so(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What an undo has to do without it does without, until somebody tells what the step returned."""
    after = decision.state
    unlearnt = [step_id for step_id, status in before.all() if getattr(status, "with_output", True) is False]
    return isinstance(event, Returned) or not any(getattr(after.of(i), "with_output", False) for i in unlearnt)


_UNDO = Undoing | UndoRetrying | UndoAsking | UndoWaiting | UndoFailed


def time_is_kept(graph: Graph, state: State) -> bool:
    """Only a saga that could still be taken back has a deadline, or is overdue."""
    if state.deadline is None and not state.overdue:
        return True
    is_past = any(commits(state.of(step_id)) for step_id in graph.final)
    return state.quarantined or state.paused or (state.course is Course.FORWARD and not is_past)


def _heard(status: StepStatus) -> int:
    return getattr(status, "heard", 0)


def _fits(status: StepStatus, event: Signalled) -> bool:
    if not isinstance(status, Wait):
        return False
    return event.step_id is not None or (event.type in status.types and status.correlation in (None, event.correlation))


def _words(status: Wait) -> tuple[object, ...]:
    return status.types, status.correlation, status.resumes, status.heard, status.attempt


def _has_run_out(before: Wait, after: StepStatus) -> bool:
    """Return whether what a wait has become is what its time makes of it."""
    if getattr(before, "until", None) is None:
        return False
    goes_on = isinstance(after, Running | Undoing) and after.heard == before.heard + 1
    return goes_on if before.resumes else not after.is_live
