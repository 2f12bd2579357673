"""A saga's deadline: until when it may take, as long as it can be taken back."""

from __future__ import annotations

from .draft import Draft
from .effects import Phase, RecordStatus
from .state import Course

DEADLINE = "deadline"
"""What history calls the end of a saga's time."""


def is_out_of_time(draft: Draft) -> bool:
    """Return whether the saga is to be taken back now, and record it.

    While a step is in flight whose effect may forbid that, it is only noted.
    """
    draft.overdue = draft.overdue or (draft.deadline is not None and draft.deadline <= draft.now)
    forget_deadline(draft)
    if not draft.overdue:
        return False
    draft.deadline = None
    if draft.finals_live():
        return False
    draft.record(Phase.ORDER, RecordStatus.ERROR, DEADLINE, error="the saga's deadline has passed")
    return True


def forget_deadline(draft: Draft) -> None:
    """Drop the deadline of a saga that cannot be taken back any more: it is, or it is past its pivot, or over."""
    is_over = len(draft.done) == len(draft.graph.nodes)
    if draft.course is not Course.FORWARD or is_over or draft.is_committed():
        draft.deadline, draft.overdue = None, False
