"""Pauses, breakpoints and single steps in the kernel: what goes on, what rests, and how it is let go."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.effects import Compensate, Decision, Execute, Verdict
from saga_orchestrator.kernel.events import (
    Asked,
    Claimed,
    Collected,
    Compensated,
    CompensationRaised,
    Notified,
    Raised,
    Returned,
    Signalled,
    Ticked,
)
from saga_orchestrator.kernel.laws import broken_by, broken_by_move
from saga_orchestrator.kernel.order_events import AbortOrdered, CancelOrdered, CompensateOrdered, RetryOrdered
from saga_orchestrator.kernel.pause import PauseOrdered, ResumeOrdered, StepOrdered
from saga_orchestrator.kernel.projection import awaiting, outstanding, status_of, waits, wake_at
from saga_orchestrator.kernel.state import Course, SagaStatus, State
from saga_orchestrator.kernel.step_status import Asking, Failed, Pending, Retrying, Running, Succeeded, Waiting
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import UndoFailed, Undoing, Undone, UndoRetrying

from .sagas import AT_ONCE, LATER, NOW, PAUSE, SECOND, TWICE, back, read, state, step

LINE = Graph.of(step("a", retry=TWICE, compensation_retry=AT_ONCE), step("b", "a", retry=TWICE), step("c", "b"))
DIAMOND = Graph.of(step("a"), step("b", "a"), step("c", "a"))
PAUSED = PauseOrdered()


def paused(before: State, *stops: str, **facts: Any) -> State:
    return replace(before, paused=True, stops=stops, **facts)


def after(graph: Graph, before: State, *events: Any, now: Any = NOW) -> Decision:
    """Return the last of several decisions, none of which breaks a law."""
    assert list(broken_by(graph, before)) == []
    decision = None
    for event in events:
        decision = decide(graph, before, event, now=now)
        assert list(broken_by_move(graph, before, event, decision)) == []
        before = decision.state
    assert decision is not None
    return decision


def test_what_is_in_flight_goes_on_to_its_end_and_nothing_else_begins() -> None:
    """The saga rests when that has ended, and is nobody's, without a timer."""
    state = after(LINE, State(), Claimed(), PAUSED).state
    assert (status_of(LINE, state), awaiting(LINE, state)) == (SagaStatus.RUNNING, None)

    state = after(LINE, state, Returned("a", 1)).state
    assert (state.of("a"), state.of("b")) == (Succeeded(), Pending())
    assert (status_of(LINE, state), awaiting(LINE, state)) == (SagaStatus.SUSPENDED, "pause")
    assert (outstanding(state), wake_at(state)) == ((), None)

    assert after(LINE, state, ResumeOrdered()).work == (Execute("b", 1),)


def test_a_saga_can_be_paused_before_it_begins() -> None:
    """Who takes it finds nothing to do; resumed, it begins at its beginning."""
    state = after(LINE, State(), PAUSED, Claimed()).state
    assert (status_of(LINE, state), awaiting(LINE, state), outstanding(state)) == (SagaStatus.SUSPENDED, "pause", ())
    assert after(LINE, state, ResumeOrdered()).work == (Execute("a", 1),)


@pytest.mark.parametrize("error", [Raised("a", 1), Raised("a", 1, delay=timedelta(0))])
def test_a_retry_rests_in_a_pause_and_goes_at_once_when_it_is_due(error: Raised) -> None:
    """Neither time nor a notification begins it; whoever resumes the saga after its time does."""
    state = after(LINE, State(), Claimed(), PAUSED, error).state
    late = NOW + PAUSE
    assert isinstance(state.of("a"), Retrying)
    assert awaiting(LINE, state) == "pause"
    assert after(LINE, state, Notified()).verdict is Verdict.UNMATCHED
    assert after(LINE, state, Ticked(), Claimed(), now=late).work == ()
    assert after(LINE, state, ResumeOrdered(), now=late).work == (Execute("a", 2),)


