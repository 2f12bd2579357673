"""What is derived from a state: status, timers, what is awaited, residue, and what a person is shown."""

from __future__ import annotations

import pytest

from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.effects import Compensate, Execute, Probe
from saga_orchestrator.kernel.events import Claimed, CompensationRaised, Event, Raised, Returned
from saga_orchestrator.kernel.order_events import AbortOrdered, SkipOrdered
from saga_orchestrator.kernel.projection import (
    awaiting,
    current_step_index,
    is_live,
    last_error,
    outstanding,
    residue,
    retry_counter,
    stands,
    status_of,
    wake_at,
    work_of,
)
from saga_orchestrator.kernel.state import SagaStatus, State
from saga_orchestrator.kernel.step_status import (
    Failed,
    Pending,
    Probing,
    Retrying,
    Running,
    Skipped,
    StepStatus,
    Succeeded,
)
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import Passed, UndoFailed, Undoing, Undone, UndoRetrying, Waived

from .sagas import AT_ONCE, LATER, NOW, SECOND, TWICE, back, halted, pivot, read, retriable, state, step

GRAPH = Graph.of(step("a"), step("b", "a"), read("c", "b"))
PIVOT = Graph.of(pivot("p"), read("q"))
PAUSED = Retrying(1, 1, LATER)
STATUSES = [
    ("newborn", GRAPH, state(), SagaStatus.RUNNING),
    ("work in flight", GRAPH, state(a=Running()), SagaStatus.RUNNING),
    ("a probe in flight", GRAPH, state(a=Probing()), SagaStatus.RUNNING),
    ("work beside a pause", PIVOT, state(p=Running(), q=PAUSED), SagaStatus.RUNNING),
    ("only a pause", GRAPH, state(a=PAUSED), SagaStatus.SUSPENDED),
    ("a pause beside a failure past the pivot", PIVOT, state(p=PAUSED, q=Failed()), SagaStatus.SUSPENDED),
    ("a failure past the pivot", PIVOT, state(p=Succeeded(), q=Failed()), SagaStatus.STUCK),
    ("quarantine", GRAPH, state(a=Running(), quarantined=True), SagaStatus.STUCK),
    ("all done", GRAPH, state(a=Succeeded(), b=Skipped(), c=Succeeded()), SagaStatus.COMPLETED),
    ("nothing to do", Graph.of(), state(), SagaStatus.COMPLETED),
    ("steps missing", GRAPH, state(a=Succeeded()), SagaStatus.RUNNING),
    ("an undo in flight", GRAPH, back(a=Undoing(), b=Failed()), SagaStatus.COMPENSATING),
    ("a pause before an undo", GRAPH, back(a=UndoRetrying(1, 1, LATER)), SagaStatus.COMPENSATING),
    ("a step in flight on the way back", GRAPH, back(a=Running()), SagaStatus.COMPENSATING),
    ("an undo that failed", GRAPH, back(a=Undone(), b=UndoFailed(1)), SagaStatus.STUCK),
    ("an undo that is held back", GRAPH, back(a=Succeeded(), b=UndoFailed(1)), SagaStatus.STUCK),
    ("everything undone", GRAPH, back(a=Undone(), b=Undone(), c=Passed()), SagaStatus.COMPENSATED),
    ("undone, or waived", GRAPH, back(a=Undone(), b=Waived()), SagaStatus.COMPENSATED),
    ("only waived", GRAPH, back(a=Waived(), b=Failed()), SagaStatus.FAILED),
    ("nothing had acted", GRAPH, back(a=Failed()), SagaStatus.FAILED),
    ("nothing had an effect", GRAPH, back(a=Skipped(), c=Failed(tainted=True)), SagaStatus.FAILED),
    ("left alone", GRAPH, halted(a=Succeeded(), b=Failed()), SagaStatus.FAILED),
    ("to be left alone", GRAPH, halted(a=Failed(), b=Running()), SagaStatus.RUNNING),
]


