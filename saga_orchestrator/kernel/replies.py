"""What a reply does to its step. A reply fits when its step has exactly that attempt in flight; else it is stale."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from .draft import Draft
from .effects import Phase, Record, RecordStatus, Verdict
from .events import Asked, Collected, Compensated, CompensationRaised, Probed, ProbeOutcome, Raised, Reply, Returned
from .projection import status_of
from .state import Course, SagaStatus
from .step_status import SUCCEEDED, Asking, Failed, Missed, Probing, Retrying, Running, Succeeded
from .undo_status import UndoAsking, UndoFailed, Undoing, Undone, UndoRetrying, UndoWaiting
from .waits import ask, wait

Answer = Returned | Raised | Probed | Compensated | CompensationRaised
Unwound = Undoing | UndoRetrying | UndoAsking | UndoWaiting | Undone | UndoFailed


def take(draft: Draft, reply: Reply) -> Verdict:
    """Move the step that the reply is about, if the step waits for this reply."""
    if reply.step_id not in draft.graph.nodes:
        return Verdict.UNMATCHED
    draft.recoveries = 0
    status = draft.of(reply.step_id)
    match status, reply:
        case Running(attempt), Returned() if attempt == reply.attempt:
            _succeeded(draft, reply)
        case Running(attempt), Raised() if attempt == reply.attempt:
            raised(draft, status, reply)
        case ((Running(attempt) | Undoing(attempt)), Asked()) if attempt == reply.attempt:
            ask(draft, status, reply)
        case ((Asking(attempt) | UndoAsking(attempt)), Collected()) if attempt == reply.attempt:
            wait(draft, reply.step_id, status)
        case Probing(attempt), Probed() if attempt == reply.attempt:
            probed(draft, status, reply)
        case Undoing(attempt), Compensated() if attempt == reply.attempt:
            draft.put(reply.step_id, Undone(attempt, status.with_output))
            _note(draft, reply, Phase.COMPENSATE, RecordStatus.SUCCESS)
        case Undoing(attempt), CompensationRaised() if attempt == reply.attempt:
            undo_raised(draft, status, reply)
        case (
            (Undoing() | UndoRetrying() | UndoAsking() | UndoWaiting() | Undone() | UndoFailed()),
            Returned(),
        ) if _is_news(draft, status, reply):
            _returned_after_undo(draft, status, reply)
        case _:
            return Verdict.STALE
    return Verdict.APPLIED


def raised(draft: Draft, status: Running, reply: Raised) -> None:
    """End an attempt without success: ask whether it acted, try again, or give up."""
    ended = RecordStatus.IN_DOUBT if reply.in_doubt else RecordStatus.ERROR
    _note(draft, reply, Phase.EXECUTE, ended, reply.error)
    if reply.in_doubt and draft.graph.nodes[reply.step_id].probes:
        draft.probe(reply.step_id, status, retryable=reply.retryable)
        return
    doubted = replace(status, tainted=status.tainted or reply.in_doubt)
    _try_again(draft, reply.step_id, doubted, reply)


def probed(draft: Draft, status: Probing, reply: Probed) -> None:
    """Settle an attempt in doubt, or learn that it stays in doubt; one that has asked before has acted in any case."""
    if reply.outcome is ProbeOutcome.DONE:
        _succeeded(draft, reply)
        return
    is_unknown = reply.outcome is ProbeOutcome.UNKNOWN
    node = draft.graph.nodes[reply.step_id]
    tainted = is_unknown or (status.heard > 0 and (node.undoable or node.kind.is_final))
    ended = RecordStatus.IN_DOUBT if is_unknown else RecordStatus.ERROR
    _note(draft, reply, Phase.EXECUTE, ended, reply.error or f"probe: {reply.outcome.value}")
    turns_back = draft.has_failed() and not draft.is_committed() and not tainted
    if status.lost and draft.course is Course.FORWARD and not turns_back:
        draft.start(reply.step_id, status.attempt + 1, status.failures, tainted=tainted, heard=status.heard)
        draft.recoveries = draft.before.recoveries  # no progress: it may be this very step that kills its workers
        return
    settled = Running(status.attempt, status.failures, None, tainted, status.heard)
    _try_again(draft, reply.step_id, settled, Raised(reply.step_id, reply.attempt, retryable=status.retryable))


def undo_raised(draft: Draft, status: Undoing, reply: CompensationRaised) -> None:
    """End a compensation without success: try again, or give up."""
    ended = RecordStatus.IN_DOUBT if reply.in_doubt else RecordStatus.ERROR
    _note(draft, reply, Phase.COMPENSATE, ended, reply.error)
    step_id, failures = reply.step_id, status.failures + 1
    policy = draft.graph.nodes[step_id].compensation_retry
    delay = policy.delay_for(failures, f"{draft.before.key}/{step_id}/compensate")
    if not reply.retryable or delay is None:
        draft.put(step_id, UndoFailed(status.attempt, status.with_output, heard=status.heard))
        return
    until = _next(draft, delay, reply)
    if until <= draft.now and not draft.paused:
        draft.undo(step_id, status.attempt + 1, failures, with_output=status.with_output, heard=status.heard)
    else:
        draft.put(step_id, UndoRetrying(status.attempt, failures, until, status.with_output, status.heard))


def _succeeded(draft: Draft, reply: Returned | Probed) -> None:
    draft.put(reply.step_id, SUCCEEDED if reply.attempt == 1 else Succeeded(reply.attempt))
    draft.choose(reply.step_id, getattr(reply, "chosen", None))
    draft.unfold(reply.step_id, getattr(reply, "items", None))
    _note(draft, reply, Phase.EXECUTE, RecordStatus.SUCCESS)


def _try_again(draft: Draft, step_id: str, status: Running, said: Raised) -> None:
    """Wait for the next attempt, or give up. One that need not wait is started by `settle`, if the saga goes on."""
    failures = status.failures + 1
    delay = draft.graph.nodes[step_id].retry.delay_for(failures, f"{draft.before.key}/{step_id}")
    if draft.course is not Course.FORWARD or not said.retryable or delay is None:
        end = Missed if draft.may_miss(step_id) else Failed
        draft.put(step_id, end(status.attempt, status.tainted, status.heard))
    else:
        until = _next(draft, delay, said)
        draft.put(step_id, Retrying(status.attempt, failures, until, status.tainted, status.heard))


def _is_news(draft: Draft, status: Unwound, reply: Returned) -> bool:
    """Return whether an attempt given up for lost has acted after all, and its output makes an undo possible.

    At most once per step, since its output is known from then on, and only while the saga is being undone: what is
    over is over.
    """
    wanted = not status.with_output and draft.graph.nodes[reply.step_id].undoable
    return wanted and status_of(draft.graph, draft.before) is SagaStatus.COMPENSATING


def _returned_after_undo(draft: Draft, status: Unwound, reply: Returned) -> None:
    """Undo with the output what was, or could not be, undone without it."""
    _note(draft, reply, Phase.EXECUTE, RecordStatus.SUCCESS)
    if draft.paused:
        draft.put(reply.step_id, UndoRetrying(status.attempt, 0, draft.now))
    else:
        draft.undo(reply.step_id, status.attempt + 1, with_output=True)


def _next(draft: Draft, delay: timedelta, said: Raised | CompensationRaised) -> datetime:
    """Return when the next attempt may start: after the pause that the error asked for, else the policy's."""
    return draft.after(delay if said.delay is None else said.delay)


def _note(draft: Draft, reply: Answer, phase: Phase, status: RecordStatus, error: str | None = None) -> None:
    """Note what the reply has ended; every reply that tells of a success has an output."""
    output = None if status is not RecordStatus.SUCCESS else reply.output  # type: ignore[union-attr]
    name = draft.graph.nodes[reply.step_id].name
    given, began = reply.input, reply.started_at
    draft.records.append(
        Record(draft.seq(), phase, status, reply.step_id, name, reply.attempt, given, output, error, started_at=began)
    )
