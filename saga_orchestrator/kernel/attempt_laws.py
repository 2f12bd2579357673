"""What must hold of attempts, and of the replies that they give, in every decision."""

from __future__ import annotations

from ..definition.graph import Graph
from .effects import Decision, Phase, RecordStatus, Verdict
from .events import (
    Asked,
    Claimed,
    Collected,
    Compensated,
    CompensationRaised,
    Doubted,
    Noted,
    Probed,
    Raised,
    Reply,
    Returned,
)
from .rewind_laws import begun_again
from .state import State
from .step_status import Asking, Failed, Pending, Probing, Retrying, Running, Skipped, StepStatus, Succeeded, Waiting
from .undo_status import UndoAsking, UndoFailed, Undoing, Undone, UndoRetrying


def only_the_current_attempt_answers(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A reply moves its step only if that attempt is in flight, or tells for the first time what a step returned."""
    if not isinstance(event, Reply | Noted):
        return True
    status = before.of(event.step_id)
    fits = isinstance(event, _ANSWERS.get(type(status), ())) and getattr(status, "attempt", None) == event.attempt
    news = isinstance(event, Returned) and getattr(status, "with_output", True) is False
    return fits or news or decision.verdict is not Verdict.APPLIED


_ANSWERS: dict[type[StepStatus], tuple[type[Reply | Noted], ...]] = {
    Running: (Returned, Raised, Asked, Noted),
    Probing: (Probed,),
    Undoing: (Compensated, CompensationRaised, Asked, Noted),
    Asking: (Collected,),
    UndoAsking: (Collected,),
}


def a_note_is_kept_and_moves_nothing(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What an attempt notes is recorded under that attempt's way, and the attempt goes on."""
    if not isinstance(event, Noted) or decision.verdict is not Verdict.APPLIED:
        return True
    status = before.of(event.step_id)
    kept = [record for record in decision.records if (record.phase, record.input) == (Phase.ORDER, event.content)]
    goes_on = decision.state.of(event.step_id) is status and isinstance(status, Undoing) is event.undoing
    return goes_on and len(kept) == 1


def replies_are_believed(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What is said to have acted is not taken for failed, and what is said to be undone is undone, or begins again."""
    if decision.verdict is not Verdict.APPLIED or not isinstance(event, Returned | Compensated):
        return True
    if event.step_id in begun_again(graph, before, event, decision):
        return True
    after = decision.state.of(event.step_id)
    if isinstance(event, Compensated):
        return isinstance(after, Undone)
    return not isinstance(after, Pending | Running | Probing | Retrying | Asking | Waiting | Failed)


def a_doubt_is_kept(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A doubt stands in the history; its step is not said to be clean, and begins no more, unless by a rewind."""
    if not isinstance(event, Doubted) or decision.verdict is not Verdict.APPLIED:
        return True
    kept = [record.step_id for record in decision.records if record.status is RecordStatus.IN_DOUBT]
    was, now = before.of(event.step_id), decision.state.of(event.step_id)
    ends = event.undoing or not isinstance(was, Running | Retrying | Failed) or not isinstance(now, Running | Retrying)
    is_doubted = event.undoing or getattr(now, "tainted", True) or not isinstance(now, Failed)
    is_anew = event.step_id in begun_again(graph, before, event, decision)
    return event.step_id in kept and (is_anew or (ends and is_doubted))


def no_attempt_twice(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """An attempt that has ended is never ordered again."""
    ended = Retrying | Failed | UndoRetrying | UndoFailed | Undone
    begun = [(status, decision.state.of(step_id)) for step_id, status in before.all() if isinstance(status, ended)]
    return all(
        _attempt_and_failures(after)[0] > _attempt_and_failures(status)[0]
        for status, after in begun
        if after.is_live and not (isinstance(status, Retrying | Failed) and isinstance(after, Undoing))
    )


def a_claim_burns_nothing(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A new owner goes on with the same attempts, and counts none of them as failed, unless it ends a rewind."""
    if not isinstance(event, Claimed) or begun_again(graph, before, event, decision):
        return True
    taken = [(status, decision.state.of(step_id)) for step_id, status in before.open.items() if status.is_live]
    return all(
        _attempt_and_failures(status) == _attempt_and_failures(after)
        for status, after in taken
        if after.is_live and isinstance(after, Undoing) is isinstance(status, Undoing)
    )


def _attempt_and_failures(status: StepStatus) -> tuple[int, int]:
    return getattr(status, "attempt", 0), getattr(status, "failures", 0)


def taint_stays(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """Doubt about a step ends only in success, an answer from its probe, an undo, a rewind, or an operator's word."""
    after, again = decision.state, begun_again(graph, before, event, decision)
    return all(
        getattr(after.of(step_id), "tainted", True)
        for step_id, status in before.open.items()
        if getattr(status, "tainted", False)
        and step_id not in again
        and isinstance(after.of(step_id), Running | Retrying | Asking | Waiting | Failed)
    )


_ON_THE_WAY = Running | Retrying | Asking | Waiting | Failed


def commits(status: StepStatus) -> bool:
    """Return whether a PIVOT or RETRIABLE step in this status forbids the way back."""
    acted = isinstance(status, Succeeded) or status == Skipped(acted=True)
    return acted or getattr(status, "tainted", False) is True
