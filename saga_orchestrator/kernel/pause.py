"""The orders that hold a saga and let it go on: pause (now, or before a step), resume, and a single step.

While a saga is paused, what is in flight goes on to its end and is recorded, and nothing else begins: neither time nor
an event moves what rests. Letting it go is like taking it over from somebody: what is due is due, and what it waits
for may have come meanwhile.
"""

from __future__ import annotations

from .answers import APPLIED, Answer, refuse, stands_at
from .draft import Draft
from .effects import Verdict
from .order_events import Order
from .projection import is_live
from .rewind import proceed
from .state import Course, SagaStatus
from .step_status import Pending
from .timers import RESTING, expire
from .value import value
from .waits import look_again


@value(frozen=True, slots=True, kw_only=True)
class PauseOrdered(Order):
    """Begin nothing any more; or, with a step, nothing from the moment when that step is about to begin."""

    step_id: str | None = None


@value(frozen=True, slots=True, kw_only=True)
class ResumeOrdered(Order):
    """Go on; of a saga that is not paused: forget its breakpoints."""


@value(frozen=True, slots=True, kw_only=True)
class StepOrdered(Order):
    """Begin what is ready, once, and be paused again."""


def hold(draft: Draft, order: PauseOrdered | ResumeOrdered | StepOrdered) -> Answer:
    """Carry out one of the orders of this module, or refuse it."""
    if stands_at(draft).is_terminal:
        return refuse(draft, "it is over")
    if stands_at(draft) is SagaStatus.STUCK:
        return refuse(draft, "nothing begins by itself; retry_step, skip_step, compensate_step or waive_step mends it")
    match order:
        case PauseOrdered(step_id=step_id):
            return _pause(draft) if step_id is None else _stop_before(draft, step_id)
        case ResumeOrdered():
            return _resume(draft)
        case _:
            return _step(draft)


def _pause(draft: Draft) -> Answer:
    if draft.paused:
        return Verdict.DUPLICATE, "it is paused already"
    draft.paused = True
    return APPLIED


def _stop_before(draft: Draft, step_id: str) -> Answer:
    if step_id in draft.stops:
        return Verdict.DUPLICATE, f"it stops before step {step_id} already"
    may_begin = step_id in draft.graph.nodes and isinstance(draft.of(step_id), Pending)
    if not may_begin or draft.course is not Course.FORWARD:
        return refuse(draft, f"step {step_id} will not begin any more, or there is none")
    draft.stops = (*draft.stops, step_id)
    return APPLIED


def _resume(draft: Draft) -> Answer:
    if draft.paused:
        _let_go(draft)
        return APPLIED
    if not draft.stops:
        return Verdict.DUPLICATE, "it is not paused"
    draft.stops = ()
    return APPLIED


def _step(draft: Draft) -> Answer:
    """Go on as if resumed, past any breakpoint, as far as one decision leads; refuse where that is nowhere."""
    if not draft.paused or is_live(draft.before):
        return refuse(draft, "step needs one that is paused and has nothing in flight")
    before, stops = draft.before, draft.stops
    draft.stops = ()
    _let_go(draft)
    draft.touched.extend(draft.graph.nodes)
    proceed(draft)
    if (draft.open, draft.done, draft.course) == (before.open, before.done, before.course):
        return refuse(draft, "nothing is ready to begin; resume lets its time run")
    draft.paused = True
    draft.stops = tuple([step_id for step_id in stops if isinstance(draft.of(step_id), Pending)])
    return APPLIED


def _let_go(draft: Draft) -> None:
    """End the pause. Who waits for an event looks first whether it has come, before the time of the wait can be up."""
    draft.paused = False
    look_again(draft)
    expire(draft, RESTING)
