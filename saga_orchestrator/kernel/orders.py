"""What operators may order, and when: each order moves the steps that it names, or is refused with a reason.

A refusal is an answer, not an error: the reason says what the saga's state is and what is allowed instead.
"""

from __future__ import annotations

from .claim import take_over
from .draft import Draft
from .effects import Phase, RecordStatus, Verdict
from .events import (
    AbortOrdered,
    CancelOrdered,
    CompensateOrdered,
    Order,
    RetryOrdered,
    SkipOrdered,
    WaiveOrdered,
)
from .projection import is_live, stands, status_of
from .settle import resume_undo, turn
from .state import (
    Course,
    Failed,
    Passed,
    Probing,
    Retrying,
    Running,
    SagaStatus,
    Skipped,
    Succeeded,
    UndoFailed,
    Undoing,
    Undone,
    UndoRetrying,
    Waived,
)

Answer = tuple[Verdict, str]
APPLIED: Answer = (Verdict.APPLIED, "")


def obey(draft: Draft, order: Order) -> Answer:
    """Carry out an order and record it, or refuse it."""
    match order:
        case RetryOrdered():
            answer = _retry(draft, order)
        case SkipOrdered():
            answer = _skip(draft, order)
        case CompensateOrdered():
            answer = _compensate(draft)
        case CancelOrdered():
            answer = _cancel(draft)
        case AbortOrdered():
            answer = _abort(draft)
        case WaiveOrdered():
            answer = _waive(draft, order)
        case _:  # pragma: no cover - the match is total; a new order must be named here
            raise NotImplementedError(type(order))
    if answer is APPLIED:
        _sign(draft, order)
        _release(draft)
        draft.recoveries = 0
    return answer


def _sign(draft: Draft, order: Order) -> None:
    name = type(order).__name__.removesuffix("Ordered").lower()
    named = getattr(order, "step_id", None)
    signature = {"actor": order.actor, "reason": order.reason}
    draft.record(Phase.ORDER, RecordStatus.SUCCESS, f"{name}:{named}" if named else name, **signature)


def _refuse(draft: Draft, what: str) -> Answer:
    return Verdict.REFUSED, f"it is {_status(draft).value}: {what}"


def _status(draft: Draft) -> SagaStatus:
    return status_of(draft.graph, draft.before)


def _retry(draft: Draft, order: RetryOrdered) -> Answer:
    if _status(draft) not in (SagaStatus.SUSPENDED, SagaStatus.STUCK, SagaStatus.FAILED):
        return _refuse(draft, "retry_step needs one that is SUSPENDED, STUCK or FAILED")
    if _undo_has_begun(draft):
        return _refuse(draft, "its rollback has begun; use compensate_step to resume it, or waive_step")
    targets = _targets(draft, order.step_id)
    if not targets and not draft.quarantined:
        return _refuse(draft, f"no step {order.step_id or 'of it'} has failed or waits for a retry")
    if draft.course is not Course.FORWARD:
        targets = _targets(draft, None)
        _forward_again(draft)
    for step_id, target in targets:
        draft.start(step_id, target.attempt + 1, tainted=target.tainted)
    _release(draft)
    return APPLIED


def _release(draft: Draft) -> None:
    """Let a quarantined saga go on: what was in flight is in doubt."""
    if draft.quarantined:
        draft.quarantined = False
        take_over(draft)


def _targets(draft: Draft, step_id: str | None) -> list[tuple[str, Retrying | Failed]]:
    return [
        (found, status)
        for found, status in draft.open.items()
        if isinstance(status, Retrying | Failed) and step_id in (None, found)
    ]


def _undo_has_begun(draft: Draft) -> bool:
    begun = Undoing | UndoRetrying | UndoFailed | Undone | Waived
    return any(isinstance(status, begun) for _, status in draft.before.all())


