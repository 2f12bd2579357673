"""Steps that are committed with their record: an attempt that nobody has answered for has not acted."""

from __future__ import annotations

from datetime import timedelta

from saga_orchestrator.definition.graph import Graph, Node
from saga_orchestrator.kernel.effects import Execute, Probe, RecordStatus
from saga_orchestrator.kernel.events import Claimed, Probed, ProbeOutcome, Raised, Ticked
from saga_orchestrator.kernel.order_events import AbortOrdered
from saga_orchestrator.kernel.projection import residue
from saga_orchestrator.kernel.state import State
from saga_orchestrator.kernel.step_status import Failed
from saga_orchestrator.kernel.transition import decide

from .sagas import NOW, TWICE

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
