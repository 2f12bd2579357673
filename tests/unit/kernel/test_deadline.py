"""The deadline of a whole saga."""

from __future__ import annotations

from datetime import timedelta

import pytest

from saga_orchestrator import SagaBuilder, SagaDefinitionError
from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.events import Claimed, Raised, Returned, Ticked
from saga_orchestrator.kernel.projection import last_error, status_of, wake_at
from saga_orchestrator.kernel.state import SagaStatus, State
from saga_orchestrator.kernel.transition import decide

from .sagas import LATER, NOW, pivot, step

GRAPH = Graph.of(step("a"), step("b", "a"), pivot("p", "b"))


def after(graph: Graph, *events: object) -> State:
    state = State("saga", deadline=LATER)
    for event in (Claimed(), *events):
        state = decide(graph, state, event, now=NOW).state  # type: ignore[arg-type]
    return state


def test_a_saga_whose_time_is_up_lets_its_steps_end_and_is_undone() -> None:
    """History and `last_error` say why."""
    state = after(GRAPH, Returned("a", 1))
    assert wake_at(state) == LATER
    passed = decide(GRAPH, state, Ticked(), now=LATER)
    assert status_of(GRAPH, passed.state) is SagaStatus.RUNNING or passed.state.course == "B"
    assert last_error(None, state, passed) == "the saga's deadline has passed"
    over = decide(GRAPH, passed.state, Raised("b", 1, retryable=False), now=LATER).state
    assert status_of(GRAPH, over) is SagaStatus.COMPENSATING
    assert wake_at(over) is None


def test_a_saga_that_is_to_be_left_standing_is() -> None:
    """As when it fails."""
    graph = Graph.of(step("a"), step("b", "a"), compensate_on_failure=False)
    passed = decide(graph, after(graph, Returned("a", 1)), Ticked(), now=LATER).state
    assert passed.course == "H"


def test_a_pivot_in_flight_decides() -> None:
    """If it acts the saga goes on; if it does not, the saga is taken back."""
    state = after(GRAPH, Returned("a", 1), Returned("b", 1))
    waits = decide(GRAPH, state, Ticked(), now=LATER).state
    assert (waits.overdue, wake_at(waits)) == (True, None)
    assert status_of(GRAPH, decide(GRAPH, waits, Returned("p", 1), now=LATER).state) is SagaStatus.COMPLETED
    failed = decide(GRAPH, waits, Raised("p", 1, retryable=False), now=LATER).state
    assert status_of(GRAPH, failed) is SagaStatus.COMPENSATING


def test_a_new_owner_keeps_the_deadline() -> None:
    """It passed while nobody had the saga."""
    state = after(GRAPH, Returned("a", 1))
    assert decide(GRAPH, state, Claimed(crashed=True), now=LATER).state.course == "B"


def test_a_deadline_is_a_duration() -> None:
    """Of more than nothing."""
    with pytest.raises(SagaDefinitionError, match="deadline"):
        SagaBuilder(deadline=timedelta(0))
    builder = SagaBuilder(deadline=timedelta(days=1))
    builder.add_constant(1)
    assert builder.build().graph.deadline == timedelta(days=1)
