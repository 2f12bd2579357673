"""The fixed point: what moves by itself after an event, whatever the event was."""

from __future__ import annotations

from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.draft import Draft
from saga_orchestrator.kernel.settle import is_quiet, settle, turn
from saga_orchestrator.kernel.state import Course, State
from saga_orchestrator.kernel.step_status import (
    Failed,
    Omitted,
    Pending,
    Probing,
    Retrying,
    Running,
    Skipped,
    Succeeded,
)
from saga_orchestrator.kernel.undo_status import Passed, UndoFailed, Undoing, Undone, UndoRetrying, Waived

from .sagas import LATER, NOW, TWICE, back, halted, pivot, read, state, step

DIAMOND = Graph.of(step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))


def settled(graph: Graph, before: State, *touched: str) -> Draft:
    draft = Draft(graph, before, NOW)
    draft.touched.extend(touched)
    settle(draft)
    return draft


def test_only_the_neighbours_of_what_moved_are_looked_at() -> None:
    """A decision costs the same however long the saga is: what nothing has touched is left as it is."""
    before = state(a=Succeeded())
    assert settled(DIAMOND, before).open == {}
    assert settled(DIAMOND, before, "a").open == {"b": Running(), "c": Running()}


def test_a_rollback_finds_its_way_through_what_has_no_effect() -> None:
    """One touch at the end is enough: what is passed makes way for what comes before it."""
    graph = Graph.of(step("a"), read("b", "a"), read("c", "b"), step("d", "c"))
    before = back(a=Succeeded(), b=Succeeded(), c=Skipped(), d=Undone())
    draft = settled(graph, before, "d")
    assert (draft.of("c"), draft.of("b"), draft.of("a")) == (Passed(0, acted=False), Passed(1), Undoing())


def test_a_rollback_looks_through_a_branch_that_was_not_taken() -> None:
    """What comes before a choice waits for what comes after it, although its branches have nothing to undo."""
    graph = Graph.of(step("a"), read("c", "a"), step("x", "c", branches=(("c", "x"),)), step("j", "x"))
    before = back(a=Succeeded(), c=Succeeded(), x=Omitted(), j=Undoing())
    assert settled(graph, before, "a", "c", "x", "j").open == {"j": Undoing()}
    undone = settled(graph, back(a=Succeeded(), c=Succeeded(), x=Omitted(), j=Undone()), "j")
    assert (undone.of("x"), undone.of("c"), undone.of("a")) == (Omitted(), Passed(1), Undoing())


def test_an_undo_that_is_resumed_waits_through_what_was_passed() -> None:
    """A step whose undo is ordered again waits for those that come after it, also beyond one without an effect."""
    graph = Graph.of(step("a"), read("b", "a"), step("c", "b"), step("d", "c"))
    before = back(a=UndoFailed(1, again=True), b=Passed(1), c=UndoFailed(1, again=True), d=Undoing(2))
    assert settled(graph, before, "a", "b", "c", "d").of("a") == UndoFailed(1, again=True)


def test_a_join_is_undone_before_its_branches_and_these_before_the_fork() -> None:
    """Every step waits for each of its dependents."""
    before = back(a=Succeeded(), b=Succeeded(), c=Succeeded(), d=Undone())
    assert settled(DIAMOND, before, "d").open == {"c": Undoing(), "b": Undoing()}
    before = back(a=Succeeded(), b=Undone(), c=Succeeded(), d=Undone())
    assert settled(DIAMOND, before, "b", "d").open == {"c": Undoing()}


def test_nothing_moves_in_quarantine() -> None:
    """Neither forward nor back."""
    assert settled(DIAMOND, state(a=Succeeded(), quarantined=True), "a").open == {}


def test_nothing_moves_where_effects_are_left_alone() -> None:
    """A halted saga undoes nothing and starts nothing."""
    before = halted(a=Succeeded(), b=Failed())
    assert settled(DIAMOND, before, *DIAMOND.nodes).open == {"b": Failed()}


def test_a_pause_that_is_over_is_over_only_on_the_way_forward() -> None:
    """A saga that has failed and may still turn back lets a pause run on."""
    graph = Graph.of(pivot("p"), read("q"), read("r", retry=TWICE))
    due = Retrying(1, 1, NOW)
    assert settled(graph, state(p=Running(), r=due)).of("r") == Running(2, 1)
    assert settled(graph, state(p=Running(), q=Failed(), r=due)).of("r") == due
    assert settled(graph, state(p=Succeeded(), q=Failed(), r=due)).of("r") == Running(2, 1)
    assert settled(graph, state(p=Running(), r=Retrying(1, 1, LATER))).of("r") == Retrying(1, 1, LATER)


def test_a_turn_ends_every_pause() -> None:
    """What waits for another attempt has failed, as tainted as it was."""
    draft = Draft(
        Graph.of(step("a"), step("b"), step("c")), state(a=Retrying(2, 1, LATER, tainted=True), b=Running()), NOW
    )
    turn(draft, Course.HALTED)
    assert draft.open == {"a": Failed(2, tainted=True), "b": Running()}


def test_who_holds_back_an_undo() -> None:
    """A step that has, or may have, an effect that stands, or that still moves."""
    graph = Graph.of(step("a"), read("q"), step("s", on_undo_failure="stop"), step("w"), step("x", "w"))
    quiet = (Pending(), Failed(), Undone(), Passed(), UndoFailed(1))
    loud = (
        Running(),
        Probing(),
        Retrying(1, 1, LATER),
        Failed(tainted=True),
        Succeeded(),
        Skipped(),
        Undoing(),
        UndoRetrying(1, 1, LATER),
        UndoFailed(1, again=True),
    )
    assert [s for s in (*quiet, *loud) if is_quiet(Draft(graph, back(a=s), NOW), "a")] == list(quiet)
    assert is_quiet(Draft(graph, back(q=Failed(tainted=True)), NOW), "q")
    assert not is_quiet(Draft(graph, back(s=UndoFailed(1)), NOW), "s")


def test_a_waiver_speaks_only_for_its_own_step() -> None:
    """Behind a waived step, what comes after it counts; and behind that, if it is waived, too."""
    graph = Graph.of(step("a"), step("b", "a"), step("c", "b"), step("d", "b", "c"))
    assert is_quiet(Draft(graph, back(b=Waived(), c=Undone(), d=Undone()), NOW), "b")
    assert not is_quiet(Draft(graph, back(b=Waived(), c=Waived(), d=Succeeded()), NOW), "b")
    assert is_quiet(Draft(graph, back(b=Waived(), c=Waived(), d=Waived()), NOW), "b")
