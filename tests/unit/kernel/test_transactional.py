"""Steps that are committed with their record: an attempt that nobody has answered for has not acted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from saga_orchestrator.definition.graph import Graph, Node, StepKind
from saga_orchestrator.kernel.effects import Compensate, Execute, Probe, RecordStatus, Verdict
from saga_orchestrator.kernel.events import Claimed, Doubted, Probed, ProbeOutcome, Raised, Ticked
from saga_orchestrator.kernel.laws import broken_by_move
from saga_orchestrator.kernel.order_events import AbortOrdered
from saga_orchestrator.kernel.projection import residue, status_of
from saga_orchestrator.kernel.state import Action, Course, Rewind, SagaStatus, State
from saga_orchestrator.kernel.step_status import Failed, Retrying, Running, Skipped, StepStatus, Succeeded, Waiting
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import UndoAsking, UndoFailed, Undoing, Undone, UndoRetrying, UndoWaiting

from .sagas import LATER, NOW, TWICE

GRAPH = Graph.of(
    Node(step_id="a", transactional=True, undoable=True, probes=True, timeout=timedelta(seconds=1), retry=TWICE)
)


def begun() -> State:
    return decide(GRAPH, State("saga"), Claimed(), now=NOW).state


def test_a_lost_attempt_is_made_again_without_a_question_or_a_doubt() -> None:
    """It is not probed, for there is nothing to find out."""
    decision = decide(GRAPH, begun(), Claimed(crashed=True), now=NOW)
    assert decision.work == (Execute("a", 1, False),)
    assert [record.status for record in decision.records] == [RecordStatus.ERROR]


def test_an_attempt_that_is_out_of_time_has_not_acted() -> None:
    """Whatever it does from now on will be rolled back."""
    decision = decide(GRAPH, begun(), Ticked(), now=NOW + timedelta(seconds=1))
    assert not decision.state.of("a").tainted  # type: ignore[attr-defined]
    assert [record.status for record in decision.records] == [RecordStatus.ERROR]


def test_an_abort_leaves_no_doubt() -> None:
    """What was in flight comes too late, and is rolled back."""
    decision = decide(GRAPH, begun(), AbortOrdered(), now=NOW)
    assert decision.state.of("a") == Failed(1)
    assert residue(GRAPH, decision.state) == ()


def test_an_attempt_that_has_ended_its_transaction_itself_is_not_made_again() -> None:
    """Its probe says that it is not done, and an attempt is left; and yet only a person has it made again."""
    left = Raised("a", 1, "its own COMMIT", retryable=False, in_doubt=True)
    asked = decide(GRAPH, begun(), left, now=NOW)
    assert asked.work == (Probe("a", 1),)
    unknown = decide(GRAPH, asked.state, Probed("a", 1, ProbeOutcome.UNKNOWN), now=NOW)
    assert (unknown.work, residue(GRAPH, unknown.state)) == ((), ("a",))
    undone = decide(GRAPH, asked.state, Probed("a", 1, ProbeOutcome.NOT_DONE), now=NOW)
    assert (undone.work, residue(GRAPH, undone.state)) == ((), ())


# --- doubts that come late -------------------------------------------------------------------------------------------

LATE = Doubted("a", 1, "its own COMMIT")
PLAIN = Graph.of(Node(step_id="a", transactional=True, undoable=True, undo_without_output=True, retry=TWICE))


def of_a(status: StepStatus, course: Course = Course.FORWARD, **facts: Any) -> State:
    return State("saga", *(({"a": status}, {}) if status.is_open else ({}, {"a": status})), course, **facts)


ATTEMPTS = {
    "another attempt is in flight": of_a(Running(2)),
    "another owner has begun it again": of_a(Running(1)),
    "it waits for another attempt": of_a(Retrying(1, 1, LATER)),
    "the saga waits for a person": of_a(Running(1), quarantined=True),
}


@pytest.mark.parametrize("state", ATTEMPTS.values(), ids=ATTEMPTS)
def test_a_late_doubt_ends_the_attempts_of_its_step(state: State) -> None:
    """No other attempt comes off, and the step is undone without its output, or is residue."""
    decision = decide(PLAIN, state, LATE, now=NOW)
    assert decision.verdict is Verdict.APPLIED
    assert decision.records[0].status is RecordStatus.IN_DOUBT
    assert isinstance(decision.state.of("a"), Failed) is state.quarantined
    assert decision.work == (() if state.quarantined else (Compensate("a", 1, False),))


@pytest.mark.parametrize("course", [Course.BACKWARD, Course.HALTED])
def test_a_late_doubt_is_the_residue_of_a_saga_that_is_over(course: Course) -> None:
    """It was FAILED with nothing left, and is FAILED with the step in doubt; nothing begins."""
    decision = decide(PLAIN, of_a(Failed(1), course), LATE, now=NOW)
    assert (decision.state.of("a"), decision.work) == (Failed(1, tainted=True), ())
    assert status_of(PLAIN, decision.state) is SagaStatus.FAILED
    assert residue(PLAIN, decision.state) == ("a",)


def test_a_late_doubt_takes_back_that_all_was_undone() -> None:
    """COMPENSATED would say that nothing stands."""
    graph = Graph.of(Node(step_id="b", undoable=True), Node(step_id="a", after=("b",), transactional=True))
    state = State("saga", {"a": Failed(1)}, {"b": Undone(1)}, Course.BACKWARD)
    decision = decide(graph, state, LATE, now=NOW)
    assert (status_of(graph, decision.state), residue(graph, decision.state)) == (SagaStatus.FAILED, ("a",))


def test_a_late_doubt_is_undone_while_the_saga_goes_back() -> None:
    """Others are being undone still, and it is one more."""
    graph = Graph.of(Node(step_id="b", undoable=True), PLAIN.nodes["a"])
    state = State("saga", {"a": Failed(1), "b": Undoing(1)}, {}, Course.BACKWARD)
    assert decide(graph, state, LATE, now=NOW).work == (Compensate("a", 1, False),)


def test_a_late_doubt_of_a_pivot_stops_the_way_back() -> None:
    """What may be past its pivot is not undone any further; the rest is residue."""
    pivot = Node(step_id="a", kind=StepKind.PIVOT, transactional=True)
    graph = Graph.of(Node(step_id="b", undoable=True), pivot)
    state = State("saga", {"a": Failed(1), "b": Undoing(1)}, {}, Course.BACKWARD)
    decision = decide(graph, state, LATE, now=NOW)
    assert status_of(graph, decision.state) is SagaStatus.FAILED
    assert set(residue(graph, decision.state)) == {"a", "b"}


def test_a_late_doubt_of_a_step_that_waits_taints_it() -> None:
    """If the wait fails, the step has not failed cleanly."""
    decision = decide(PLAIN, of_a(Waiting(1, 0, ("paid",))), LATE, now=NOW)
    assert decision.state.of("a") == Waiting(1, 0, ("paid",), tainted=True)


@pytest.mark.parametrize("status", [Succeeded(2), Skipped(), Undone(1)])
def test_a_late_doubt_of_a_step_that_is_settled_is_told_in_the_history(status: StepStatus) -> None:
    """The later attempt stands; that the earlier one may stand as well is for a person to read."""
    course = Course.BACKWARD if isinstance(status, Undone) else Course.FORWARD
    decision = decide(PLAIN, of_a(status, course), LATE, now=NOW)
    assert decision.state.of("a") == status
    assert [(record.status, record.error) for record in decision.records] == [(RecordStatus.IN_DOUBT, LATE.error)]


def test_a_late_doubt_may_be_the_end_of_a_rewind() -> None:
    """The operator has ordered the step to run anew, and the step has nothing to undo: its count goes on."""
    graph = Graph.of(Node(step_id="a", transactional=True, nothing_to_undo=True))
    rewound = of_a(Running(2), Course.BACKWARD, rewind=Rewind("a", {"a": 2}))
    event = replace(LATE, attempt=2)
    decision = decide(graph, rewound, event, now=NOW)
    assert (decision.work, decision.records[0].status) == ((Execute("a", 3),), RecordStatus.IN_DOUBT)
    assert list(broken_by_move(graph, rewound, event, decision)) == []


UNDOS = {
    "another is in flight": Undoing(2),
    "it waits for another": UndoRetrying(1, 1, LATER),
    "it is to be tried again": UndoFailed(1, again=True),
    "it asks": UndoAsking(1, 0, ("paid",)),
    "it waits": UndoWaiting(1, 0, ("paid",)),
    "it has failed": UndoFailed(1),
}


@pytest.mark.parametrize("status", UNDOS.values(), ids=UNDOS)
def test_a_late_doubt_of_an_undo_ends_its_attempts(status: StepStatus) -> None:
    """It is not undone twice, so the saga is STUCK until a person has looked."""
    graph = Graph.of(replace(PLAIN.nodes["a"], compensation_retry=TWICE), Node(step_id="b", undoable=True))
    state = State("saga", {"a": status, "b": Undoing(1)}, {}, Course.BACKWARD)
    decision = decide(graph, state, replace(LATE, undoing=True), now=NOW)
    now = decision.state.of("a")
    assert isinstance(now, UndoFailed)
    assert not now.again
    assert decision.records[0].status is RecordStatus.IN_DOUBT


def test_a_doubt_crosses_no_action_and_knows_its_step() -> None:
    """It is told again when the action has ended."""
    acting = of_a(Failed(1, tainted=True), Course.HALTED, action=Action("CLOSE_ALL"))
    for state, event in ((acting, LATE), (of_a(Running(1)), replace(LATE, step_id="nowhere"))):
        decision = decide(PLAIN, state, event, now=NOW)
        assert (decision.verdict, decision.state, decision.records) == (Verdict.REFUSED, state, ())