@pytest.mark.parametrize(("graph", "of", "expected"), [row[1:] for row in STATUSES], ids=[row[0] for row in STATUSES])
def test_where_a_saga_stands(graph: Graph, of: State, expected: SagaStatus) -> None:
    """The status is a function of the state, and nothing else."""
    assert status_of(graph, of) is expected


def test_only_three_statuses_are_final() -> None:
    """STUCK is not: it waits for a person."""
    final = {status for status in SagaStatus if status.is_terminal}
    assert final == {SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED}


def test_outstanding_is_all_that_is_in_flight() -> None:
    """Whatever a crash could have lost is found in the state."""
    forward = state(a=Running(2, 1, tainted=True), b=Probing(3), c=PAUSED)
    assert outstanding(forward) == (Execute("a", 2, tainted=True), Probe("b", 3))
    assert outstanding(back(a=Undoing(2, with_output=False), b=Failed())) == (Compensate("a", 2, with_output=False),)


def test_a_quarantined_saga_has_no_work_and_no_timer() -> None:
    """Nobody shall take it before a person has looked."""
    quarantined = state(a=Running(1, 0, LATER), quarantined=True)
    assert (outstanding(quarantined), wake_at(quarantined), awaiting(GRAPH, quarantined)) == ((), None, "operator")


def test_the_timer_is_the_first_of_all() -> None:
    """A row has one timer, whatever its steps wait for."""
    assert wake_at(state(a=Running(1, 0, LATER), b=Retrying(1, 1, LATER - SECOND), c=Running())) == LATER - SECOND
    assert wake_at(state(a=Running())) is None


def test_what_a_saga_waits_for() -> None:
    """A person, a pause, or nothing."""
    assert awaiting(GRAPH, back(a=UndoFailed(1))) == "operator"
    assert awaiting(GRAPH, state(a=PAUSED)) == "retry"
    assert awaiting(GRAPH, back(a=UndoRetrying(1, 1, LATER))) == "retry"
    assert awaiting(PIVOT, state(p=Running(), q=PAUSED)) is None
    assert awaiting(GRAPH, back(a=Undone())) is None
    assert (is_live(state(a=Running())), is_live(state(a=PAUSED))) == (True, False)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Pending(), False),
        (Running(), True),
        (Probing(), True),
        (PAUSED, False),
        (Retrying(1, 1, LATER, tainted=True), True),
        (Failed(), False),
        (Failed(tainted=True), True),
        (Succeeded(), True),
        (Skipped(), False),
        (Skipped(acted=True), True),
        (Undoing(), True),
        (UndoRetrying(1, 1, LATER), True),
        (UndoFailed(1), True),
        (Undone(), False),
        (Passed(), False),
        (Waived(), False),
    ],
    ids=str,
)
def test_whether_an_effect_stands_or_may_stand(status: StepStatus, expected: bool) -> None:
    """What may have acted counts as standing; a step without an effect never does."""
    assert stands(GRAPH, "a", status) is expected
    assert not stands(GRAPH, "c", status)
    assert not stands(GRAPH, "nowhere", status)


def test_the_residue_is_what_stands_where_it_should_not() -> None:
    """In the definition's order; on the way forward only what failed in doubt, and in quarantine what was in flight."""
    assert residue(GRAPH, back(b=UndoFailed(1), a=Succeeded())) == ("a", "b")
    assert residue(GRAPH, halted(a=Succeeded(), b=Failed())) == ("a",)
    assert residue(GRAPH, state(a=Succeeded(), b=Failed(tainted=True))) == ("b",)
    assert residue(GRAPH, state(a=Succeeded(), b=Running())) == ()
    assert residue(GRAPH, state(a=Succeeded(), b=Running(), quarantined=True)) == ("b",)


