"""Rewinds in the kernel: what is undone, when it goes forward again, and what is never taken for new."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.effects import Compensate, Decision, Execute, Verdict
from saga_orchestrator.kernel.events import Claimed, Compensated, CompensationRaised, Event, Raised, Returned
from saga_orchestrator.kernel.laws import broken_by_move
from saga_orchestrator.kernel.order_events import (
    AbortOrdered,
    CancelOrdered,
    CompensateOrdered,
    RetryOrdered,
    RewindOrdered,
    WaiveOrdered,
)
from saga_orchestrator.kernel.pause import PauseOrdered, ResumeOrdered
from saga_orchestrator.kernel.projection import residue, status_of
from saga_orchestrator.kernel.rewind_laws import (
    a_rewind_ends_when_nothing_stands,
    a_rewind_leaves_the_rest,
    who_begins_again_counts_on,
)
from saga_orchestrator.kernel.state import Course, Rewind, SagaStatus, State
from saga_orchestrator.kernel.step_status import Retrying, Running, Succeeded
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import UndoFailed, Undoing, Undone

from .sagas import NOW, pivot, read, state, step

ROW = Graph.of(step("a"), step("b", "a"), step("c", "b"), undo_window=timedelta(hours=1))
SPLIT = Graph.of(step("a"), step("b", "a"), step("x", "a"), step("z", "b", "x"))


def applied(graph: Graph, before: State, event: Event) -> Decision:
    decision = decide(graph, before, event, now=NOW)
    assert decision.verdict is Verdict.APPLIED, decision.reason
    assert list(broken_by_move(graph, before, event, decision)) == []
    return decision


def lived(graph: Graph, before: State, *events: Event) -> State:
    for event in events:
        before = applied(graph, before, event).state
    return before


DONE = state(a=Succeeded(), b=Succeeded(2), c=Retrying(1, 1, NOW + timedelta(hours=1)))


def test_what_comes_after_the_step_is_undone_and_the_step_itself() -> None:
    """What comes before it stays."""
    turned = applied(ROW, DONE, RewindOrdered(step_id="b"))
    assert turned.work == (Compensate("b", 1),)
    assert turned.state.rewind == Rewind("b", {"b": 2})
    assert status_of(ROW, turned.state) is SagaStatus.COMPENSATING


def test_then_it_goes_forward_with_attempts_that_nobody_has_made() -> None:
    """However often it had been tried to do it, or to undo it."""
    again = lived(ROW, DONE, RewindOrdered(step_id="b"), Compensated("b", 1))
    assert again.open == {"b": Running(3)}
    assert (again.course, again.spent, again.rewind) == (Course.FORWARD, {"b": 2, "c": 1}, None)

    late = decide(ROW, again, Returned("b", 1), now=NOW)
    assert late.verdict is Verdict.STALE


def test_a_second_rewind_counts_on() -> None:
    """The undo of a step counts from where the step has got to."""
    again = lived(ROW, DONE, RewindOrdered(step_id="b"), Compensated("b", 1), Returned("b", 3), Raised("c", 2))
    assert applied(ROW, again, Compensated("b", 3)).state.spent == {"b": 2, "c": 1}
    rewound = lived(
        ROW,
        DONE,
        RewindOrdered(step_id="b"),
        Compensated("b", 1),
        Returned("b", 3),
        RewindOrdered(step_id="b"),
        Returned("c", 2),
        Compensated("c", 2),
    )
    assert rewound.open == {"b": Undoing(3)}


def test_a_step_without_an_effect_is_gone_back_to_at_once() -> None:
    """There is nothing to wait for."""
    graph = Graph.of(step("a"), read("s", "a"), step("b", "s"))
    failed = state(a=Succeeded(), s=Succeeded(), b=Retrying(1, 1, NOW + timedelta(hours=1)))
    rewound = applied(graph, failed, RewindOrdered(step_id="s"))
    assert rewound.work == (Execute("s", 2),)


def test_what_is_beside_it_is_left_alone_and_tried_again() -> None:
    """It had waited for its next attempt, and gets that with the way forward."""
    later = NOW + timedelta(hours=1)
    before = state(a=Succeeded(), b=Succeeded(), x=Retrying(1, 1, later, tainted=True))
    rewound = lived(SPLIT, before, RewindOrdered(step_id="b"), Compensated("b", 1))
    assert rewound.open == {"x": Running(2, tainted=True), "b": Running(2)}


def test_what_is_in_flight_ends_first() -> None:
    """And is undone, if it went well."""
    running = state(a=Succeeded(), b=Running())
    turned = applied(ROW, running, RewindOrdered(step_id="a"))
    assert turned.work == ()
    assert applied(ROW, turned.state, Returned("b", 1)).work == (Compensate("b", 1),)


def test_an_undo_that_fails_holds_it_up() -> None:
    """Only what is to be undone stands in the residue; a waiver lets it go forward, and counts on."""
    stuck = lived(ROW, DONE, RewindOrdered(step_id="b"), CompensationRaised("b", 1, "no", retryable=False))
    assert (status_of(ROW, stuck), residue(ROW, stuck)) == (SagaStatus.STUCK, ("b",))
    assert applied(ROW, stuck, WaiveOrdered(step_id="b", actor="ann")).work == (Execute("b", 3),)
    assert applied(ROW, stuck, CompensateOrdered()).work == (Compensate("b", 2),)


def test_a_retry_that_goes_forward_ends_it() -> None:
    """A turn that has undone nothing yet is taken back whole: the next one is not bounded by it."""
    crashed = replace(lived(ROW, state(a=Succeeded(), b=Running()), RewindOrdered(step_id="a")), quarantined=True)
    forward = applied(ROW, crashed, RetryOrdered()).state
    assert (forward.course, forward.rewind) == (Course.FORWARD, None)


def test_what_is_beside_it_cannot_be_waived() -> None:
    """It stands, as it is meant to: the saga is to go forward with it."""
    before = state(a=Succeeded(), b=Succeeded(), x=Succeeded())
    stuck = lived(SPLIT, before, RewindOrdered(step_id="b"), CompensationRaised("b", 1, "no", retryable=False))
    refused = decide(SPLIT, stuck, WaiveOrdered(step_id="x", actor="ann"), now=NOW)
    assert (refused.verdict, "not part of its residue" in refused.reason) == (Verdict.REFUSED, True)


def test_it_may_become_a_rollback_or_an_end() -> None:
    """Cancel undoes the rest as well; abort leaves it."""
    turned = lived(ROW, DONE, RewindOrdered(step_id="b"))
    cancelled = lived(ROW, turned, CancelOrdered(), Compensated("b", 1))
    assert cancelled.open.keys() == {"c", "a"}
    assert applied(ROW, turned, AbortOrdered()).state.rewind is None


@pytest.mark.parametrize(
    ("before", "order", "why"),
    [
        (DONE, RewindOrdered(step_id="z"), "not come to a step 'z'"),
        (state(a=Running()), RewindOrdered(step_id="b"), "not come to a step 'b'"),
        (replace(DONE, course=Course.HALTED), RewindOrdered(step_id="a"), "turned back already"),
    ],
)
def test_where_it_cannot_go(before: State, order: RewindOrdered, why: str) -> None:
    """It is refused, and nothing moves."""
    refused = decide(ROW, before, order, now=NOW)
    assert (refused.verdict, refused.state) == (Verdict.REFUSED, before)
    assert why in refused.reason


def test_it_does_not_go_back_over_a_pivot() -> None:
    """What is past it only goes forward."""
    graph = Graph.of(step("a"), pivot("p", "a"))
    for status in (Running(), Succeeded()):
        refused = decide(graph, state(a=Succeeded(), p=status), RewindOrdered(step_id="a"), now=NOW)
        assert refused.verdict is Verdict.REFUSED


ENDED = state(a=Succeeded(), b=Succeeded(), c=Succeeded())


@pytest.mark.parametrize("order", [CompensateOrdered(), RewindOrdered(step_id="c")])
def test_what_has_completed_is_undone_within_its_window(order: CompensateOrdered | RewindOrdered) -> None:
    """By the database's time, to the last moment."""
    in_time = replace(order, finished_at=NOW - timedelta(hours=1))
    assert applied(ROW, ENDED, in_time).work == (Compensate("c", 1),)

    late = replace(order, finished_at=NOW - timedelta(hours=1, microseconds=1))
    assert "window of 1:00:00 has closed" in decide(ROW, ENDED, late, now=NOW).reason
    assert "has closed" in decide(ROW, ENDED, order, now=NOW).reason
    assert "opens no undo_window" in decide(replace(ROW, undo_window=None), ENDED, in_time, now=NOW).reason


