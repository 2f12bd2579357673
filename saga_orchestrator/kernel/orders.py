"""What operators may order: each order moves the steps that it names, or is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .answers import APPLIED, Answer, refuse
from .backward_orders import abort, cancel, compensate, waive
from .draft import Draft
from .effects import Phase, RecordStatus
from .failure_orders import deal, end, what_is_under_way
from .forward_orders import retry, skip
from .order_events import (
    AbortOrdered,
    ActionEnded,
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
        if not isinstance(order, FailureOrdered | ActionEnded):  # these say how they stand
            _sign(draft, order)
        draft.recoveries = 0
        draft.touched.extend(draft.graph.nodes)
    return answer


def _carry_out(draft: Draft, order: Order) -> Answer:
    if (obeyed := _OBEYED.get(type(order))) is None:
        return refuse(draft, f"{type(order).__name__} is no order that this version knows")
    if draft.action is not None and not isinstance(order, ActionEnded):
        return refuse(draft, what_is_under_way(draft.action))
    return obeyed(draft, order)


def _sign(draft: Draft, order: Order) -> None:
    name = type(order).__name__.removesuffix("Ordered").lower()
    named = getattr(order, "step_id", None)
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
    ActionEnded: end,
    PauseOrdered: hold,
    ResumeOrdered: hold,
    StepOrdered: hold,
}
