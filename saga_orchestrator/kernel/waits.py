"""Waits: a step asks, and goes on when an event comes or its time is up. Whichever is decided first wins.

A step that has asked is `Asking` until somebody has looked whether the event came before the question did; then it is
`Waiting`. An event that comes meanwhile is given to it in either status, so none can slip between the two.
"""

from __future__ import annotations

from datetime import datetime

from .draft import LONGEST, Draft
from .effects import Phase, RecordStatus, Verdict
from .events import Asked, Signalled
from .projection import waits
from .state import Course, State
from .step_status import Asking, Failed, Running, StepStatus, Waiting
from .undo_status import UndoAsking, UndoFailed, Undoing, UndoWaiting

Open = Asking | Waiting | UndoAsking | UndoWaiting
SIGNAL, TIMEOUT = "signal", "timeout"
"""What history calls the end of a wait, before a colon and the step: by an event, or by time."""


def ask(draft: Draft, status: Running | Undoing, reply: Asked) -> None:
    """Begin to wait, if the saga still goes forward. Asking is an effect, of a step that can be undone or never is."""
    node = draft.graph.nodes[reply.step_id]
    limit = reply.until if reply.timeout is None else draft.after(reply.timeout)
    limit = None if limit is None else max(draft.now, min(limit, draft.after(LONGEST)))
    wait = (status.attempt, status.heard, reply.types, reply.correlation, reply.resumes)
    asking: Asking | UndoAsking
    if isinstance(status, Running):
        phase = Phase.EXECUTE
        acted = status.tainted or reply.acted or node.undoable or node.kind.is_final
        asking = Asking(*wait, limit=limit, tainted=acted)
    else:
        phase = Phase.COMPENSATE
        asking = UndoAsking(*wait, limit=limit, with_output=status.with_output)
    if isinstance(asking, Asking) and draft.course is not Course.FORWARD:
        give_up(draft, reply.step_id, asking)
    else:
        draft.put(reply.step_id, asking if reply.types else _waiting(asking))
    given, asked, began = reply.input, reply.output, reply.started_at
    draft.record(phase, RecordStatus.WAITING, reply.step_id, reply.attempt, input=given, output=asked, started_at=began)


def wait(draft: Draft, step_id: str, status: Asking | UndoAsking) -> None:
    """Wait on: nothing had come before the question."""
    draft.put(step_id, _waiting(status))


def asked_again(status: Waiting | UndoWaiting) -> Asking | UndoAsking:
    """Return a wait for which it is not known any more whether its event has come."""
    facts = (status.attempt, status.heard, status.types, status.correlation, status.resumes)
    if isinstance(status, Waiting):
        return Asking(*facts, limit=status.until, tainted=status.tainted)
    return UndoAsking(*facts, limit=status.until, with_output=status.with_output)


def look_again(draft: Draft) -> None:
    """Have every step that waits for an event look whether it has come, while nothing could be given to it."""
    for step_id, status in tuple(draft.open.items()):
        if isinstance(status, Waiting | UndoWaiting) and status.types:
            draft.put(step_id, asked_again(status))


def hear(draft: Draft, event: Signalled) -> Verdict:
    """Give the event to the one wait that it is for, if there is one."""
    step_id = event.step_id or addressee(draft.before, event.type, event.correlation, draft.now)
    status = dict(waits(draft.before)).get(step_id) if step_id is not None else None
    if step_id is None or not isinstance(status, Open) or is_up(status, draft.now):
        return Verdict.UNMATCHED
    draft.recoveries = 0
    _go_on(draft, step_id, status)
    draft.record(Phase.ORDER, RecordStatus.SUCCESS, f"{SIGNAL}:{step_id}", status.attempt, input=event.content)
    return Verdict.APPLIED


def run_out(draft: Draft, step_id: str, status: Waiting | UndoWaiting) -> None:
    """End a wait whose time is up: go on without an event, or fail for good."""
    if status.resumes:
        _go_on(draft, step_id, status)
        draft.record(Phase.ORDER, RecordStatus.SUCCESS, f"{TIMEOUT}:{step_id}", status.attempt)
        return
    phase = Phase.EXECUTE if isinstance(status, Waiting) else Phase.COMPENSATE
    draft.record(phase, RecordStatus.ERROR, step_id, status.attempt, error=f"no {' or '.join(status.types)} in time")
    give_up(draft, step_id, status)


def give_up(draft: Draft, step_id: str, status: Open) -> None:
    """End a wait without what it was for."""
    if isinstance(status, Asking | Waiting):
        draft.put(step_id, Failed(status.attempt, status.tainted, status.heard))
    else:
        draft.put(step_id, UndoFailed(status.attempt, status.with_output, heard=status.heard))


def addressee(
    state: State, kind: str, correlation: str | None, now: datetime | None, *, exact: bool = False
) -> str | None:
    """Return the step whose wait an event of this type is for, or None; a wait that nothing can reach is given none.

    A wait for just this correlation comes before one for any; of several such, that of the step whose id comes first.

    Args:
        now: Waits whose time is up by then are over; None counts them, too.
        exact: Only a wait for just this correlation will do.
    """
    found = [
        (status.correlation is None, step_id)
        for step_id, status in waits(state)
        if kind in status.types and status.correlation in (None, correlation)
        if (now is None or not is_up(status, now)) and not (exact and status.correlation is None)
    ]
    return min(found)[1] if found else None


def is_up(status: StepStatus, now: datetime) -> bool:
    """Return whether a wait's time has passed; of one that is still being looked up it has not."""
    return isinstance(status, Waiting | UndoWaiting) and status.until is not None and status.until <= now


def _waiting(asking: Asking | UndoAsking) -> Waiting | UndoWaiting:
    facts = (asking.attempt, asking.heard, asking.types, asking.correlation, asking.resumes)
    if isinstance(asking, Asking):
        return Waiting(*facts, until=asking.limit, tainted=asking.tainted)
    return UndoWaiting(*facts, until=asking.limit, with_output=asking.with_output)


def _go_on(draft: Draft, step_id: str, status: Open) -> None:
    if isinstance(status, Asking | Waiting):
        draft.start(step_id, status.attempt + 1, tainted=status.tainted, heard=status.heard + 1)
    else:
        draft.undo(step_id, status.attempt + 1, with_output=status.with_output, heard=status.heard + 1)