def test_work_in_flight_runs_out_of_time_in_a_pause() -> None:
    """A pause is no more time for what has begun."""
    graph = Graph.of(step("a", timeout=SECOND), step("b", "a"))
    state = after(graph, State(), Claimed(), PAUSED).state
    assert wake_at(state) == NOW + SECOND
    assert after(graph, state, Ticked(), now=NOW + SECOND).state.of("a") == Failed(1, tainted=True)


def test_events_that_come_in_a_pause_are_for_later() -> None:
    """A wait that rests is given nothing, runs out of no time, and is looked up again by whoever resumes."""
    wait = Waiting(types=("go",), until=LATER, tainted=True)
    held = paused(state(a=wait))
    assert waits(held) == ()
    assert after(LINE, held, Signalled("go")).verdict is Verdict.UNMATCHED
    assert after(LINE, held, Signalled("go", step_id="a")).verdict is Verdict.UNMATCHED
    assert after(LINE, held, Ticked(), Claimed(), now=LATER).state.of("a") == wait
    asking = after(LINE, held, ResumeOrdered(), now=LATER).state
    assert isinstance(asking.of("a"), Asking)
    assert isinstance(after(LINE, asking, Signalled("go"), now=LATER).state.of("a"), Running)


def test_a_question_in_flight_is_looked_up_to_its_end() -> None:
    """A step that asks in a pause is given what has come before, and else waits on."""
    asking = after(LINE, State(), Claimed(), PAUSED, Asked("a", 1, ("go",))).state
    assert [step_id for step_id, _ in waits(asking)] == ["a"]
    assert after(LINE, asking, Signalled("go")).work == (Execute("a", 2, tainted=True, heard=1),)
    assert awaiting(LINE, after(LINE, asking, Collected("a", 1)).state) == "pause"


def test_a_timer_that_ran_out_in_a_pause_is_due_at_its_end() -> None:
    """It goes on with whoever resumes."""
    held = paused(state(a=Waiting(until=LATER, resumes=True, tainted=True)))
    assert after(LINE, held, Ticked(), now=LATER).work == ()
    assert after(LINE, held, ResumeOrdered(), now=LATER).work == (Execute("a", 2, tainted=True, heard=1),)


def test_a_deadline_does_not_turn_a_saga_in_a_pause() -> None:
    """It does so as soon as it is resumed."""
    held = paused(state(a=Succeeded()), deadline=LATER)
    assert wake_at(held) is None
    assert after(LINE, held, Ticked(), now=LATER).state == held
    assert after(LINE, held, ResumeOrdered(), now=LATER).state.course is Course.BACKWARD


def test_a_failure_in_a_pause_turns_the_saga_when_it_is_resumed() -> None:
    """Nothing is undone before."""
    failed = after(LINE, paused(state(a=Succeeded(), b=Running())), Raised("b", 1, retryable=False)).state
    assert (status_of(LINE, failed), awaiting(LINE, failed)) == (SagaStatus.SUSPENDED, "pause")
    assert after(LINE, failed, ResumeOrdered()).state.of("a") == Undoing()


def test_the_last_step_ends_the_saga_and_its_pause() -> None:
    """A saga that is over has nothing to be resumed."""
    done = after(LINE, paused(state(a=Succeeded(), b=Succeeded(), c=Running())), Returned("c", 1)).state
    assert (status_of(LINE, done), done.paused) == (SagaStatus.COMPLETED, False)


def test_a_crash_sets_going_again_what_was_in_flight() -> None:
    """And nothing else."""
    decision = after(DIAMOND, paused(state(a=Succeeded(), b=Running(), c=Succeeded())), Claimed(crashed=True))
    assert decision.work == (Execute("b", 1, tainted=True),)
    assert decision.state.paused


# --- the way back


