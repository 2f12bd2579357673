"""Notes: what an attempt has done of its work so far, kept for the attempts after it.

A note is a history row and moves nothing: the attempt is in flight before and afterwards. It fits while just that
attempt is; what an attempt notes that is over, nobody would read.
"""

from __future__ import annotations

from .draft import Draft
from .effects import Phase, RecordStatus, Verdict
from .events import Noted
from .step_status import Running
from .undo_status import Undoing

ONCE, ONCE_UNDO = "once", "once-undo"
"""What history calls a note, before a colon and the step: of its way forward, and of its undo."""


def name_of(step_id: str, *, undoing: bool) -> str:
    """Return what history calls a step's notes."""
    return f"{ONCE_UNDO if undoing else ONCE}:{step_id}"


def keep(draft: Draft, note: Noted) -> Verdict:
    """Keep what an attempt has done, if it is in flight; that it got that far is progress."""
    wanted, name = Undoing if note.undoing else Running, name_of(note.step_id, undoing=note.undoing)
    status = draft.of(note.step_id) if note.step_id in draft.graph.nodes else None
    if not isinstance(status, wanted) or status.attempt != note.attempt:
        return Verdict.STALE
    draft.recoveries = 0
    draft.record(Phase.ORDER, RecordStatus.SUCCESS, name, note.attempt, input=note.content)
    return Verdict.APPLIED
