"""What operators may order: each order moves the steps that it names, or is refused with a reason."""

from __future__ import annotations

from .answers import APPLIED, Answer, refuse
from .backward_orders import abort, cancel, compensate, waive
from .draft import Draft
from .effects import Phase, RecordStatus
from .events import AbortOrdered, CancelOrdered, CompensateOrdered, Order, RetryOrdered, SkipOrdered, WaiveOrdered
from .forward_orders import retry, skip
from .rewind import RewindOrdered, rewind


def obey(draft: Draft, order: Order) -> Answer:
    """Carry out an order and record it, or refuse it."""
    answer = _carry_out(draft, order)
    if answer is APPLIED:
        _sign(draft, order)
        draft.recoveries = 0
        draft.touched.extend(draft.graph.nodes)
    return answer


def _carry_out(draft: Draft, order: Order) -> Answer:
    match order:
        case RetryOrdered():
            return retry(draft, order)
        case SkipOrdered():
            return skip(draft, order)
        case CompensateOrdered():
            return compensate(draft, order)
        case CancelOrdered():
            return cancel(draft)
        case AbortOrdered():
            return abort(draft)
        case RewindOrdered():
            return rewind(draft, order)
        case WaiveOrdered():
            return waive(draft, order)
        case _:
            return refuse(draft, f"{type(order).__name__} is no order that this version knows")


def _sign(draft: Draft, order: Order) -> None:
    name = type(order).__name__.removesuffix("Ordered").lower()
    named = getattr(order, "step_id", None)
    signed = f"{name}:{named}" if named else name
    said = getattr(order, "patch", None)
    draft.record(Phase.ORDER, RecordStatus.SUCCESS, signed, input=said, actor=order.actor, reason=order.reason)
