"""Fans in the kernel: when they unfold, what may be missed, and what becomes of that on the way back."""

from __future__ import annotations

from typing import Any

import pytest

from saga_orchestrator.definition.fans import Fan
from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.effects import Decision, Execute, Verdict
from saga_orchestrator.kernel.events import Claimed, Compensated, Event, Raised, Returned
from saga_orchestrator.kernel.laws import broken_by, broken_by_move
from saga_orchestrator.kernel.order_events import CancelOrdered, SkipOrdered
from saga_orchestrator.kernel.projection import residue, status_of
from saga_orchestrator.kernel.state import SagaStatus, State
from saga_orchestrator.kernel.step_status import Failed, Missed, Running, Succeeded
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import Undone

from .sagas import NOW, read, step


def fan(*, tolerate: int = 0, max_parallel: int | None = None, **item: Any) -> Graph:
    """A fan between a step that can be undone, and another."""
    each = Fan(item=step("f.*", "f", **item), end="f.all", tolerate=tolerate, max_parallel=max_parallel)
    nodes = (step("a"), read("f", "a"), read("f.all", "f"), step("z", "f.all"))
    return Graph.of(*nodes, fans={"f": each})


def lived(graph: Graph, *events: Event) -> State:
    """The state after some events, each of which was applied and broke no law."""
    now = State("saga")
    for event in (Claimed(), Returned("a", 1), *events):
        now = applied(graph, now, event).state
    return now


def applied(graph: Graph, before: State, event: Event) -> Decision:
    decision = decide(graph, before, event, now=NOW)
    assert decision.verdict is Verdict.APPLIED, decision.reason
    assert list(broken_by_move(graph, before, event, decision)) == []
    return decision


def test_the_items_begin_when_it_is_known_how_many_there_are() -> None:
    """All at once, and the end not before them."""
    begun = applied(fan(), lived(fan()), Returned("f", 1, items=2))
    assert begun.work == (Execute("f.0", 1), Execute("f.1", 1))
    assert begun.state.fans == {"f": 2}


def test_a_list_of_none_is_passed() -> None:
    """The end begins at once."""
    assert applied(fan(), lived(fan()), Returned("f", 1, items=0)).work == (Execute("f.all", 1),)


def test_no_more_run_than_may() -> None:
    """The next one begins when the one before it has ended."""
    graph = fan(max_parallel=1)
    begun = lived(graph, Returned("f", 1, items=2))
    assert begun.open.keys() == {"f.0"}
    assert applied(graph, begun, Returned("f.0", 1)).work == (Execute("f.1", 1),)


def test_a_saga_with_items_is_complete_when_they_are() -> None:
    """Its status and its place count them."""
    graph = fan()
    done = lived(graph, Returned("f", 1, items=1), Returned("f.0", 1), Returned("f.all", 1), Returned("z", 1))
    assert status_of(graph, done) is SagaStatus.COMPLETED
    assert len(done.done) == 5


def test_some_may_fail() -> None:
    """As many as are tolerated: the saga goes on without them."""
    graph = fan(tolerate=1)
    missed = lived(graph, Returned("f", 1, items=2), Raised("f.0", 1, retryable=False))
    assert missed.done["f.0"] == Missed(1)
    assert applied(graph, missed, Returned("f.1", 1)).work == (Execute("f.all", 1),)


def test_one_more_fails_the_saga() -> None:
    """What the others did is undone."""
    graph = fan(tolerate=1)
    failed = lived(
        graph,
        Returned("f", 1, items=3),
        Returned("f.0", 1),
        Raised("f.1", 1, retryable=False),
        Raised("f.2", 1, retryable=False),
    )
    assert isinstance(failed.open["f.2"], Failed)
    undone = applied(graph, failed, Compensated("f.0", 1)).state
    assert undone.done["f.0"] == Undone(1)
    assert "a" in undone.open


def test_what_was_missed_in_doubt_is_undone_with_the_rest() -> None:
    """In its turn: not before what comes after it has come to rest."""
    graph = fan(tolerate=1, undo_without_output=True)
    missed = lived(
        graph,
        Returned("f", 1, items=1),
        Raised("f.0", 1, retryable=False, in_doubt=True),
        Returned("f.all", 1),
    )
    assert residue(graph, missed) == ("f.0",)
    turned = applied(graph, missed, CancelOrdered()).state
    assert (turned.done["f.0"], turned.open["z"]) == (Missed(1, tainted=True), Running(1))
    failed = applied(graph, turned, Raised("z", 1, retryable=False)).state
    assert failed.open.keys() == {"z", "f.0"}


def test_what_was_missed_cleanly_has_nothing_to_undo() -> None:
    """It does not hold up the way back, and hides nothing."""
    graph = fan(tolerate=1)
    missed = lived(graph, Returned("f", 1, items=1), Raised("f.0", 1, retryable=False), Returned("f.all", 1))
    failed = applied(graph, missed, Raised("z", 1, retryable=False)).state
    assert failed.open.keys() == {"z", "a"}
    assert status_of(graph, applied(graph, failed, Compensated("a", 1)).state) is SagaStatus.COMPENSATED


def test_what_fails_on_the_way_back_is_not_missed() -> None:
    """Nothing is tolerated any more: an operator sees what has failed."""
    graph = fan(tolerate=2)
    turned = lived(graph, Returned("f", 1, items=1), CancelOrdered())
    assert isinstance(applied(graph, turned, Raised("f.0", 1, retryable=False)).state.open["f.0"], Failed)


def test_an_operator_may_say_how_many_there_are() -> None:
    """Or, when it is skipped without, there are none."""
    graph = fan()
    failed = State("saga", {"f": Failed(1)}, {"a": Succeeded(1)})
    assert applied(graph, failed, SkipOrdered(acted=True, items=2)).state.open.keys() == {"f.0", "f.1"}
    assert applied(graph, failed, SkipOrdered()).state.open.keys() == {"f.all"}


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (State("saga", {"f.all": Running(1)}, {"a": Succeeded(1), "f": Succeeded(1)}), "How many items"),
        (State("saga", {"a": Running(1)}, {}, fans={"f": 1}), "How many items"),
        (
            State(
                "saga",
                {"f.all": Running(1)},
                {"a": Succeeded(1), "f": Succeeded(1), "f.0": Missed(1)},
                fans={"f": 1},
            ),
            "at most as many as it tolerates",
        ),
        (State("saga", {"f": Running(1)}, {"a": Missed(1)}), "at most as many as it tolerates"),
    ],
)
def test_nonsense_breaks_a_law(broken: State, law: str) -> None:
    """By which a row edited by hand is told."""
    assert any(law in said for said in broken_by(fan(), broken))


def test_what_was_missed_does_not_hide_what_comes_after_it() -> None:
    """What comes before a fan is undone after what comes after it, although all of its items were missed."""
    each = Fan(item=step("f.*", "f"), end="f.all", tolerate=1)
    graph = Graph.of(
        step("a"), read("f", "a"), read("f.all", "f"), step("z", "f.all"), step("y", "z"), fans={"f": each}
    )
    failed = lived(
        graph,
        Returned("f", 1, items=1),
        Raised("f.0", 1, retryable=False),
        Returned("f.all", 1),
        Returned("z", 1),
        Raised("y", 1, retryable=False),
    )
    assert failed.open.keys() == {"z", "y"}
    assert "a" in applied(graph, failed, Compensated("z", 1)).state.open
