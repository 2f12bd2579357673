"""What is derived from a state, and therefore never stored by hand: status, timers, residue, outstanding work."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ..definition.graph import Graph
from .effects import Collect, Compensate, Decision, Execute, Phase, Probe, Record, RecordStatus, Work
from .state import Course, SagaStatus, State
from .step_status import (
    Asking,
    Failed,
    Omitted,
    Pending,
    Probing,
    Retrying,
    Running,
    Skipped,
    StepStatus,
    Wait,
    Waiting,
)
from .undo_status import Passed, UndoAsking, UndoFailed, Undoing, Undone, UndoRetrying, UndoWaiting, Waived

_LONGEST_AWAITED = 255
"""What the column holds."""


def status_of(graph: Graph, state: State) -> SagaStatus:
    """Return where the saga stands."""
    if state.quarantined:
        return SagaStatus.STUCK
    if state.course is Course.FORWARD:
        return _forward(graph, state)
    if state.course is Course.BACKWARD:
        return _backward(graph, state)
    return SagaStatus.RUNNING if is_live(state) else SagaStatus.FAILED


def _forward(graph: Graph, state: State) -> SagaStatus:
    if is_live(state):
        return SagaStatus.RUNNING
    if any(isinstance(status, Retrying | Waiting) for status in state.open.values()):
        return SagaStatus.SUSPENDED
    if state.open and not state.paused:
        return SagaStatus.STUCK
    if len(state.done) == len(graph.unfolded(state.fans).nodes):
        return SagaStatus.COMPLETED
    return SagaStatus.SUSPENDED if state.paused else SagaStatus.RUNNING


def _backward(graph: Graph, state: State) -> SagaStatus:
    if any(status.is_live or isinstance(status, UndoRetrying | UndoWaiting) for status in state.open.values()):
        return SagaStatus.COMPENSATING
    if left := residue(graph, state):
        tried = all(isinstance(s, UndoFailed) and not s.again for s in map(state.of, left))
        return SagaStatus.COMPENSATING if state.paused and not tried else SagaStatus.STUCK
    if state.rewind is not None:  # it is to go forward again
        return SagaStatus.COMPENSATING
    undone = any(isinstance(status, Undone) for status in state.done.values())
    return SagaStatus.COMPENSATED if undone else SagaStatus.FAILED


def is_live(state: State) -> bool:
    """Return whether any work is in flight."""
    return True in [status.is_live for status in state.open.values()]


def work_of(step_id: str, status: StepStatus) -> Work:
    """Return the work that is in flight for a step whose status is live."""
    match status:
        case Running():
            return Execute(step_id, status.attempt, status.tainted, status.heard)
        case Probing():
            return Probe(step_id, status.attempt)
        case Undoing():
            return Compensate(step_id, status.attempt, status.with_output, status.heard)
        case Asking() | UndoAsking():
            return Collect(step_id, status.attempt)
        case _:
            raise AssertionError(f"no work is in flight for {status}")


def outstanding(state: State) -> tuple[Work, ...]:
    """Return all the work that a crash now would lose."""
    if state.quarantined:
        return ()
    return tuple([work_of(step_id, status) for step_id, status in state.open.items() if status.is_live])


def wake_at(state: State) -> datetime | None:
    """Return when time alone will next move this saga, or None."""
    if state.quarantined:
        return None
    first = min((u for _, s in timed(state) if (u := getattr(s, "until", None)) is not None), default=None)
    if state.deadline is None or state.paused:
        return first
    return state.deadline if first is None else min(first, state.deadline)


def timed(state: State) -> Iterable[tuple[str, StepStatus]]:
    """Return the steps that time may move: in a pause, only those with work in flight."""
    return [(i, s) for i, s in state.open.items() if s.is_live] if state.paused else state.open.items()


def awaiting(graph: Graph, state: State) -> str | None:
    """Return what it waits for: ``operator``, ``pause``, ``event:…`` with its types, ``timer``, ``retry``, or None."""
    if status_of(graph, state) is SagaStatus.STUCK:
        return "operator"
    if state.paused and not is_live(state):
        return "pause"
    if not state.open or is_live(state):
        return None
    if types := sorted({kind for status in state.open.values() if isinstance(status, Wait) for kind in status.types}):
        return f"event:{','.join(types)}"[:_LONGEST_AWAITED]
    waits = any(isinstance(status, Wait) for status in state.open.values())
    pauses = any(isinstance(status, Retrying | UndoRetrying) for status in state.open.values())
    return "timer" if waits else "retry" if pauses else None


def waits(state: State) -> tuple[tuple[str, Wait], ...]:
    """Return the steps that wait, for an event or for a time, and can be reached.

    In quarantine none can; in a pause, only those that are still looking whether their event came before.
    """
    found = [] if state.quarantined else [(i, s) for i, s in state.open.items() if isinstance(s, Wait)]
    return tuple([(i, s) for i, s in found if s.is_live or not state.paused])


def stands(graph: Graph, step_id: str, status: StepStatus) -> bool:
    """Return whether the step has, or may have, an effect that nobody has undone or waived."""
    match status:
        case Pending() | Skipped(acted=False):
            return False
        case Failed(tainted=False) | Retrying(tainted=False) | Asking(tainted=False) | Waiting(tainted=False):
            return False
        case Undone() | Waived() | Passed() | Omitted():
            return False
        case _:
            return step_id in graph.nodes and not graph.nodes[step_id].nothing_to_undo


def residue(graph: Graph, state: State) -> tuple[str, ...]:
    """Return the steps, in the definition's order, whose effects stand although the saga will not go forward.

    On the way forward effects are meant to stand: then it is only the failed steps in doubt, and in quarantine all that
    was in flight.
    """
    graph = graph.unfolded(state.fans)
    if state.course is Course.FORWARD:
        given_up = [(i, s) for i, s in state.all() if isinstance(s, Failed) or (state.quarantined and s.is_open)]
        found = [i for i, s in given_up if stands(graph, i, s)]
    else:
        part = graph.nodes.keys() if state.rewind is None else graph.part(state.rewind.to)
        found = [i for i, s in state.all() if i in part and stands(graph, i, s)]
    return tuple(sorted(found, key=lambda step_id: graph.position.get(step_id, -1)))


def current_step_index(graph: Graph, state: State) -> int:
    """Return the position of the first step that is not at rest; of a saga at rest, how many steps are."""
    position = graph.unfolded(state.fans).position
    return min([position[step_id] for step_id in state.open] or [len(state.done)])


def retry_counter(state: State) -> int:
    """Return how many attempts of the step in trouble have failed."""
    return max([getattr(status, "failures", 0) for status in state.open.values()] or [0])


def last_error(shown: str | None, before: State, decision: Decision) -> str | None:
    """Return the error to show: the business error that turned the saga survives its rollback, and its other errors.

    Of a saga without an error that an operator has ended it is who did, and why.
    """
    was = shown
    for record in decision.records:
        if record.phase is Phase.ORDER:
            shown = _told_by_order(shown, was, record)
        else:
            shown = _shown_error(shown, record, before, decision.state)
    return shown


def _told_by_order(shown: str | None, was: str | None, record: Record) -> str | None:
    if (ended := _ENDED_BY.get(record.step_id)) is not None:
        who = f"{ended} by {record.actor or 'an operator'}" + (f": {record.reason}" if record.reason else "")
        return who if was is None else was
    if record.step_id == "quarantine" and was is not None and not was.startswith("quarantined: "):
        return f"{record.error} <- {was}"  # what its owners were lost by
    failed = record.status is RecordStatus.ERROR or record.status is RecordStatus.IN_DOUBT
    return record.error if failed and not record.step_id.startswith("failure:") else shown


_ENDED_BY = {"abort": "aborted", "cancel": "cancelled", "compensate": "undone"}
"""The orders by which an operator ends a saga, and what is said of the saga then."""


def _shown_error(shown: str | None, record: Record, before: State, after: State) -> str | None:
    failed = record.status is RecordStatus.ERROR or record.status is RecordStatus.IN_DOUBT
    if record.phase is Phase.EXECUTE and failed and before.course is Course.FORWARD and not _has_failed(before):
        return record.error
    if record.phase is Phase.EXECUTE and not failed and after.course is Course.FORWARD:
        return shown if shown is not None and _is_in_trouble(after) else None
    return shown


def _has_failed(state: State) -> bool:
    """Return whether some step has failed for good: then its error is the one that a person wants to see."""
    return True in [isinstance(status, Failed) for status in state.open.values()]


def _is_in_trouble(state: State) -> bool:
    return _has_failed(state) or retry_counter(state) > 0