def test_how_far_a_saga_is() -> None:
    """The first step that is not at rest, or how many are."""
    assert current_step_index(GRAPH, state(a=Succeeded(), b=Running())) == 1
    assert current_step_index(GRAPH, state(a=Succeeded(), b=Succeeded(), c=Succeeded())) == 3


def test_the_retry_counter_is_that_of_the_step_in_the_worst_trouble() -> None:
    """Attempts that have failed, the most of any step."""
    assert retry_counter(state(a=Running(3, 2), b=Retrying(2, 1, LATER), c=Failed())) == 2
    assert retry_counter(state(a=Succeeded())) == 0


def shown(graph: Graph, before: State, *events: Event) -> str | None:
    error = None
    for event in events:
        decision = decide(graph, before, event, now=NOW)
        error, before = last_error(error, before, decision), decision.state
    return error


BESIDE = Graph.of(pivot("p"), retriable("r", "p"), retriable("s", "p", retry=TWICE), retriable("t", "p"))
PAST = state(p=Succeeded(), r=Running(), s=Running(), t=Running())


def test_an_error_is_shown_until_the_step_succeeds() -> None:
    """While it is tried again, the last error is shown; afterwards all is well."""
    graph = Graph.of(step("a", retry=AT_ONCE))
    assert shown(graph, state(a=Running()), Raised("a", 1, "boom")) == "boom"
    assert shown(graph, state(a=Running()), Raised("a", 1, "boom"), Returned("a", 2)) is None
    assert shown(graph, state(a=Running()), Claimed(), Returned("a", 1)) is None


def test_the_business_error_survives_the_rollback() -> None:
    """What turned the saga is shown, not what went wrong on the way back."""
    graph = Graph.of(step("a"), step("b", "a"), step("c", "a"))
    before = state(a=Succeeded(), b=Running(), c=Running())
    events = (Raised("b", 1, "declined"), Raised("c", 1, "late"), CompensationRaised("a", 1, "stays"))
    assert shown(graph, before, *events) == "declined"


def test_a_success_beside_a_failure_does_not_hide_it() -> None:
    """A saga that will be STUCK shows why; one that waits for a retry, too."""
    assert shown(BESIDE, PAST, Raised("r", 1, "no courier"), Returned("t", 1)) == "no courier"
    assert shown(BESIDE, PAST, Raised("s", 1, "busy"), Returned("t", 1)) == "busy"


def test_the_first_failure_for_good_is_the_one_that_is_shown() -> None:
    """Errors that follow while the saga has not yet turned do not cover it."""
    assert shown(BESIDE, PAST, Raised("r", 1, "no courier"), Raised("t", 1, "and no mail")) == "no courier"
    assert shown(BESIDE, PAST, Raised("s", 1, "busy"), Raised("r", 1, "no courier")) == "no courier"


def test_quarantine_is_shown_and_an_order_is_not() -> None:
    """What an operator ordered is in the history; the error stays the error."""
    graph = Graph.of(step("a"), max_recoveries=0)
    assert (shown(graph, state(a=Running()), Claimed(crashed=True)) or "").startswith("quarantined")
    assert shown(BESIDE, PAST, Raised("r", 1, "no courier"), AbortOrdered()) == "no courier"
    assert shown(GRAPH, state(a=PAUSED), SkipOrdered()) is None


def test_quarantine_keeps_what_the_owners_were_lost_by() -> None:
    """The error that was shown before stands behind the quarantine, once."""
    decision = decide(Graph.of(step("a"), max_recoveries=0), state(a=Running()), Claimed(crashed=True), now=NOW)
    first = last_error("the disk refused it", state(a=Running()), decision) or ""
    assert first.startswith("quarantined: ")
    assert first.endswith(" <- the disk refused it")
    assert "the disk" not in (last_error(first, state(a=Running()), decision) or "")


def test_only_a_live_status_has_work() -> None:
    """To ask for the work of a step at rest is a defect of the asker, and said to be one."""
    with pytest.raises(AssertionError, match="no work is in flight"):
        work_of("a", Succeeded())