def test_the_laws_of_rewinds_can_be_broken() -> None:
    """Each by a move that only a defect could make."""
    stuck = State("saga", {"b": UndoFailed(1)}, {"a": Succeeded()}, Course.BACKWARD, rewind=Rewind("b"))
    undone = State("saga", {}, {"a": Succeeded(), "b": Undone()}, Course.BACKWARD, rewind=Rewind("b"))
    forward = State("saga", {"b": Running(2)}, {"a": Succeeded()}, spent={"b": 1})
    reply = Compensated("b", 1)

    def move(after: State) -> Decision:
        return Decision(after, (), (), Verdict.APPLIED)

    assert a_rewind_ends_when_nothing_stands(ROW, undone, reply, move(forward))
    assert not a_rewind_ends_when_nothing_stands(ROW, stuck, reply, move(forward))
    assert a_rewind_leaves_the_rest(ROW, undone, reply, move(forward))
    assert not a_rewind_leaves_the_rest(ROW, undone, reply, move(replace(forward, done={"a": Succeeded(2)})))
    assert who_begins_again_counts_on(ROW, undone, reply, move(forward))
    assert not who_begins_again_counts_on(ROW, undone, reply, move(replace(forward, spent={})))
    assert not who_begins_again_counts_on(ROW, undone, reply, move(replace(forward, open={"b": Running(1)})))


