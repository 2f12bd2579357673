"""The orders about a saga that has failed: what is done outside of its steps, by its author's hooks or by hand.

An action that calls a hook is claimed before the call: it stands in the state until the hook has returned or raised,
and meanwhile the saga obeys no other order. A crash leaves the claim, so the next owner calls the same hook again; two
different actions are never under way at once.
"""

from __future__ import annotations

from dataclasses import replace

from .answers import APPLIED, Answer, refuse, stands_at
from .backward_orders import abort
from .draft import Draft
from .effects import Phase, RecordStatus
from .order_events import ActionEnded, FailureOrdered
from .projection import stands
from .state import Action, Course, SagaStatus
from .undo_status import Waived

FAILURE = "failure"
"""What history calls such an order, before a colon and the action."""


def deal(draft: Draft, order: FailureOrdered) -> Answer:
    """Claim an action, or carry out one that calls no hook."""
    if stands_at(draft) not in (SagaStatus.STUCK, SagaStatus.FAILED):
        return refuse(draft, "only what is STUCK or has FAILED is dealt with")
    if order.closes and not order.actor:
        return refuse(draft, "to close everything needs the name of the operator who has: actor=")
    if order.closes and stands_at(draft) is SagaStatus.FAILED and not _standing(draft):
        return refuse(draft, "nothing of it stands")
    begun = RecordStatus.SUCCESS
    if order.calls:
        draft.action = Action(order.action, order.actor, order.reason, order.closes, order.again)
        begun = RecordStatus.WAITING
    name, actor, reason = f"{FAILURE}:{order.action}", order.actor, order.reason
    draft.record(Phase.ORDER, begun, name, actor=actor, reason=reason)
    return APPLIED


def end(draft: Draft, order: ActionEnded) -> Answer:
    """Release the claim. If the action has closed the saga, waive the steps that stand."""
    action = draft.action
    if action is None:
        return refuse(draft, "no action is under way")
    draft.action = None
    if order.came_off and action.closes:
        _close(draft, order)
    failed = RecordStatus.IN_DOUBT if order.in_doubt else RecordStatus.ERROR
    ended = RecordStatus.SUCCESS if order.came_off else failed
    name, error = f"{FAILURE}:{action.name}", None if order.came_off else order.error
    draft.record(Phase.ORDER, ended, name, error=error, actor=order.actor, reason=order.reason)
    return APPLIED


def what_is_under_way(action: Action) -> str:
    """Return why an order is refused while an action is under way."""
    return f"{action.name}, ordered by {action.actor or 'an operator'}, is under way; wait until it has ended"


def lose(draft: Draft, action: Action, *, crashed: bool) -> None:
    """Have a new owner go on with an action; give it up when too many owners have vanished in it."""
    if not crashed:
        return
    lost = action.lost + 1
    if lost <= draft.graph.max_recoveries:
        draft.action = replace(action, lost=lost)
        return
    draft.action = None
    error = f"given up: {lost} owners were lost while {action.name} was under way; it may have acted"
    name = f"{FAILURE}:{action.name}"
    draft.record(Phase.ORDER, RecordStatus.IN_DOUBT, name, error=error, actor=action.actor, reason=action.reason)


def _close(draft: Draft, order: ActionEnded) -> None:
    """Waive all that stands. A saga that could go on does not: there is nothing left that it could build upon."""
    if draft.quarantined or draft.rewind is not None or draft.course is Course.FORWARD:
        abort(draft, order)
    for step_id in _standing(draft):
        draft.put(step_id, Waived())


def _standing(draft: Draft) -> list[str]:
    known = (*draft.open.items(), *draft.done.items())
    return [step_id for step_id, status in known if stands(draft.graph, step_id, status)]
