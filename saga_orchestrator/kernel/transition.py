"""`decide`: which of the rules an event is for. What follows from it for the rest of the saga is `settle`'s."""

from __future__ import annotations

from datetime import datetime

from ..definition.graph import Graph
from .claim import count_crash, take_over
from .doubts import doubt
from .draft import Draft
from .effects import Decision, Phase, RecordStatus, Verdict
from .events import Claimed, Doubted, Event, Noted, Notified, Signalled, Ticked
from .failure_orders import lose
from .notes import keep
from .order_events import Order
from .orders import obey
from .projection import is_live
from .replies import take
from .rewind import proceed
from .state import State
from .timers import RESTING, TIMED, end_pauses, expire
from .waits import hear

NOTIFY = "notify"


def decide(graph: Graph, state: State, event: Event, *, now: datetime) -> Decision:
    """Return the state after `event`, the work that it orders and the records that it leaves.

    Pure, total, and never raising for anything that an event can say: an event that does not fit is answered by a
    verdict, with the state unchanged.
    """
    draft = Draft(graph, state, now)
    verdict, reason = _apply(draft, event)
    if verdict is not Verdict.APPLIED:
        return Decision(state, (), (), verdict, reason)
    proceed(draft)
    return draft.decision()


def _apply(draft: Draft, event: Event) -> tuple[Verdict, str]:
    if isinstance(event, Order | Doubted):
        return obey(draft, event) if isinstance(event, Order) else doubt(draft, event)
    if draft.action is not None and isinstance(event, Claimed):
        lose(draft, draft.action, crashed=event.crashed)
        return Verdict.APPLIED, ""
    if draft.quarantined:
        return _ignored(event), ""
    match event:
        case Claimed(crashed):
            _claimed(draft, crashed)
        case Ticked(spared):
            expire(draft, TIMED, spared)
        case Notified():
            return _notified(draft, event), ""
        case Signalled():
            return hear(draft, event), ""
        case Noted():
            return keep(draft, event), ""
        case _:  # Reply
            return take(draft, event), ""
    return Verdict.APPLIED, ""


def _ignored(event: Event) -> Verdict:
    """Answer for a quarantined saga, which nothing moves but an order."""
    match event:
        case Claimed() | Ticked():
            return Verdict.APPLIED
        case Notified() | Signalled():
            return Verdict.UNMATCHED
        case _:
            return Verdict.STALE


def _claimed(draft: Draft, crashed: bool) -> None:
    """Take over from whoever had it, unless it has lost too many owners."""
    if crashed and is_live(draft.before) and not count_crash(draft):
        return
    take_over(draft)
    if not draft.open and not draft.done:
        draft.touched.extend(draft.graph.roots)
    expire(draft, RESTING)


def _notified(draft: Draft, event: Notified) -> Verdict:
    if draft.paused or not end_pauses(draft):
        return Verdict.UNMATCHED
    draft.record(Phase.ORDER, RecordStatus.SUCCESS, NOTIFY, input=event.payload)
    return Verdict.APPLIED