def _forward_again(draft: Draft) -> None:
    """Take back a turn that has undone nothing yet."""
    draft.course = Course.FORWARD
    for step_id, status in tuple(draft.done.items()):
        if isinstance(status, Passed):
            draft.put(step_id, Succeeded(status.attempt) if status.attempt else Skipped())
    draft.touched.extend(draft.graph.nodes)


def _skip(draft: Draft, order: SkipOrdered) -> Answer:
    status = _status(draft)
    if status not in (SagaStatus.SUSPENDED, SagaStatus.STUCK) or draft.course is not Course.FORWARD:
        return _refuse(draft, "skip_step needs a saga that is SUSPENDED, or STUCK on its way forward")
    targets = _targets(draft, order.step_id)
    if len(targets) != 1:
        found = ", ".join(step_id for step_id, _ in targets) or "none"
        return _refuse(draft, f"skip_step needs exactly one step that has failed or waits for a retry; found: {found}")
    step_id = targets[0][0]
    draft.put(step_id, Skipped(order.acted))
    signature = {"actor": order.actor, "reason": order.reason}
    draft.record(Phase.EXECUTE, RecordStatus.SKIPPED, step_id, output=order.output, skipped=True, **signature)
    return APPLIED


def _compensate(draft: Draft) -> Answer:
    allowed = (SagaStatus.SUSPENDED, SagaStatus.STUCK, SagaStatus.FAILED, SagaStatus.COMPENSATING)
    if _status(draft) not in allowed:
        return _refuse(draft, "compensate_step needs one that is SUSPENDED, STUCK, FAILED or COMPENSATING")
    if draft.is_committed() or draft.finals_live():
        return _refuse(draft, "it is past its pivot and can only go forward: retry_step or skip_step")
    if draft.course is Course.BACKWARD:
        return _resume(draft)
    if not any(stands(draft.graph, step_id, status) for step_id, status in draft.before.all()):
        return _refuse(draft, "no step has acted, so there is nothing to undo")
    turn(draft, Course.BACKWARD)
    _release(draft)
    resume_undo(draft)
    return APPLIED


def _resume(draft: Draft) -> Answer:
    if resume_undo(draft) or draft.quarantined:
        _release(draft)
        return APPLIED
    if is_live(draft.before):
        return Verdict.DUPLICATE, "it is being undone already"
    return _refuse(draft, "there is no undo left that can be tried; waive_step accepts what stands")


def _cancel(draft: Draft) -> Answer:
    if _status(draft).is_terminal:
        return _refuse(draft, "it is over")
    if draft.course is Course.BACKWARD:
        return Verdict.DUPLICATE, "it is being undone already"
    if draft.is_committed() or draft.finals_live():
        return _refuse(draft, "its pivot has begun, so it can only go forward")
    turn(draft, Course.BACKWARD)
    _release(draft)
    return APPLIED


def _abort(draft: Draft) -> Answer:
    if _status(draft).is_terminal:
        return _refuse(draft, "it is over")
    turn(draft, Course.HALTED)
    for step_id, status in tuple(draft.open.items()):
        match status:
            case Running(attempt) | Probing(attempt):
                draft.put(step_id, Failed(attempt, tainted=True))
                draft.record(Phase.EXECUTE, RecordStatus.IN_DOUBT, step_id, attempt, error="aborted while in flight")
            case Undoing(attempt, with_output=known) | UndoRetrying(attempt, with_output=known):
                draft.put(step_id, UndoFailed(attempt, known))
    return APPLIED


def _waive(draft: Draft, order: WaiveOrdered) -> Answer:
    if not order.actor:
        return _refuse(draft, "a waiver needs the name of the operator who takes it on himself: actor=")
    if _status(draft) not in (SagaStatus.STUCK, SagaStatus.FAILED) or draft.course is Course.FORWARD:
        return _refuse(draft, "waive_step needs one whose rollback is STUCK, or that has FAILED")
    if not stands(draft.graph, order.step_id, draft.of(order.step_id)):
        return _refuse(draft, f"step {order.step_id} is not part of its residue")
    draft.put(order.step_id, Waived())
    return APPLIED
