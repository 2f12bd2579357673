"""Going back to a step, and forward again from there.

A rewind is the undoing of a part of a saga: of the step that it goes back to, and of whatever comes after that. It
obeys the rules of any undoing. When nothing of the part stands any more, its steps are as if they had never run, and
the saga goes forward.

What they have been is not forgotten altogether. Their attempts go on counting where they were, so that the late answer
of an earlier one is never taken for theirs; and the same number tells their new effects from those that were undone.

What comes beside the part is left alone. What had failed or waited there is tried again when the saga goes forward.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from .answers import APPLIED, Answer, refuse, stands_at
from .claim import release
from .draft import Draft
from .effects import Phase, RecordStatus
from .holding import is_held
from .order_events import CompensateOrdered, RewindOrdered
from .settle import is_settled, settle, turn
from .state import Course, Rewind, SagaStatus
from .step_status import Failed, Omitted, Pending
from .undo_status import UndoFailed

REWIND = "rewind"
"""What history calls the order."""
REWOUND = "rewound"
"""What it calls the end of a rewind; with the steps that are such as never ran."""


def rewind(draft: Draft, order: RewindOrdered) -> Answer:
    """Turn back as far as the step."""
    status, step_id = stands_at(draft), order.step_id
    if status is SagaStatus.COMPLETED and (closed := undo_is_closed(draft, order)):
        return refuse(draft, closed)
    if draft.course is not Course.FORWARD:
        return refuse(draft, "it has turned back already")
    if draft.is_committed() or draft.finals_live():
        return refuse(draft, "it is past its pivot and can only go forward")
    if isinstance(draft.of(step_id), Pending | Omitted):
        return refuse(draft, f"it has not come to a step '{step_id}'")
    part = draft.graph.part(step_id)
    tried = {i: attempt for i in part if (attempt := getattr(draft.of(i), "attempt", 0)) > 1}
    draft.rewind = Rewind(step_id, tried)
    turn(draft, Course.BACKWARD)
    release(draft)
    return APPLIED


def undo_is_closed(draft: Draft, order: CompensateOrdered | RewindOrdered) -> str:
    """Return why a saga that has completed can no longer be undone; nothing if it can."""
    window = draft.graph.undo_window
    if window is None:
        return "its definition opens no undo_window"
    if order.finished_at is None or draft.now - order.finished_at > window:
        return f"its undo window of {window} has closed"
    return ""


def remember(draft: Draft, step_id: str) -> None:
    """Note how far a step has counted whose status is about to forget it."""
    attempt = getattr(draft.of(step_id), "attempt", 0)
    if draft.rewind is not None:
        tried = draft.rewind.tried
        draft.rewind = Rewind(draft.rewind.to, {**tried, step_id: max(tried.get(step_id, 1), attempt)})


def proceed(draft: Draft) -> None:
    """Move every step that may move by itself now; end a rewind, if its time has come."""
    settle(draft)
    if draft.rewind is not None and draft.course is Course.BACKWARD and not is_held(draft):
        go_forward_again(draft)
        settle(draft)


def go_forward_again(draft: Draft) -> None:
    """End a rewind, if nothing of its part stands any more."""
    assert draft.rewind is not None
    part = draft.graph.part(draft.rewind.to)
    if not all(_is_gone(draft, step_id) for step_id in part):
        return
    again = dict(_spent(draft, draft.rewind))
    draft.record(Phase.ORDER, RecordStatus.SUCCESS, f"{REWOUND}:{draft.rewind.to}", input=json.dumps(list(again)))
    draft.spent = {**draft.spent, **again}
    draft.forget(part)
    draft.rewind, draft.course = None, Course.FORWARD
    for step_id, status in tuple(draft.open.items()):
        if isinstance(status, Failed):
            draft.start(step_id, status.attempt + 1, tainted=status.tainted, heard=status.heard)
    draft.touched.extend(draft.graph.nodes)


def _is_gone(draft: Draft, step_id: str) -> bool:
    """Return whether the step never ran, left nothing, or is undone or waived."""
    status = draft.of(step_id)
    return not isinstance(status, UndoFailed) and is_settled(draft, step_id)


def _spent(draft: Draft, rewound: Rewind) -> Iterator[tuple[str, int]]:
    """Yield how far each step of the part has counted, doing and undoing."""
    for step_id in draft.graph.part(rewound.to):
        if not isinstance(draft.of(step_id), Pending | Omitted):
            now = getattr(draft.of(step_id), "attempt", 0)
            yield step_id, max(draft.spent.get(step_id, 0), rewound.tried.get(step_id, 1), now)
