"""What operators may order: each order moves the steps that it names, or is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .answers import APPLIED, Answer, refuse
from .backward_orders import abort, cancel, compensate, waive
from .draft import Draft
from .effects import Phase, RecordStatus
from .failure_orders import deal
from .forward_orders import retry, skip
from .order_events import (
    AbortOrdered,
    CancelOrdered,
    CompensateOrdered,
    FailureOrdered,
    Order,
    RetryOrdered,
    RewindOrdered,
    SkipOrdered,
    WaiveOrdered,
)
from .pause import PauseOrdered, ResumeOrdered, StepOrdered, hold
from .rewind import rewind


def obey(draft: Draft, order: Order) -> Answer:
    """Carry out an order and record it, or refuse it."""
    answer = _carry_out(draft, order)
    if answer is APPLIED:
        _sign(draft, order)
        draft.recoveries = 0
        draft.touched.extend(draft.graph.nodes)
    return answer


def _carry_out(draft: Draft, order: Order) -> Answer:
    if (obeyed := _OBEYED.get(type(order))) is None:
        return refuse(draft, f"{type(order).__name__} is no order that this version knows")
    return obeyed(draft, order)


def _sign(draft: Draft, order: Order) -> None:
    name = type(order).__name__.removesuffix("Ordered").lower()
    named = getattr(order, "step_id", None) or getattr(order, "action", None)
    signed = f"{name}:{named}" if named else name
    said = getattr(order, "patch", None)
    draft.record(Phase.ORDER, RecordStatus.SUCCESS, signed, input=said, actor=order.actor, reason=order.reason)


_OBEYED: dict[type[Order], Callable[[Draft, Any], Answer]] = {
    RetryOrdered: retry,
    SkipOrdered: skip,
    CompensateOrdered: compensate,
    CancelOrdered: cancel,
    AbortOrdered: abort,
    RewindOrdered: rewind,
    WaiveOrdered: waive,
    FailureOrdered: deal,
    PauseOrdered: hold,
    ResumeOrdered: hold,
    StepOrdered: hold,
}
