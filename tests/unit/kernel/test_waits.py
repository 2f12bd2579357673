"""Waits in the kernel: what ends them, and what they leave."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from saga_orchestrator.definition.graph import Graph, Node, StepKind
from saga_orchestrator.kernel.effects import Collect, Execute, Verdict
from saga_orchestrator.kernel.events import (
    Asked,
    Claimed,
    Collected,
    Compensated,
    Notified,
    Probed,
    ProbeOutcome,
    Raised,
    Returned,
    Signalled,
    Ticked,
)
from saga_orchestrator.kernel.order_events import (
    AbortOrdered,
    CancelOrdered,
    CompensateOrdered,
    RetryOrdered,
    SkipOrdered,
)
from saga_orchestrator.kernel.projection import awaiting, outstanding, residue, status_of, wake_at
from saga_orchestrator.kernel.state import SagaStatus, State
from saga_orchestrator.kernel.step_status import Asking, Failed, Running, Waiting
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import UndoAsking, UndoFailed, UndoWaiting
from saga_orchestrator.kernel.waits import addressee

from .sagas import NOW

HOUR = timedelta(hours=1)
ASKED = Asked("a", 1, ("go",), timeout=HOUR)


def saga(**facts: Any) -> Graph:
    """Return a saga of a step `a` that can be undone without its output, and a last step `b`."""
    return Graph.of(
        Node(step_id="a", **{"undoable": True, "undo_without_output": True, **facts}),
        Node(step_id="b", after=("a",), nothing_to_undo=True),
    )


def after(graph: Graph, *events: Any, at: timedelta = timedelta(0)) -> State:
    """Return the state after these events, the last of which comes later."""
    state = State("saga")
    for event in (Claimed(), *events):
        late = at if event is events[-1] else timedelta(0)
        state = decide(graph, state, event, now=NOW + late).state
    return state


def test_a_question_is_looked_up_before_it_is_waited_for() -> None:
    """Asked, the step is live until somebody has looked; then the saga is suspended, and nobody's."""
    graph = saga()
    asking = after(graph, ASKED)
    assert outstanding(asking) == (Collect("a", 1),)
    assert status_of(graph, asking) is SagaStatus.RUNNING
    assert wake_at(asking) is None

    waiting = decide(graph, asking, Collected("a", 1), now=NOW).state
    assert waiting.of("a") == Waiting(1, 0, ("go",), None, until=NOW + HOUR, tainted=True)
    assert (status_of(graph, waiting), awaiting(graph, waiting)) == (SagaStatus.SUSPENDED, "event:go")
    assert wake_at(waiting) == NOW + HOUR


@pytest.mark.parametrize("looked", [(), (Collected("a", 1),)])
def test_an_event_ends_the_wait_before_and_after_it_was_looked_up(looked: tuple[Any, ...]) -> None:
    """The step goes on under the next attempt, in doubt, for it has asked."""
    state = after(saga(), ASKED, *looked, Signalled("go"))
    assert state.of("a") == Running(2, 0, None, True, 1)
    assert outstanding(state) == (Execute("a", 2, True, 1),)


def test_a_timer_is_not_looked_up() -> None:
    """Nothing can have come before it."""
    graph = saga()
    state = after(graph, Asked("a", 1, (), timeout=HOUR, resumes=True))
    assert awaiting(graph, state) == "timer"
    assert decide(graph, state, Ticked(), now=NOW + HOUR).state.of("a") == Running(2, 0, None, True, 1)


def test_an_event_at_the_end_of_the_time_is_too_late() -> None:
    """Until then it is not."""
    state = after(saga(), ASKED, Collected("a", 1))
    assert decide(saga(), state, Signalled("go"), now=NOW + HOUR).verdict is Verdict.UNMATCHED
    assert addressee(state, "go", None, None) == "a"
    assert decide(saga(), state, Signalled("go"), now=NOW + HOUR - timedelta(microseconds=1)).verdict is Verdict.APPLIED


def test_what_is_looked_up_has_not_run_out() -> None:
    """The event may have come in time, and be found only now."""
    assert after(saga(), ASKED, Signalled("go"), at=2 * HOUR).of("a") == Running(2, 0, None, True, 1)


def test_a_wait_that_runs_out_turns_the_saga() -> None:
    """The step that asked is undone, without an output."""
    state = after(saga(), ASKED, Collected("a", 1), Ticked(), at=HOUR)
    assert type(state.of("a")).__name__ == "Undoing"
    assert not state.of("a").with_output  # type: ignore[attr-defined]


def test_a_wait_of_a_step_without_compensation_leaves_nothing() -> None:
    """There is nothing to undo, and the saga has failed."""
    graph = saga(undoable=False, undo_without_output=False)
    state = after(graph, ASKED, Collected("a", 1), Ticked(), at=HOUR)
    assert state.of("a") == Failed(1)
    assert (status_of(graph, state), residue(graph, state)) == (SagaStatus.FAILED, ())


def test_a_pivot_that_has_asked_never_turns() -> None:
    """It has acted: when nothing comes, a person has to decide."""
    graph = Graph.of(Node(step_id="a", kind=StepKind.PIVOT))
    state = after(graph, ASKED, Collected("a", 1), Ticked(), at=HOUR)
    assert status_of(graph, state) is SagaStatus.STUCK


def test_the_one_correlation_comes_before_any() -> None:
    """Of two waits for an event, the one that named its correlation has it."""
    graph = Graph.of(Node(step_id="a", nothing_to_undo=True), Node(step_id="b", nothing_to_undo=True))
    state = after(graph, Asked("a", 1, ("go",)), Asked("b", 1, ("go",), "mine"))
    assert addressee(state, "go", "mine", NOW) == "b"
    assert addressee(state, "go", "other", NOW) == addressee(state, "go", None, NOW) == "a"
    assert addressee(state, "stop", None, NOW) is None


