"""The graph of steps: its order, and what it refuses."""

from __future__ import annotations

from itertools import pairwise

import pytest

from saga_orchestrator.definition.graph import Graph, Node, StepKind
from saga_orchestrator.errors import SagaDefinitionError


def graph(**after: str) -> Graph:
    """A graph of steps, each with the steps that it comes after: ``graph(a="", b="a")``."""
    return Graph.of(*(Node(step_id=step_id, after=tuple(before)) for step_id, before in after.items()))


def test_steps_keep_the_order_in_which_they_were_added() -> None:
    """Where the edges are silent, the author's order counts."""
    assert list(graph(c="", a="", b="ca").nodes) == ["c", "a", "b"]


def test_an_edge_outranks_the_order_of_adding() -> None:
    """The order of a graph is always topological; what is free keeps its place."""
    assert list(graph(a="c", b="", c="").nodes) == ["b", "c", "a"]


def test_a_graph_is_frozen() -> None:
    """Nobody changes a definition while sagas run."""
    with pytest.raises(TypeError):
        graph(a="").nodes["b"] = Node(step_id="b")  # type: ignore[index]


def test_it_knows_its_roots_dependents_and_positions() -> None:
    """A diamond beside a step of its own."""
    diamond = graph(a="", b="a", c="a", d="bc", e="")

    assert diamond.roots == ("a", "e")
    assert diamond.order == ("a", "b", "c", "d", "e")
    assert diamond.dependents == {"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": (), "e": ()}
    assert diamond.position == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}


def test_ancestors_are_all_that_is_certain_to_be_over() -> None:
    """Each ancestor is found once, over however many paths."""
    diamond = graph(a="", b="a", c="a", d="bc", e="")

    assert [diamond.ancestors(step_id) for step_id in "abde"] == [set(), {"a"}, {"a", "b", "c"}, set()]


def test_final_steps_are_those_that_forbid_a_way_back() -> None:
    """Pivot and retriable steps are never undone; the others are, or need not be."""
    nodes = [Node(step_id=kind.name, kind=kind) for kind in StepKind]

    assert Graph.of(*nodes).final == ("PIVOT", "RETRIABLE")


def test_two_steps_of_one_id_are_refused() -> None:
    """An id is what rows and keys refer to."""
    with pytest.raises(SagaDefinitionError, match="Duplicate step id: a"):
        Graph.of(Node(step_id="a"), Node(step_id="a"))


def test_an_edge_that_leads_nowhere_is_refused() -> None:
    """The message names both ends."""
    with pytest.raises(SagaDefinitionError, match="Step 'b' comes after 'x', which is not in this saga"):
        graph(a="", b="x")


def test_a_cycle_is_refused_in_the_order_of_its_steps() -> None:
    """The message shows the way round, each step before the next."""
    with pytest.raises(SagaDefinitionError, match="The steps form a cycle: ") as refused:
        graph(a="c", b="a", c="b", d="")

    way = str(refused.value).removeprefix("The steps form a cycle: ").split(" -> ")
    assert way[0] == way[-1]
    assert set(pairwise(way)) == {("a", "b"), ("b", "c"), ("c", "a")}


def test_a_kind_reads_as_its_name() -> None:
    """Kinds are stored and shown as text."""
    assert f"{StepKind.PIVOT}" == StepKind("PIVOT") == "PIVOT"
