"""Notes in the kernel: kept while their attempt is in flight, and moving nothing."""

from __future__ import annotations

import pytest

from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.effects import Phase, RecordStatus, Verdict
from saga_orchestrator.kernel.events import Claimed, Noted
from saga_orchestrator.kernel.laws import broken_by_move
from saga_orchestrator.kernel.state import State
from saga_orchestrator.kernel.step_status import Failed, Probing, Retrying, Running, Succeeded
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import Undoing, Undone

from .sagas import LATER, NOW, back, state, step

GRAPH = Graph.of(step("a"), step("b", "a"))


@pytest.mark.parametrize(
    ("before", "note", "row"),
    [
        (state(a=Running(2)), Noted("a", 2, "{}"), "once:a"),
        (back(a=Undoing(1)), Noted("a", 1, "{}", undoing=True), "once-undo:a"),
        (state(a=Running(2), recoveries=3), Noted("a", 2, "{}"), "once:a"),
    ],
)
def test_a_note_is_kept_and_moves_nothing(before: State, note: Noted, row: str) -> None:
    """It is a row of the history, and progress; the attempt goes on, and nothing else begins."""
    decision = decide(GRAPH, before, note, now=NOW)
    assert list(broken_by_move(GRAPH, before, note, decision)) == []
    (record,) = decision.records
    assert record[1:7] == (Phase.ORDER, RecordStatus.SUCCESS, row, row, note.attempt, "{}")
    assert (decision.state.open, decision.state.recoveries, decision.work) == (before.open, 0, ())
    assert decision.state.recorded == before.recorded + 1


@pytest.mark.parametrize(
    ("before", "note"),
    [
        (state(a=Running(2)), Noted("a", 1, "{}")),
        (state(a=Running(2)), Noted("a", 2, "{}", undoing=True)),
        (state(a=Running(2)), Noted("nowhere", 2, "{}")),
        (state(a=Retrying(2, 1, LATER)), Noted("a", 2, "{}")),
        (state(a=Probing(2)), Noted("a", 2, "{}")),
        (state(a=Succeeded(2), b=Running()), Noted("a", 2, "{}")),
        (state(a=Succeeded(), b=Running()), Noted("a", 1, "{}")),
        (state(), Noted("a", 1, "{}")),
        (back(a=Undoing(2)), Noted("a", 2, "{}")),
        (back(a=Undoing(2), b=Failed()), Noted("a", 1, "{}", undoing=True)),
        (back(a=Undone(2)), Noted("a", 2, "{}", undoing=True)),
        (state(a=Running(2), quarantined=True), Noted("a", 2, "{}")),
    ],
)
def test_a_note_of_an_attempt_that_is_not_in_flight_is_stale(before: State, note: Noted) -> None:
    """Nobody would read it."""
    decision = decide(GRAPH, before, note, now=NOW)
    assert (decision.verdict, decision.state, decision.records) == (Verdict.STALE, before, ())


def test_a_crash_loop_that_gets_further_each_time_is_none() -> None:
    """A note between two crashes starts the count anew."""
    now = state(a=Running(1))
    for _ in range(GRAPH.max_recoveries + 2):
        now = decide(GRAPH, now, Claimed(crashed=True), now=NOW).state
        now = decide(GRAPH, now, Noted("a", now.open["a"].attempt, "{}"), now=NOW).state  # type: ignore[attr-defined]
        assert not now.quarantined