def test_on_the_way_back_the_undo_in_flight_ends_and_the_next_rests() -> None:
    """It is COMPENSATING, and waits for whoever resumes it."""
    state = after(LINE, paused(back(a=Succeeded(), b=Undoing(), c=Failed())), Compensated("b", 1)).state
    assert (status_of(LINE, state), awaiting(LINE, state)) == (SagaStatus.COMPENSATING, "pause")
    assert after(LINE, state, CompensateOrdered()).verdict is Verdict.DUPLICATE
    assert after(LINE, state, ResumeOrdered()).state.of("a") == Undoing()


def test_an_undo_that_is_to_be_tried_again_rests() -> None:
    """Even if it needs no pause of its own."""
    state = after(LINE, paused(back(a=Undoing(), b=Failed())), CompensationRaised("a", 1)).state
    assert state.of("a") == UndoRetrying(1, 1, NOW)
    assert after(LINE, state, ResumeOrdered()).state.of("a") == Undoing(2, 1)


@pytest.mark.parametrize("undo", [Undoing(with_output=False), Undone(1, with_output=False)])
def test_an_undo_with_news_of_the_output_rests(undo: Any) -> None:
    """What was undone blindly is undone again, after the pause."""
    graph = Graph.of(step("z"), step("a", "z", undo_without_output=True))
    state = after(graph, paused(back(z=Succeeded(), a=undo)), Returned("a", 1)).state
    assert state.of("a") == UndoRetrying(1, 0, NOW)
    assert after(graph, state, ResumeOrdered()).state.of("a") == Undoing(2)


def test_what_is_undone_or_cannot_be_ends_a_pause_or_stands_for_itself() -> None:
    """With nothing left to undo it is over; with nothing left that can be, it is stuck: an order moves it at once."""
    undone = after(LINE, paused(back(a=Undoing(), b=Failed())), Compensated("a", 1)).state
    assert (status_of(LINE, undone), undone.paused) == (SagaStatus.COMPENSATED, False)
    failed = after(LINE, paused(back(a=Undoing(), b=Failed())), CompensationRaised("a", 1, retryable=False)).state
    assert (status_of(LINE, failed), awaiting(LINE, failed)) == (SagaStatus.STUCK, "operator")
    assert failed.of("a") == UndoFailed(1)
    assert not failed.paused
    assert after(LINE, failed, CompensateOrdered()).work == (Compensate("a", 2),)


def test_what_needs_no_undo_is_passed_when_a_pause_ends_with_its_saga() -> None:
    """No trace of the pause stays behind."""
    graph = Graph.of(read("a"), step("b", "a"))
    over = after(graph, paused(back(a=Succeeded(), b=Undoing())), Compensated("b", 1)).state
    assert (status_of(graph, over), over.paused, over.open) == (SagaStatus.COMPENSATED, False, {})


# --- orders


def test_other_orders_change_a_saga_in_a_pause_and_begin_only_what_they_order() -> None:
    """A retry begins its step; a cancellation turns the saga; an abort ends it."""
    held = paused(state(a=Succeeded(), b=Retrying(1, 1, LATER)))
    assert after(LINE, held, RetryOrdered()).work == (Execute("b", 2),)
    assert after(LINE, held, RetryOrdered(), Returned("b", 2)).work == ()
    cancelled = after(LINE, held, CancelOrdered())
    assert (cancelled.work, cancelled.state.paused, cancelled.state.course) == ((), True, Course.BACKWARD)
    aborted = after(LINE, held, AbortOrdered()).state
    assert (status_of(LINE, aborted), aborted.paused) == (SagaStatus.FAILED, False)


def test_who_is_let_out_of_quarantine_rests_in_his_pause() -> None:
    """What was in flight goes on; what waits for an event waits for the end of the pause, too."""
    quarantined = paused(state(a=Succeeded(), b=Running(), c=Waiting(types=("go",), tainted=True)), quarantined=True)
    freed = after(DIAMOND, quarantined, RetryOrdered(step_id="b")).state
    assert (freed.of("b"), freed.of("c")) == (Running(tainted=True), quarantined.of("c"))
    assert freed.paused


