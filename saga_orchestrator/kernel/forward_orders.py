"""The orders that let a saga go forward: try again, or go on without a step."""

from __future__ import annotations

from .answers import APPLIED, Answer, refuse, stands_at
from .claim import release
from .draft import Draft
from .effects import Phase, RecordStatus
from .order_events import RetryOrdered, SkipOrdered
from .state import Course, SagaStatus
from .step_status import Failed, Retrying, Skipped, Succeeded, Waiting
from .undo_status import Passed, UndoAsking, UndoFailed, Undoing, Undone, UndoRetrying, UndoWaiting, Waived

SKIPPABLE = Retrying | Failed | Waiting
"""What a step is that an operator may pass over."""


def retry(draft: Draft, order: RetryOrdered) -> Answer:
    if stands_at(draft) not in (SagaStatus.SUSPENDED, SagaStatus.STUCK, SagaStatus.FAILED):
        return refuse(draft, "retry_step needs one that is SUSPENDED, STUCK or FAILED")
    if _undo_has_begun(draft):
        return refuse(draft, "its rollback has begun; use compensate_step to resume it, or waive_step")
    targets = _targets(draft, order.step_id)
    in_flight = draft.quarantined and (order.step_id is None or draft.of(order.step_id).is_live)
    if not targets and not in_flight:
        return refuse(draft, f"no step {order.step_id or 'of it'} has failed or waits for a retry")
    if draft.course is not Course.FORWARD:
        targets = _targets(draft, None)
        _forward_again(draft)
    release(draft)
    for step_id, target in targets:
        draft.start(step_id, target.attempt + 1, tainted=target.tainted, heard=target.heard)
    return APPLIED


def _targets(draft: Draft, step_id: str | None) -> list[tuple[str, Retrying | Failed]]:
    return [
        (found, status)
        for found, status in draft.open.items()
        if isinstance(status, Retrying | Failed) and step_id in (None, found)
    ]


def _undo_has_begun(draft: Draft) -> bool:
    begun = Undoing | UndoRetrying | UndoAsking | UndoWaiting | UndoFailed | Undone | Waived
    return any(isinstance(status, begun) for _, status in draft.before.all())


def _forward_again(draft: Draft) -> None:
    """Take back a turn that has undone nothing yet."""
    draft.course, draft.rewind = Course.FORWARD, None
    for step_id, status in tuple(draft.done.items()):
        if isinstance(status, Passed):
            draft.put(step_id, Succeeded(status.attempt) if status.attempt else Skipped(status.acted))


def skip(draft: Draft, order: SkipOrdered) -> Answer:
    status = stands_at(draft)
    if status not in (SagaStatus.SUSPENDED, SagaStatus.STUCK) or draft.course is not Course.FORWARD:
        return refuse(draft, "skip_step needs a saga that is SUSPENDED, or STUCK on its way forward")
    waiting = [i for i, s in draft.open.items() if isinstance(s, SKIPPABLE)]
    found = [i for i in waiting if order.step_id in (None, i)]
    if len(found) != 1:
        names = ", ".join(waiting) or "none"
        return refuse(draft, f"skip_step needs exactly one step that has failed or waits; found: {names}")
    step_id = found[0]
    draft.put(step_id, Skipped(order.acted))
    draft.choose(step_id, None)
    draft.unfold(step_id, order.items)
    release(draft)
    actor, reason = order.actor, order.reason
    draft.record(
        Phase.EXECUTE, RecordStatus.SKIPPED, step_id, output=order.output, skipped=True, actor=actor, reason=reason
    )
    return APPLIED