def test_a_claim_in_the_middle_goes_on() -> None:
    """With the undo that was in flight."""
    turned = lived(ROW, DONE, RewindOrdered(step_id="b"))
    assert applied(ROW, turned, Claimed(crashed=True)).state.open["b"] == Undoing(1)


def test_a_choice_that_is_made_too_late_is_made_again() -> None:
    """Its answer comes when the saga is on its way back to it: nobody goes by it."""
    graph = Graph.of(read("c"), step("x", "c", branches=(("c", "x"),)), step("y", "c", branches=(("c", "y"),)))
    turned = applied(graph, state(c=Running()), RewindOrdered(step_id="c")).state
    again = applied(graph, turned, Returned("c", 1, chosen="x"))
    assert (again.work, again.state.done) == ((Execute("c", 2),), {})


def test_a_pause_holds_up_its_end() -> None:
    """Nothing of the part stands any more, and nothing begins before somebody lets it."""
    held = lived(ROW, DONE, RewindOrdered(step_id="b"), PauseOrdered(), Compensated("b", 1))
    assert (status_of(ROW, held), held.rewind is None, held.course) == (
        SagaStatus.COMPENSATING,
        False,
        Course.BACKWARD,
    )
    assert applied(ROW, held, ResumeOrdered()).work == (Execute("b", 3),)


def test_what_is_in_flight_beside_it_stays_so() -> None:
    """It goes on, and nobody begins it again."""
    before = state(a=Succeeded(), b=Succeeded(), x=Running())
    rewound = lived(SPLIT, before, RewindOrdered(step_id="b"), Compensated("b", 1))
    assert rewound.open == {"x": Running(), "b": Running(2)}