REFUSED, DUPLICATE, APPLIED = Verdict.REFUSED, Verdict.DUPLICATE, Verdict.APPLIED
RUNS, RESTS = state(a=Running()), paused(state(a=Succeeded()))
OVER, STUCK = state(a=Succeeded(), b=Succeeded(), c=Succeeded()), back(a=UndoFailed(1), b=Failed())


@pytest.mark.parametrize(
    ("before", "order", "verdict", "why"),
    [
        (OVER, PAUSED, REFUSED, "it is over"),
        (STUCK, ResumeOrdered(), REFUSED, "nothing begins by itself"),
        (RUNS, PAUSED, APPLIED, ""),
        (RESTS, PAUSED, DUPLICATE, "paused already"),
        (RUNS, ResumeOrdered(), DUPLICATE, "not paused"),
        (RUNS, PauseOrdered(step_id="c"), APPLIED, ""),
        (replace(RUNS, stops=("c",)), PauseOrdered(step_id="c"), DUPLICATE, "stops before step c already"),
        (replace(RUNS, stops=("c",)), ResumeOrdered(), APPLIED, ""),
        (RUNS, PauseOrdered(step_id="a"), REFUSED, "will not begin any more"),
        (RUNS, PauseOrdered(step_id="z"), REFUSED, "or there is none"),
        (back(a=Undoing()), PauseOrdered(step_id="b"), REFUSED, "will not begin any more"),
        (RUNS, StepOrdered(), REFUSED, "needs one that is paused"),
        (paused(RUNS), StepOrdered(), REFUSED, "nothing in flight"),
        (paused(state(a=Retrying(1, 1, LATER))), StepOrdered(), REFUSED, "nothing is ready"),
    ],
)
def test_orders_are_carried_out_or_answered(before: State, order: Any, verdict: Verdict, why: str) -> None:
    """A wrong moment is refused with a reason, and a repetition changes nothing."""
    decision = after(LINE, before, order)
    assert decision.verdict is verdict
    assert why in decision.reason


# --- breakpoints and single steps


def test_a_breakpoint_pauses_a_saga_when_its_step_is_about_to_begin() -> None:
    """Nothing begins that would begin with it; the pause uses it up, and history says which it was."""
    stop = after(DIAMOND, State(), Claimed(), PauseOrdered(step_id="b"), Returned("a", 1))
    assert (stop.work, stop.state.paused, stop.state.stops) == ((), True, ())
    assert "breakpoint:b" in [record.step_id for record in stop.records]
    assert after(DIAMOND, stop.state, ResumeOrdered()).work == (Execute("b", 1), Execute("c", 1))


def test_a_breakpoint_that_is_forgotten_holds_nothing() -> None:
    """Who resumes a saga that is not paused takes its breakpoints back."""
    going = after(LINE, State(), Claimed(), PauseOrdered(step_id="b"), ResumeOrdered(), Returned("a", 1))
    assert going.work == (Execute("b", 1),)


def test_single_steps_walk_a_saga_past_its_breakpoints() -> None:
    """Each begins what is ready, once, and a breakpoint further on stays."""
    first = after(LINE, paused(state(a=Succeeded()), "b", "c"), StepOrdered())
    assert (first.work, first.state.paused, first.state.stops) == ((Execute("b", 1),), True, ("c",))
    then = after(LINE, first.state, Returned("b", 1), StepOrdered(), Returned("c", 1)).state
    assert status_of(LINE, then) is SagaStatus.COMPLETED


def test_a_single_step_may_turn_a_saga_or_end_it() -> None:
    """After a failure the next step is the first undo, or the end."""
    turned = after(LINE, paused(state(a=Succeeded(), b=Failed())), StepOrdered())
    assert (turned.state.of("a"), turned.state.paused) == (Undoing(), True)
    over = after(LINE, paused(state(a=Failed())), StepOrdered()).state
    assert (status_of(LINE, over), over.paused) == (SagaStatus.FAILED, False)
