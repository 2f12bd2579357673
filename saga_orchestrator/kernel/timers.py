"""What time does to a saga: attempts run out of it, and pauses come to their end."""

from __future__ import annotations

from .draft import Draft
from .events import CompensationRaised, Probed, ProbeOutcome, Raised
from .replies import probed, raised, undo_raised
from .state import Probing, Retrying, Running, StepStatus, Undoing, UndoRetrying

TIMED_OUT = "the attempt timed out"
PAUSES = (Retrying, UndoRetrying)
TIMED = (*PAUSES, Running, Probing, Undoing)


def expire(draft: Draft, kinds: tuple[type[StepStatus], ...]) -> None:
    """Do what is due to every step whose time is up and whose status is of these kinds."""
    for step_id, status in tuple(draft.open.items()):
        until = getattr(status, "until", None)
        if until is not None and until <= draft.now and isinstance(status, kinds):
            _due(draft, step_id, status)


def end_pauses(draft: Draft) -> bool:
    """Start every attempt that waits for its pause to end; return whether there was any."""
    waiting = [(step_id, status) for step_id, status in draft.open.items() if isinstance(status, PAUSES)]
    for step_id, status in waiting:
        _due(draft, step_id, status)
    return bool(waiting)


def _due(draft: Draft, step_id: str, status: StepStatus) -> None:
    match status:
        case Retrying(attempt, failures, _, tainted):
            draft.start(step_id, attempt + 1, failures, tainted=tainted)
        case UndoRetrying(attempt, failures, _, with_output):
            draft.undo(step_id, attempt + 1, failures, with_output=with_output)
        case Running(attempt):
            raised(draft, status, Raised(step_id, attempt, TIMED_OUT, in_doubt=True))
        case Probing(attempt):
            probed(draft, status, Probed(step_id, attempt, ProbeOutcome.UNKNOWN, error=TIMED_OUT))
        case Undoing(attempt):
            undo_raised(draft, status, CompensationRaised(step_id, attempt, TIMED_OUT, in_doubt=True))
