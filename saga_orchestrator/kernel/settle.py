"""The state-triggered moves, applied to a fixed point: who may start, which way the saga goes, who may be undone.

`settle` looks only at the neighbours of what has moved (`draft.touched`), so that a decision costs the same in a saga
of five steps and of five hundred; that this finds all that a look at every step would find is one of the laws.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TypeGuard

from .deadline import forget_deadline, is_out_of_time
from .draft import Draft
from .holding import is_held, stops_before
from .state import Course
from .step_status import Asking, Failed, Missed, Omitted, Pending, Retrying, Skipped, StepStatus, Succeeded, Waiting
from .undo_status import Passed, UndoAsking, UndoFailed, Undoing, Undone, UndoRetrying, UndoWaiting, Waived


def settle(draft: Draft) -> None:
    """Move every step that may move by itself now."""
    if is_held(draft):
        return
    is_timed = draft.deadline is not None or draft.overdue
    if is_timed and is_out_of_time(draft):
        turn(draft, Course.BACKWARD if draft.graph.compensate_on_failure else Course.HALTED)
    if draft.course is Course.FORWARD and draft.has_failed() and not _choose_way(draft):
        return
    if draft.course is Course.FORWARD:
        if _start_ready(draft):
            _try_again(draft)
    elif draft.course is Course.BACKWARD:
        _unwind(draft)
    if is_timed:
        forget_deadline(draft)


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
    """Leave the way forward. What only waited, for another attempt or for an event, gets none."""
    draft.course = course
    for step_id, status in tuple(draft.open.items()):
        if isinstance(status, Retrying | Asking | Waiting):
            draft.put(step_id, Failed(status.attempt, status.tainted, status.heard))
    draft.touched.extend(draft.graph.nodes)


def _start_ready(draft: Draft) -> bool:
    """Start every pending step whose predecessors are all done; return False if a breakpoint has held them up."""
    nodes, dependents = draft.graph.nodes, draft.graph.dependents
    is_done = draft.done.__contains__
    ready: dict[str, None] = {}
    for moved in draft.touched:
        for step_id in (moved, *dependents[moved]):
            if step_id not in draft.open and step_id not in draft.done and all(map(is_done, nodes[step_id].after)):
                ready[step_id] = None
    if draft.stops and stops_before(draft, ready):
        return False
    for step_id in ready:
        draft.start(step_id, 1 + draft.spent.get(step_id, 0))
    return True


def _try_again(draft: Draft) -> None:
    """Start the next attempt of every step whose pause is over, or that needs none."""
    for step_id, status in tuple(draft.open.items()):
        if isinstance(status, Retrying) and status.until is not None and status.until <= draft.now:
            draft.start(step_id, status.attempt + 1, status.failures, tainted=status.tainted, heard=status.heard)


def _unwind(draft: Draft) -> None:
    """Undo every step that has acted and whose dependents are all quiet, and so on backwards.

    Steps are looked at in reverse order of the graph, so each is looked at once, after all its dependents.
    """
    nodes, position, order = draft.graph.nodes, draft.graph.position, draft.graph.order
    part = None if draft.rewind is None else draft.graph.part(draft.rewind.to)
    queued = set(draft.touched)
    queue = [-position[step_id] for step_id in queued]
    heapify(queue)
    while queue:
        step_id = order[-heappop(queue)]
        if (part is None or step_id in part) and _may_be_undone(draft, step_id):
            _undo(draft, step_id)
        if is_quiet(draft, step_id):
            fresh = [before for before in nodes[step_id].after if before not in queued]
            queued.update(fresh)
            for before in fresh:
                heappush(queue, -position[before])


def is_quiet(draft: Draft, step_id: str) -> bool:
    """Return whether the step holds back no undo.

    One that was waived, passed, omitted or missed says nothing of what comes after it: that must be quiet, too.
    """
    found, seen = [step_id], {step_id}
    for looked_at in found:  # grows
        if not is_settled(draft, looked_at):
            return False
        if isinstance(draft.of(looked_at), Waived | Omitted | Passed | Missed):
            fresh = [after for after in draft.graph.dependents[looked_at] if after not in seen]
            found.extend(fresh)
            seen.update(fresh)
    return True


def is_settled(draft: Draft, step_id: str) -> bool:
    """Return whether the step never ran, failed without an effect, or is settled backwards."""
    node = draft.graph.nodes[step_id]
    match draft.of(step_id):
        case Pending() | Undone() | Passed() | Waived() | Omitted():
            return True
        case Failed(tainted=tainted):
            return not tainted or node.nothing_to_undo
        case UndoFailed(again=again):
            return not again and node.on_undo_failure == "continue"
        case _:
            return False


def _may_be_undone(draft: Draft, step_id: str) -> bool:
    match draft.of(step_id):
        case Succeeded() | Skipped() | Missed() | UndoFailed(again=True):
            quiet = all(is_quiet(draft, after) for after in draft.graph.dependents[step_id])
            return quiet and not is_settled(draft, step_id)
        case Failed():
            return not is_settled(draft, step_id)
        case _:
            return False


def _undo(draft: Draft, step_id: str) -> None:
    """Set the undoing of a step going, pass it where there is nothing to undo, or admit that nobody can."""
    node = draft.graph.nodes[step_id]
    match draft.of(step_id):
        case UndoFailed(attempt, with_output, heard=heard):
            draft.undo(step_id, attempt + 1, with_output=with_output, heard=heard)
        case Succeeded(attempt) if node.nothing_to_undo:
            draft.put(step_id, Passed(attempt))
        case Skipped(acted) if node.nothing_to_undo or not acted:
            draft.put(step_id, Passed(0, acted))
        case status:
            with_output = not isinstance(status, Failed)
            if _can_be_tried(draft, step_id, with_output):
                draft.undo(step_id, 1 + draft.spent.get(step_id, 0), with_output=with_output)
            else:
                draft.put(step_id, UndoFailed(0, with_output))


def resume_undo(draft: Draft) -> bool:
    """Order every undo that failed or waits again, with a fresh count; return whether there was any.

    Each begins in its turn, as at first: a step after the steps that come after it. Where what comes before one is on
    its way back already, that must end first.
    """
    failed = [(i, s) for i, s in draft.open.items() if isinstance(s, UndoRetrying) or _has_ended(s)]
    idle = [(i, s) for i, s in failed if not getattr(s, "again", False) and not _is_overtaken(draft, i)]
    resumed = [(i, s) for i, s in idle if _can_be_tried(draft, i, s.with_output)]
    for step_id, status in resumed:
        draft.put(step_id, UndoFailed(status.attempt, status.with_output, again=True, heard=status.heard))
    return bool(resumed)


def _has_ended(status: StepStatus) -> TypeGuard[UndoFailed]:
    """Return whether an undo has failed and has not been ordered again yet."""
    return isinstance(status, UndoFailed) and not status.again


def _is_overtaken(draft: Draft, step_id: str) -> bool:
    begun = Undoing | UndoAsking | UndoWaiting
    return any(isinstance(draft.of(before), begun) for before in draft.graph.nodes[step_id].after)


def _can_be_tried(draft: Draft, step_id: str, with_output: bool) -> bool:
    node = draft.graph.nodes[step_id]
    return node.undoable and (with_output or node.undo_without_output)