def test_a_saga_that_turned_meanwhile_waits_for_nothing() -> None:
    """A question that comes when the saga is being undone is the step's last word."""
    state = after(saga(), CancelOrdered(), ASKED)
    assert type(state.of("a")).__name__ == "Undoing"


@pytest.mark.parametrize("looked", [(), (Collected("a", 1),)])
def test_a_cancelled_saga_waits_no_longer(looked: tuple[Any, ...]) -> None:
    """The step has asked, and is undone."""
    assert type(after(saga(), ASKED, *looked, CancelOrdered()).of("a")).__name__ == "Undoing"


def test_a_compensation_asks_and_goes_on() -> None:
    """As a step does, while the saga is COMPENSATING."""
    graph = saga()
    undoing = (Returned("a", 1), Raised("b", 1, retryable=False))
    asked = Asked("a", 1, ("done",), timeout=HOUR)
    waiting = after(graph, *undoing, asked, Collected("a", 1))
    assert waiting.of("a") == UndoWaiting(1, 0, ("done",), until=NOW + HOUR, with_output=True)
    assert status_of(graph, waiting) is SagaStatus.COMPENSATING
    heard = decide(graph, waiting, Signalled("done", step_id="a"), now=NOW).state
    assert heard.of("a").heard == 1  # type: ignore[attr-defined]
    over = decide(graph, heard, Compensated("a", 2), now=NOW).state
    assert status_of(graph, over) is SagaStatus.COMPENSATED


@pytest.mark.parametrize(
    ("last", "left"),
    [
        ((Collected("a", 1), Ticked()), UndoFailed(1)),
        ((Collected("a", 1), AbortOrdered()), UndoFailed(1)),
        ((AbortOrdered(),), UndoFailed(1)),
        ((Claimed(crashed=True),), UndoAsking(1, 0, ("done",), limit=NOW + HOUR)),
    ],
)
def test_a_compensation_that_waits_in_vain_has_failed(last: tuple[Any, ...], left: Any) -> None:
    """By time or by order; a crash only has the question looked up again."""
    undoing = (Returned("a", 1), Raised("b", 1, retryable=False), Asked("a", 1, ("done",), timeout=HOUR))
    assert after(saga(), *undoing, *last, at=HOUR).of("a") == left


def test_a_crash_has_the_question_looked_up_again() -> None:
    """Nobody knows whether it was."""
    graph = saga()
    decision = decide(graph, after(graph, ASKED), Claimed(crashed=True), now=NOW)
    assert decision.work == (Collect("a", 1),)
    assert decision.state.of("a") == Asking(1, 0, ("go",), limit=NOW + HOUR, tainted=True)


def test_a_notification_ends_no_wait() -> None:
    """It is for what waits for its next attempt; an event is for a wait."""
    graph = saga()
    waiting = after(graph, ASKED, Collected("a", 1))
    assert decide(graph, waiting, Notified(), now=NOW).verdict is Verdict.UNMATCHED
    assert decide(graph, waiting, Signalled("", step_id="b"), now=NOW).verdict is Verdict.UNMATCHED


def test_a_step_that_waits_can_be_skipped() -> None:
    """An operator found out in another way."""
    graph = saga()
    waiting = after(graph, ASKED, Collected("a", 1))
    assert decide(graph, waiting, SkipOrdered(step_id="a", acted=True, output="{}"), now=NOW).verdict is Verdict.APPLIED


@pytest.mark.parametrize("undone", [False, True])
def test_a_saga_that_was_quarantined_looks_again_for_what_came_meanwhile(undone: bool) -> None:
    """While it was, no event could be given to it."""
    graph = Graph.of(
        Node(step_id="a", undoable=True, undo_without_output=True), Node(step_id="b", undoable=True), max_recoveries=0
    )
    back = (Returned("a", 1), CancelOrdered(), Returned("b", 1)) if undone else ()
    quarantined = after(graph, *back, ASKED, Collected("a", 1), Claimed(crashed=True))
    assert quarantined.quarantined
    assert decide(graph, quarantined, Signalled("go"), now=NOW).verdict is Verdict.UNMATCHED

    order = CompensateOrdered() if undone else RetryOrdered()
    released = decide(graph, quarantined, order, now=NOW)

    assert Collect("a", 1) in released.work
    asked = UndoAsking if undone else Asking
    assert isinstance(released.state.of("a"), asked)


def test_a_step_that_has_asked_has_acted_whatever_its_probe_says() -> None:
    """The probe speaks of the attempt that was lost; the question was asked before it."""
    graph = saga(probes=True)
    heard = (ASKED, Signalled("go"))
    lost = after(graph, *heard, Claimed(crashed=True), Probed("a", 2, ProbeOutcome.NOT_DONE))
    assert lost.of("a").tainted  # type: ignore[attr-defined]
    failed = decide(graph, lost, Raised("a", 3, retryable=False), now=NOW).state
    assert type(failed.of("a")).__name__ == "Undoing"


def test_who_asks_after_a_part_has_acted() -> None:
    """Also a step without a compensation: when its wait runs out, what it did stands, and is named."""
    graph = saga(undoable=False, undo_without_output=False)
    state = after(graph, replace(ASKED, acted=True), Collected("a", 1), Ticked(), at=HOUR)
    assert (status_of(graph, state), residue(graph, state)) == (SagaStatus.STUCK, ("a",))
