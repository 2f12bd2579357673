"""The state-triggered moves, applied to a fixed point: who may start, which way the saga goes, who may be undone.

`settle` looks only at the neighbours of what has moved (`draft.touched`), so that a decision costs the same in a saga of
five steps and of five hundred; that this finds all that a look at every step would find is one of the laws.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from .draft import Draft
from .state import (
    Course,
    Failed,
    Passed,
    Pending,
    Retrying,
    Skipped,
    Succeeded,
    UndoFailed,
    Undone,
    UndoRetrying,
    Waived,
)


def settle(draft: Draft) -> None:
    """Move every step that may move by itself now."""
    if draft.quarantined:
        return
    if draft.course is Course.FORWARD and draft.has_failed() and not _choose_way(draft):
        return
    if draft.course is Course.FORWARD:
        _start_ready(draft)
    elif draft.course is Course.BACKWARD:
        _unwind(draft)


def _choose_way(draft: Draft) -> bool:
    """After a failure, choose the way; return False while a step in flight may still forbid the way back."""
    if draft.is_committed():
        draft.touched.extend(draft.graph.nodes)
    elif draft.finals_live():
        return False
    else:
        turn(draft, Course.BACKWARD if draft.graph.compensate_on_failure else Course.HALTED)
    return True


def turn(draft: Draft, course: Course) -> None:
    """Leave the way forward. What only waited for another attempt gets none."""
    draft.course = course
    for step_id, status in tuple(draft.open.items()):
        if isinstance(status, Retrying):
            draft.put(step_id, Failed(status.attempt, status.tainted))
    draft.touched.extend(draft.graph.nodes)


def _start_ready(draft: Draft) -> None:
    """Start every pending step whose predecessors are all done."""
    nodes, dependents = draft.graph.nodes, draft.graph.dependents
    for moved in tuple(draft.touched):
        for step_id in (moved, *dependents[moved]):
            if isinstance(draft.of(step_id), Pending) and all(before in draft.done for before in nodes[step_id].after):
                draft.start(step_id, 1)


def _unwind(draft: Draft) -> None:
    """Undo every step that has acted and whose dependents are all quiet, and so on backwards.

    Steps are looked at in reverse order of the graph, so each is looked at once, after all its dependents.
    """
    nodes, position, order = draft.graph.nodes, draft.graph.position, draft.graph.order
    queued = set(draft.touched)
    queue = [-position[step_id] for step_id in queued]
    heapify(queue)
    while queue:
        step_id = order[-heappop(queue)]
        if _may_be_undone(draft, step_id):
            _undo(draft, step_id)
        if is_quiet(draft, step_id):
            for before in nodes[step_id].after:
                if before not in queued:
                    queued.add(before)
                    heappush(queue, -position[before])


def is_quiet(draft: Draft, step_id: str) -> bool:
    """Return whether the step holds back no undo: it never ran, failed before acting, or is settled backwards."""
    match draft.of(step_id):
        case Pending() | Failed(tainted=False) | Undone() | Passed() | Waived():
            return True
        case UndoFailed():
            return draft.graph.nodes[step_id].on_undo_failure == "continue"
        case _:
            return False


def _may_be_undone(draft: Draft, step_id: str) -> bool:
    status = draft.of(step_id)
    acted = draft.has_acted(step_id) and not status.is_live
    at_rest = acted or isinstance(status, Skipped) or (isinstance(status, UndoRetrying) and status.until is None)
    return at_rest and all(is_quiet(draft, after) for after in draft.graph.dependents[step_id])


def _undo(draft: Draft, step_id: str) -> None:
    """Set the undoing of a step going, pass it where there is nothing to undo, or admit that nobody can."""
    node = draft.graph.nodes[step_id]
    match draft.of(step_id):
        case Skipped(acted=False):
            draft.put(step_id, Passed(0))
        case Succeeded(attempt) | Failed(attempt) if node.nothing_to_undo:
            draft.put(step_id, Passed(attempt))
        case Skipped() if node.nothing_to_undo:
            draft.put(step_id, Passed(0))
        case Failed() if node.undoable and node.undo_without_output:
            draft.undo(step_id, 1, with_output=False)
        case Succeeded() | Skipped() if node.undoable:
            draft.undo(step_id, 1, with_output=True)
        case UndoRetrying(attempt, with_output=with_output):
            draft.undo(step_id, attempt + 1, with_output=with_output)
        case status:
            draft.put(step_id, UndoFailed(0, with_output=not isinstance(status, Failed)))


def resume_undo(draft: Draft) -> bool:
    """Try again, with a fresh count, every undo that failed or waits; return whether there was any.

    Later steps first, as ever: what comes before one that is being undone waits, without a timer, for its turn.
    """
    again = False
    for step_id in sorted(draft.open, key=draft.graph.position.__getitem__, reverse=True):
        status = draft.open[step_id]
        if not isinstance(status, UndoFailed | UndoRetrying) or not _can_be_tried(draft, step_id, status.with_output):
            continue
        again = True
        if all(is_quiet(draft, after) for after in draft.graph.dependents[step_id]):
            draft.undo(step_id, status.attempt + 1, with_output=status.with_output)
        else:
            draft.put(step_id, UndoRetrying(status.attempt, 0, None, status.with_output))
    return again


def _can_be_tried(draft: Draft, step_id: str, with_output: bool) -> bool:
    node = draft.graph.nodes[step_id]
    return node.undoable and (with_output or node.undo_without_output)
