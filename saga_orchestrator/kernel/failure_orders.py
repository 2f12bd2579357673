"""The order that says what was done about a saga that has failed, outside of it: by its author's code, or by hand."""

from __future__ import annotations

from .answers import APPLIED, Answer, refuse, stands_at
from .backward_orders import abort
from .draft import Draft
from .order_events import FailureOrdered
from .projection import stands
from .state import Course, SagaStatus
from .undo_status import Waived


def deal(draft: Draft, order: FailureOrdered) -> Answer:
    if stands_at(draft) not in (SagaStatus.STUCK, SagaStatus.FAILED):
        return refuse(draft, "only what is STUCK or has FAILED is dealt with")
    return _close(draft, order) if order.closed else APPLIED


def _close(draft: Draft, order: FailureOrdered) -> Answer:
    """Waive all that stands. A saga that could go on does not: there is nothing left that it could build upon."""
    if not order.actor:
        return refuse(draft, "to close everything needs the name of the operator who has: actor=")
    if draft.quarantined or draft.rewind is not None or draft.course is Course.FORWARD:
        abort(draft, order)
    known = (*draft.open.items(), *draft.done.items())
    standing = [step_id for step_id, status in known if stands(draft.graph, step_id, status)]
    if not standing and stands_at(draft) is SagaStatus.FAILED:
        return refuse(draft, "nothing of it stands")
    for step_id in standing:
        draft.put(step_id, Waived())
    return APPLIED
