"""What time does to a saga: attempts run out of it, and pauses come to their end."""

from __future__ import annotations

from collections.abc import Container

from .draft import Draft
from .events import CompensationRaised, Probed, ProbeOutcome, Raised
from .replies import probed, raised, undo_raised
from .step_status import Probing, Retrying, Running, Waiting
from .undo_status import Undoing, UndoRetrying, UndoWaiting
from .waits import run_out

TIMED_OUT = "the attempt timed out"

Timed = Retrying | UndoRetrying | Waiting | UndoWaiting | Running | Probing | Undoing
PAUSES: tuple[type[Timed], ...] = (Retrying, UndoRetrying)
RESTING: tuple[type[Timed], ...] = (*PAUSES, Waiting, UndoWaiting)
TIMED: tuple[type[Timed], ...] = (*RESTING, Running, Probing, Undoing)


def expire(draft: Draft, kinds: tuple[type[Timed], ...], spared: Container[str] = ()) -> None:
    """Do what is due to every step whose time is up and whose status is of these kinds, save those that are spared.

    In a pause, what rests goes on resting.
    """
    for step_id, status in [(i, s) for i, s in draft.open.items() if i not in spared]:
        if draft.paused and not status.is_live:
            continue
        if isinstance(status, kinds) and status.until is not None and status.until <= draft.now:
            _due(draft, step_id, status)


def end_pauses(draft: Draft) -> bool:
    """Start every attempt that waits for its pause to end; return whether there was any."""
    waiting = [(step_id, status) for step_id, status in draft.open.items() if isinstance(status, PAUSES)]
    for step_id, status in waiting:
        _due(draft, step_id, status)
    return bool(waiting)


def _due(draft: Draft, step_id: str, status: Timed) -> None:
    if isinstance(status, Retrying):
        draft.start(step_id, status.attempt + 1, status.failures, tainted=status.tainted, heard=status.heard)
    elif isinstance(status, UndoRetrying):
        known, heard = status.with_output, status.heard
        draft.undo(step_id, status.attempt + 1, status.failures, with_output=known, heard=heard)
    elif isinstance(status, Waiting | UndoWaiting):
        run_out(draft, step_id, status)
    elif isinstance(status, Running):
        may_have_acted = not draft.graph.nodes[step_id].transactional
        raised(draft, status, Raised(step_id, status.attempt, TIMED_OUT, in_doubt=may_have_acted))
    elif isinstance(status, Probing):
        probed(draft, status, Probed(step_id, status.attempt, ProbeOutcome.UNKNOWN, error=TIMED_OUT))
    else:
        undo_raised(draft, status, CompensationRaised(step_id, status.attempt, TIMED_OUT, in_doubt=True))
