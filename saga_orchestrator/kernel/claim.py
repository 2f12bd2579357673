"""What a new owner makes of a saga: attempts nobody will answer are in doubt, and what is due is due.

There is no recovery mode. A claimed saga goes through `decide` like any other, with `Claimed` as the event.
"""

from __future__ import annotations

from dataclasses import replace

from .draft import Draft
from .effects import Phase, RecordStatus
from .state import Course
from .step_status import Asking, Failed, Probing, Running
from .undo_status import UndoAsking, Undoing
from .waits import look_again

LOST = "the worker was lost while the attempt was in flight"


def count_crash(draft: Draft) -> bool:
    """Count a lost owner; quarantine the saga and return False when it has lost too many without any progress."""
    draft.recoveries += 1
    if draft.recoveries <= draft.graph.max_recoveries:
        return True
    draft.quarantined = True
    error = f"quarantined: {draft.recoveries} owners in a row were lost without any progress"
    draft.record(Phase.ORDER, RecordStatus.ERROR, "quarantine", error=error)
    return False


def take_over(draft: Draft) -> None:
    """Set everything that was in flight going again, under the same attempt and therefore the same key."""
    for step_id, status in tuple(draft.open.items()):
        if isinstance(status, Running):
            ended = RecordStatus.ERROR if draft.graph.nodes[step_id].transactional else RecordStatus.IN_DOUBT
            draft.record(Phase.EXECUTE, ended, step_id, status.attempt, error=LOST)
            _lost(draft, step_id, status)
        elif isinstance(status, Undoing):
            draft.record(Phase.COMPENSATE, RecordStatus.IN_DOUBT, step_id, status.attempt, error=LOST)
            known, heard = status.with_output, status.heard
            draft.undo(step_id, status.attempt, status.failures, with_output=known, heard=heard)
        elif isinstance(status, Probing):
            draft.probe(step_id, status, retryable=status.retryable, lost=status.lost)
        elif isinstance(status, Asking | UndoAsking):
            draft.put(step_id, replace(status))


def release(draft: Draft) -> None:
    """Let a quarantined saga go on, as a new owner would: what was in flight is in doubt.

    What it waits for may have come meanwhile, when nothing could be given to it.
    """
    if draft.quarantined:
        draft.quarantined = False
        take_over(draft)
        if not draft.paused:
            look_again(draft)


def _lost(draft: Draft, step_id: str, status: Running) -> None:
    """Settle an attempt that nobody will answer: ask, run it again, or count it as having acted, if it may have.

    Off the way forward it is run again only to learn the output, where the compensation cannot do without.
    """
    node = draft.graph.nodes[step_id]
    tainted = status.tainted or not node.transactional
    only_with_output = node.undoable and not node.undo_without_output and not node.nothing_to_undo
    learns = draft.course is Course.BACKWARD and only_with_output and tainted
    if node.probes and not node.transactional:
        draft.probe(step_id, status, lost=True)
    elif draft.course is Course.FORWARD or learns:
        draft.start(step_id, status.attempt, status.failures, tainted=tainted, heard=status.heard)
    else:
        draft.put(step_id, Failed(status.attempt, tainted, status.heard))
