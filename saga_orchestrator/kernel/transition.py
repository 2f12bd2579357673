"""`decide`, and the event-triggered moves: what each event does to the steps that it addresses.

Every function here takes a draft and an event that has been found to fit, and moves the addressed steps; what follows
from that for the rest of the saga is `settle`'s. A reply fits when its step has exactly that attempt in flight.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ..definition.graph import Graph
from .claim import count_crash, take_over
from .draft import Draft
from .effects import Decision, Phase, RecordStatus, Verdict
from .events import (
    Claimed,
    Compensated,
    CompensationRaised,
    Event,
    Notified,
    Order,
    Probed,
    ProbeOutcome,
    Raised,
    Reply,
    Returned,
    Ticked,
)
from .orders import obey
from .settle import settle
from .state import (
    Course,
    Failed,
    Probing,
    Retrying,
    Running,
    State,
    Succeeded,
    UndoFailed,
    Undoing,
    Undone,
    UndoRetrying,
)

TIMED_OUT = "the attempt timed out"
NOTIFY = "notify"


def decide(graph: Graph, state: State, event: Event, *, now: datetime) -> Decision:
    """Return the state after `event`, the work that it orders and the records that it leaves.

    Pure, total, and never raising for anything that an event can say: an event that does not fit is answered by a
    verdict, with the state unchanged.
    """
    draft = Draft(graph, state, now)
    verdict, reason = _apply(draft, event)
    if verdict is not Verdict.APPLIED:
        return Decision(state, (), (), verdict, reason)
    settle(draft)
    return draft.decision()


def _apply(draft: Draft, event: Event) -> tuple[Verdict, str]:
    match event:
        case Returned() | Raised() | Probed() | Compensated() | CompensationRaised():
            return _reply(draft, event), ""
        case Claimed(crashed):
            _claimed(draft, crashed)
        case Ticked():
            _ticked(draft)
        case Notified():
            return _notified(draft, event), ""
        case Order():
            return obey(draft, event)
    return Verdict.APPLIED, ""


# --- replies -----------------------------------------------------------------------------------------------------------


def _reply(draft: Draft, reply: Reply) -> Verdict:
    if reply.step_id not in draft.graph.nodes:
        return Verdict.UNMATCHED
    status = draft.of(reply.step_id)
    match status, reply:
        case Running(attempt), Returned() if attempt == reply.attempt:
            _succeeded(draft, reply)
        case Running(attempt), Raised() if attempt == reply.attempt:
            _raised(draft, status, reply)
        case Probing(attempt), Probed() if attempt == reply.attempt:
            _probed(draft, status, reply)
        case Undoing(attempt), Compensated() if attempt == reply.attempt:
            draft.put(reply.step_id, Undone(attempt, status.with_output))
            _note(draft, reply, Phase.COMPENSATE, RecordStatus.SUCCESS)
        case Undoing(attempt), CompensationRaised() if attempt == reply.attempt:
            _undo_raised(draft, status, reply)
        case (Undoing() | UndoRetrying() | Undone() | UndoFailed()), Returned() if not status.with_output:
            _returned_after_undo(draft, status, reply)
        case _:
            return Verdict.STALE
    draft.recoveries = 0
    return Verdict.APPLIED


def _succeeded(draft: Draft, reply: Returned | Probed) -> None:
    draft.put(reply.step_id, Succeeded(reply.attempt))
    _note(draft, reply, Phase.EXECUTE, RecordStatus.SUCCESS, output=reply.output)


def _raised(draft: Draft, status: Running, reply: Raised) -> None:
    ended = RecordStatus.IN_DOUBT if reply.in_doubt else RecordStatus.ERROR
    _note(draft, reply, Phase.EXECUTE, ended, error=reply.error)
    node = draft.graph.nodes[reply.step_id]
    if reply.in_doubt and node.probes:
        draft.probe(reply.step_id, status, retryable=reply.retryable)
        return
    doubted = replace(status, tainted=status.tainted or reply.in_doubt)
    _try_again(draft, reply.step_id, doubted, reply)


def _try_again(draft: Draft, step_id: str, status: Running, said: Raised) -> None:
    """Wait for the next attempt, start it at once, or give up."""
    failures = status.failures + 1
    delay = draft.graph.nodes[step_id].retry.delay_for(failures, f"{draft.before.key}/{step_id}")
    if draft.course is not Course.FORWARD or not said.retryable or delay is None:
        draft.put(step_id, Failed(status.attempt, status.tainted))
        return
    until = draft.now + (delay if said.delay is None else said.delay)
    if until <= draft.now:
        draft.start(step_id, status.attempt + 1, failures, tainted=status.tainted)
    else:
        draft.put(step_id, Retrying(status.attempt, failures, until, status.tainted))


def _probed(draft: Draft, status: Probing, reply: Probed) -> None:
    if reply.outcome is ProbeOutcome.DONE:
        _succeeded(draft, reply)
        return
    tainted = reply.outcome is ProbeOutcome.UNKNOWN
    ended = RecordStatus.IN_DOUBT if tainted else RecordStatus.ERROR
    _note(draft, reply, Phase.EXECUTE, ended, error=reply.error or f"probe: {reply.outcome.value}")
    if status.lost and draft.course is Course.FORWARD:
        draft.start(reply.step_id, status.attempt, status.failures, tainted=tainted)
        return
    settled = Running(status.attempt, status.failures, None, tainted)
    _try_again(draft, reply.step_id, settled, Raised(reply.step_id, reply.attempt, retryable=status.retryable))


def _undo_raised(draft: Draft, status: Undoing, reply: CompensationRaised) -> None:
    ended = RecordStatus.IN_DOUBT if reply.in_doubt else RecordStatus.ERROR
    _note(draft, reply, Phase.COMPENSATE, ended, error=reply.error)
    step_id, failures = reply.step_id, status.failures + 1
    policy = draft.graph.nodes[step_id].compensation_retry
    delay = policy.delay_for(failures, f"{draft.before.key}/{step_id}/compensate")
    if not reply.retryable or delay is None:
        draft.put(step_id, UndoFailed(status.attempt, status.with_output))
        return
    until = draft.now + (delay if reply.delay is None else reply.delay)
    if until <= draft.now:
        draft.undo(step_id, status.attempt + 1, failures, with_output=status.with_output)
    else:
        draft.put(step_id, UndoRetrying(status.attempt, failures, until, status.with_output))


def _returned_after_undo(
    draft: Draft, status: Undoing | UndoRetrying | Undone | UndoFailed, reply: Returned
) -> None:
    """Undo once more: an attempt given up for lost has acted after all, perhaps after its undo.

    Possible once per step, because from then on the output is known.
    """
    _note(draft, reply, Phase.EXECUTE, RecordStatus.SUCCESS, output=reply.output)
    if draft.course is Course.BACKWARD and draft.graph.nodes[reply.step_id].undoable:
        draft.undo(reply.step_id, status.attempt + 1, with_output=True)


def _note(draft: Draft, reply: Reply, phase: Phase, status: RecordStatus, **facts: object) -> None:
    draft.record(
        phase, status, reply.step_id, reply.attempt, input=reply.input, started_at=reply.started_at, **facts
    )


# --- time, and new owners ----------------------------------------------------------------------------------------------


def _claimed(draft: Draft, crashed: bool) -> None:
    """Take over from whoever had it, unless it has lost too many owners."""
    if crashed and draft.before.open and not count_crash(draft):
        return
    take_over(draft)
    if not draft.open and not draft.done:
        draft.touched.extend(draft.graph.roots)
    _expire(draft, Retrying, UndoRetrying)


def _ticked(draft: Draft) -> None:
    _expire(draft, Running, Probing, Undoing, Retrying, UndoRetrying)


def _notified(draft: Draft, event: Notified) -> Verdict:
    if not _retry_now(draft):
        return Verdict.UNMATCHED
    draft.record(Phase.ORDER, RecordStatus.SUCCESS, NOTIFY, input=event.payload)
    return Verdict.APPLIED


def _retry_now(draft: Draft) -> bool:
    """Start every attempt that waits for its pause to end; return whether there was any."""
    waiting = [(i, s) for i, s in draft.open.items() if isinstance(s, Retrying | UndoRetrying) and s.until is not None]
    for step_id, status in waiting:
        _due(draft, step_id, status)
    return bool(waiting)


def _expire(draft: Draft, *kinds: type) -> None:
    for step_id, status in tuple(draft.open.items()):
        until = getattr(status, "until", None)
        if until is not None and until <= draft.now and isinstance(status, kinds):
            _due(draft, step_id, status)


def _due(draft: Draft, step_id: str, status: object) -> None:
    match status:
        case Retrying(attempt, failures, _, tainted):
            draft.start(step_id, attempt + 1, failures, tainted=tainted)
        case UndoRetrying(attempt, failures, _, with_output):
            draft.undo(step_id, attempt + 1, failures, with_output=with_output)
        case Running(attempt):
            _raised(draft, status, Raised(step_id, attempt, TIMED_OUT, in_doubt=True))
        case Probing(attempt):
            _probed(draft, status, Probed(step_id, attempt, ProbeOutcome.UNKNOWN, error=TIMED_OUT))
        case Undoing(attempt):
            _undo_raised(draft, status, CompensationRaised(step_id, attempt, TIMED_OUT, in_doubt=True))
