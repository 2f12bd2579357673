"""The orders that end a saga otherwise than forward: undo it, stop it, or accept what nobody can undo."""

from __future__ import annotations

from .answers import APPLIED, Answer, refuse, stands_at
from .claim import release
from .draft import Draft
from .effects import Phase, RecordStatus, Verdict
from .order_events import CancelOrdered, CompensateOrdered, Order, WaiveOrdered
from .projection import is_live, residue, stands
from .rewind import remember, undo_is_closed
from .settle import resume_undo, turn
from .state import Course, SagaStatus
from .step_status import Failed, Probing, Running
from .undo_status import UndoAsking, UndoFailed, Undoing, UndoRetrying, UndoWaiting, Waived
from .waits import give_up

ABORTED = "aborted while in flight"


def compensate(draft: Draft, order: CompensateOrdered) -> Answer:
    if stands_at(draft) is SagaStatus.COMPLETED and not order.by_parent and (closed := undo_is_closed(draft, order)):
        return refuse(draft, closed)
    if stands_at(draft) in (SagaStatus.RUNNING, SagaStatus.COMPENSATED):
        return refuse(draft, "compensate_step needs one that is SUSPENDED, STUCK, FAILED or COMPENSATING")
    if draft.is_committed() or draft.finals_live():
        return refuse(draft, "it is past its pivot and can only go forward: retry_step or skip_step")
    if draft.course is Course.BACKWARD:
        return _resume(draft)
    if not any(stands(draft.graph, step_id, status) for step_id, status in draft.before.all()):
        return refuse(draft, "no step has acted, so there is nothing to undo")
    turn(draft, Course.BACKWARD)
    release(draft)
    resume_undo(draft)
    return APPLIED


def _resume(draft: Draft) -> Answer:
    release(draft)
    if resume_undo(draft) or draft.before.quarantined:
        return APPLIED
    if is_live(draft.before) or draft.paused:
        return Verdict.DUPLICATE, "it is being undone already"
    return refuse(draft, "there is no undo left that can be tried; waive_step accepts what stands")


def cancel(draft: Draft, _: CancelOrdered) -> Answer:
    if stands_at(draft).is_terminal:
        return refuse(draft, "it is over")
    if draft.course is Course.BACKWARD:
        if draft.rewind is not None:
            return _all_the_way(draft)
        if stands_at(draft) is SagaStatus.STUCK:
            return refuse(draft, "its undo does not go on by itself: compensate_step resumes it, or waive_step")
        return Verdict.DUPLICATE, "it is being undone already"
    if draft.is_committed() or draft.finals_live():
        return refuse(draft, "its pivot has begun, so it can only go forward")
    turn(draft, Course.BACKWARD)
    release(draft)
    return APPLIED


def _all_the_way(draft: Draft) -> Answer:
    """Go on undoing where a rewind would have gone forward again."""
    draft.rewind = None
    release(draft)
    return APPLIED


def abort(draft: Draft, _: Order) -> Answer:
    if stands_at(draft).is_terminal:
        return refuse(draft, "it is over")
    turn(draft, Course.HALTED)
    draft.quarantined, draft.rewind = False, None
    for step_id, status in tuple(draft.open.items()):
        match status:
            case Running(attempt) | Probing(attempt):
                is_clean = draft.graph.nodes[step_id].transactional and not getattr(status, "tainted", True)
                draft.put(step_id, Failed(attempt, not is_clean, status.heard))
                ended = RecordStatus.ERROR if is_clean else RecordStatus.IN_DOUBT
                draft.record(Phase.EXECUTE, ended, step_id, attempt, error=ABORTED)
            case Undoing(attempt, with_output=known):
                draft.put(step_id, UndoFailed(attempt, known, heard=status.heard))
                draft.record(Phase.COMPENSATE, RecordStatus.IN_DOUBT, step_id, attempt, error=ABORTED)
            case UndoRetrying(attempt, with_output=known):
                draft.put(step_id, UndoFailed(attempt, known, heard=status.heard))
            case UndoAsking() | UndoWaiting():
                give_up(draft, step_id, status)
    return APPLIED


def waive(draft: Draft, order: WaiveOrdered) -> Answer:
    if not order.actor:
        return refuse(draft, "a waiver needs the name of the operator who takes it on himself: actor=")
    if stands_at(draft) not in (SagaStatus.STUCK, SagaStatus.FAILED) or draft.course is Course.FORWARD:
        return refuse(draft, "waive_step needs one whose rollback is STUCK, or that has FAILED")
    if order.step_id not in residue(draft.graph, draft.before):
        return refuse(draft, f"step {order.step_id} is not part of its residue")
    remember(draft, order.step_id)
    draft.put(order.step_id, Waived())
    release(draft)
    return APPLIED
