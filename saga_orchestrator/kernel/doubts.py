"""What is done about a doubt of a transactional step: it has ended its transaction itself, and its rows may stand.

An attempt of such a step that nobody has answered for has not acted, so the saga goes on without it. But a step that
commits by itself may be told of late, when its saga has been given to another owner, or is over. The attempt was taken
for clean, and is in doubt from then on. No other attempt of the step begins, and none comes off.
"""

from __future__ import annotations

from dataclasses import replace

from .answers import APPLIED, Answer, refuse, stands_at
from .backward_orders import abort
from .draft import Draft
from .effects import Phase, RecordStatus
from .events import CompensationRaised, Doubted, Raised
from .failure_orders import what_is_under_way
from .order_events import Order
from .replies import raised, undo_raised
from .state import Course
from .step_status import Asking, Failed, Retrying, Running, Waiting
from .undo_status import UndoAsking, UndoFailed, Undoing, UndoRetrying, UndoWaiting
from .waits import give_up


def doubt(draft: Draft, event: Doubted) -> Answer:
    """Take a doubt, however late it comes; only an action that is under way is not crossed by it."""
    if event.step_id not in draft.graph.nodes:
        return refuse(draft, "it has no such step")
    if draft.action is not None:
        return refuse(draft, what_is_under_way(draft.action))
    if event.undoing:
        _doubt_undo(draft, event)
    else:
        _doubt_attempt(draft, event)
    draft.recoveries = 0
    draft.touched.extend(draft.graph.nodes)
    return APPLIED


def _doubt_attempt(draft: Draft, event: Doubted) -> None:
    status = draft.of(event.step_id)
    if isinstance(status, Running) and not draft.quarantined:
        said = Raised(event.step_id, event.attempt, event.error, False, True, None, event.input)
        raised(draft, status, said)
    else:
        _record(draft, event, Phase.EXECUTE)
        match status:
            case Running(attempt, heard=heard) | Retrying(attempt, heard=heard):
                draft.put(event.step_id, Failed(attempt, True, heard))
            case Failed(tainted=False) | Asking() | Waiting():
                draft.put(event.step_id, replace(status, tainted=True))
    _stop_going_back(draft, event.step_id)


def _stop_going_back(draft: Draft, step_id: str) -> None:
    """Leave the effects of a saga that is over as its residue; stop a way back that its pivot forbids after all."""
    if draft.course is not Course.BACKWARD or not isinstance(status := draft.of(step_id), Failed) or not status.tainted:
        return
    if stands_at(draft).is_terminal:
        draft.course = Course.HALTED
    elif draft.graph.nodes[step_id].kind.is_final:
        abort(draft, Order())


def _doubt_undo(draft: Draft, event: Doubted) -> None:
    status = draft.of(event.step_id)
    if isinstance(status, Undoing):
        said = CompensationRaised(event.step_id, event.attempt, event.error, False, True, None, event.input)
        undo_raised(draft, status, said)
        return
    _record(draft, event, Phase.COMPENSATE)
    match status:
        case UndoRetrying(attempt, with_output=known, heard=heard):
            draft.put(event.step_id, UndoFailed(attempt, known, heard=heard))
        case UndoFailed(again=True):
            draft.put(event.step_id, replace(status, again=False))
        case UndoAsking() | UndoWaiting():
            give_up(draft, event.step_id, status)


def _record(draft: Draft, event: Doubted, phase: Phase) -> None:
    given, error = event.input, event.error
    draft.record(phase, RecordStatus.IN_DOUBT, event.step_id, event.attempt, input=given, error=error)
