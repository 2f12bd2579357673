"""Choices in the kernel: one branch is taken, the others are omitted, and the answer stays."""

from __future__ import annotations

import pytest

from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.effects import Verdict
from saga_orchestrator.kernel.events import Raised, Returned
from saga_orchestrator.kernel.order_events import CompensateOrdered, SkipOrdered
from saga_orchestrator.kernel.projection import residue, status_of
from saga_orchestrator.kernel.state import SagaStatus, State
from saga_orchestrator.kernel.step_status import Failed, Omitted, Running, Succeeded
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import Undoing, Undone

from .sagas import NOW, back, read, state, step

X, Y = (("c", "x"),), (("c", "y"),)
GRAPH = Graph.of(
    step("a"),
    read("c", "a"),
    step("x1", "c", branches=X),
    step("x2", "x1", branches=X),
    step("y1", "c", branches=Y),
    step("j", "x2", "y1"),
)
ASKED = state(a=Succeeded(), c=Running())


def answered(label: str | None) -> State:
    return decide(GRAPH, ASKED, Returned("c", 1, "{}", '"x"', chosen=label), now=NOW).state


def test_the_branch_that_is_chosen_begins_and_the_others_are_omitted() -> None:
    """In the same decision."""
    after = answered("y")
    assert dict(after.open) == {"y1": Running()}
    assert {step_id for step_id, status in after.done.items() if isinstance(status, Omitted)} == {"x1", "x2"}


@pytest.mark.parametrize("label", [None, "z"])
def test_an_answer_without_a_branch_goes_on_at_the_join(label: str | None) -> None:
    """Nothing of the branches runs."""
    assert dict(answered(label).open) == {"j": Running()}


def test_what_comes_after_a_choice_waits_for_the_branch_that_was_taken() -> None:
    """And for that one only."""
    after = answered("x")
    first = decide(GRAPH, after, Returned("x1", 1, "{}", "{}"), now=NOW).state
    assert dict(first.open) == {"x2": Running()}
    assert dict(decide(GRAPH, first, Returned("x2", 1, "{}", "{}"), now=NOW).state.open) == {"j": Running()}


def test_a_saga_is_complete_without_the_branches_that_it_did_not_take() -> None:
    """They are at rest."""
    after = state(a=Succeeded(), c=Succeeded(), x1=Omitted(), x2=Omitted(), y1=Succeeded(), j=Succeeded())
    assert status_of(GRAPH, after) is SagaStatus.COMPLETED


def test_the_branch_that_was_taken_is_undone_and_no_other() -> None:
    """In reverse, up to what comes before the choice; what was omitted has no part in it."""
    failed = state(a=Succeeded(), c=Succeeded(), x1=Omitted(), x2=Omitted(), y1=Succeeded(), j=Running())
    turned = decide(GRAPH, failed, Raised("j", 1, "boom", retryable=False), now=NOW).state
    assert dict(turned.open) == {"j": Failed(1), "y1": Undoing()}
    assert residue(GRAPH, turned) == ("a", "y1")


def test_a_choice_that_an_operator_skips_takes_no_branch() -> None:
    """Nobody has answered it."""
    stuck = state(a=Succeeded(), c=Failed(1))
    graph = Graph(GRAPH.nodes, compensate_on_failure=False)
    halted = decide(graph, stuck, SkipOrdered(step_id="c"), now=NOW)
    assert halted.verdict is Verdict.APPLIED
    assert dict(halted.state.open) == {"j": Running()}


def test_a_choice_within_a_branch_is_made_when_that_is_taken() -> None:
    """What belongs to both is omitted by either."""
    graph = Graph.of(
        read("c"),
        read("d", "c", branches=X),
        step("p", "d", branches=(*X, ("d", "p"))),
        step("q", "d", branches=(*X, ("d", "q"))),
    )
    outer = decide(graph, state(c=Running()), Returned("c", 1, chosen="x"), now=NOW).state
    assert dict(outer.open) == {"d": Running()}
    inner = decide(graph, outer, Returned("d", 1, chosen="q"), now=NOW).state
    assert (inner.of("p"), inner.of("q")) == (Omitted(), Running())
    other = decide(graph, state(c=Running()), Returned("c", 1, chosen="y"), now=NOW).state
    assert status_of(graph, other) is SagaStatus.COMPLETED


def test_a_saga_that_took_no_branch_is_undone_through_its_choice() -> None:
    """What comes before the choice is undone after what comes behind it."""
    undone = back(a=Succeeded(), c=Succeeded(), x1=Omitted(), x2=Omitted(), y1=Omitted(), j=Undone())
    resumed = decide(GRAPH, undone, CompensateOrdered(), now=NOW)
    assert resumed.verdict in (Verdict.APPLIED, Verdict.REFUSED)
