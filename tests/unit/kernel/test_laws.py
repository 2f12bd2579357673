"""Every law can be broken: for each, here is a state, or a move, that only a defect could lead to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saga_orchestrator.definition.fans import Fan
from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel import state_laws
from saga_orchestrator.kernel.effects import Decision, Execute, Phase, Record, RecordStatus, Verdict, Work
from saga_orchestrator.kernel.events import (
    Asked,
    Claimed,
    Compensated,
    Doubted,
    Event,
    Noted,
    Probed,
    ProbeOutcome,
    Raised,
    Returned,
    Signalled,
    Ticked,
)
from saga_orchestrator.kernel.laws import MOVE_LAWS, STATE_LAWS, STRUCTURAL_LAWS, broken_by, broken_by_move
from saga_orchestrator.kernel.order_events import ActionEnded, CancelOrdered, FailureOrdered, RetryOrdered
from saga_orchestrator.kernel.pause import ResumeOrdered, StepOrdered
from saga_orchestrator.kernel.state import Action, Rewind, SagaStatus, State
from saga_orchestrator.kernel.step_status import (
    Asking,
    Failed,
    Missed,
    Omitted,
    Probing,
    Retrying,
    Running,
    Skipped,
    Succeeded,
    Waiting,
)
from saga_orchestrator.kernel.undo_status import Passed, UndoFailed, Undoing, Undone, UndoRetrying, Waived

from .sagas import LATER, TWICE, back, halted, pivot, read, state, step

GRAPH = Graph.of(step("a", retry=TWICE, compensation_retry=TWICE), step("b", "a"), max_recoveries=1)
STOP = Graph.of(step("a"), step("b", "a", on_undo_failure="stop"), step("c", "b"))
PIVOT = Graph.of(step("a"), pivot("p", "a"), read("q", "a"), read("s", "a"))
CHOICE = Graph.of(read("c"), step("x", "c", branches=(("c", "x"),)), step("y", "c", branches=(("c", "y"),)))
SPLIT = State("", {"a": Running()}, {"a": Succeeded()})
FAN = Graph.of(read("f"), read("e", "f"), fans={"f": Fan(item=read("f.*", "f"), end="e")})

CLOSING = Action("CLOSE_ALL", "ann", closes=True)

BAD_STATES = [
    ("_known_steps", GRAPH, state(z=Running())),
    ("_known_steps", GRAPH, SPLIT),
    ("_never_stranded", GRAPH, state(a=Succeeded())),
    ("what_is_over_is_not_paused", GRAPH, replace(state(a=Succeeded(), b=Succeeded()), paused=True)),
    ("an_action_is_of_what_has_failed", GRAPH, replace(state(a=Running()), action=CLOSING)),
    ("crash_loops_of_an_action_end", GRAPH, replace(halted(a=Succeeded()), action=replace(CLOSING, lost=2))),
    ("_over_is_over", GRAPH, back(a=Retrying(1, 1, LATER), b=UndoFailed(1))),
    ("_completed_means_all", GRAPH, state(a=Succeeded(), b=Undone())),
    ("_crash_loops_end", GRAPH, state(a=Running(), recoveries=2)),
    ("_forward_order", GRAPH, state(b=Running())),
    ("_backward_order", GRAPH, back(a=Undoing(), b=Running())),
    ("_backward_order", GRAPH, back(a=Undone(), b=Succeeded())),
    ("_undo_only_backwards", GRAPH, state(a=Undone())),
    ("_no_way_back_past_the_pivot", PIVOT, back(a=Succeeded(), p=Succeeded())),
    ("_no_way_back_past_the_pivot", PIVOT, back(a=Succeeded(), p=Running())),
    ("_no_way_back_past_the_pivot", PIVOT, back(a=Succeeded(), p=Failed(tainted=True))),
    ("_no_way_back_past_the_pivot", PIVOT, back(a=Succeeded(), p=Skipped(acted=True))),
    ("_attempts_bounded", GRAPH, state(a=Running(3, 2))),
    ("_attempts_bounded", GRAPH, back(a=UndoRetrying(2, 2, LATER))),
    ("_undo_with_output_or_permission", GRAPH, back(a=Undoing(with_output=False))),
    ("one_branch_at_most", CHOICE, state(c=Succeeded(), x=Running(), y=Running())),
    ("one_branch_at_most", CHOICE, state(c=Succeeded(), x=Running())),
    ("one_branch_at_most", CHOICE, state(x=Running(), y=Omitted())),
    ("one_branch_at_most", GRAPH, state(a=Omitted())),
    ("_stuck_for_a_reason", GRAPH, back(a=Succeeded())),
    ("_retries_only_forward", GRAPH, back(a=Retrying(1, 1, LATER))),
    ("fans_are_unfolded", FAN, state(f=Succeeded())),
    ("rewinds_go_back", GRAPH, replace(state(a=Succeeded()), rewind=Rewind("a"))),
    ("no_more_missed_than_tolerated", GRAPH, state(a=Missed())),
    ("time_is_kept", GRAPH, replace(back(a=Undone()), deadline=LATER)),
    ("time_is_kept", PIVOT, replace(state(a=Succeeded(), p=Succeeded()), overdue=True)),
    ("waits_say_for_what", GRAPH, state(a=Waiting())),
    ("asking_is_acting", GRAPH, state(a=Asking(types=("go",)))),
    ("asking_is_acting", PIVOT, state(a=Succeeded(), p=Waiting(types=("go",)))),
]


@pytest.mark.parametrize(("name", "graph", "bad"), BAD_STATES)
def test_a_law_of_states_can_be_broken(name: str, graph: Graph, bad: State) -> None:
    """The law that names the defect is among those that are broken."""
    (law,) = [law for law in STATE_LAWS if law.__name__ == name]
    assert law.__doc__ in list(broken_by(graph, bad))


@pytest.mark.parametrize(
    ("name", "claimed", "bad"),
    [
        ("_compensated_means_undone", SagaStatus.COMPENSATED, back(a=UndoFailed(1), b=Undone())),
        ("_compensated_means_undone", SagaStatus.COMPENSATED, back(a=Waived())),
        ("_failed_by_itself_leaves_nothing", SagaStatus.FAILED, back(a=UndoFailed(1))),
    ],
)
def test_a_status_that_is_derived_wrongly_breaks_a_law(
    name: str, claimed: SagaStatus, bad: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some laws only the derivation of the status could break; they stand guard over it."""
    (law,) = [law for law in STATE_LAWS if law.__name__ == name]
    assert law(GRAPH, bad)
    monkeypatch.setattr(state_laws, "status_of", lambda *_: claimed)
    assert not law(GRAPH, bad)


ROW = Record(0, Phase.EXECUTE, RecordStatus.SUCCESS, "a", "A")
NOTED = Record(0, Phase.ORDER, RecordStatus.SUCCESS, "once:a", "once:a", 1, "{}")
NOTES = Noted("a", 1, "{}")
APPLIED, STALE = Verdict.APPLIED, Verdict.STALE


def paused(before: State, *stops: str) -> State:
    return replace(before, paused=True, stops=stops)


def moved(after: State, *work: Work, rows: tuple[Record, ...] = (), verdict: Verdict = APPLIED) -> Decision:
    return Decision(after, work, rows, verdict)


RUNS, RUNS_AGAIN = state(a=Running()), state(a=Running(tainted=True))
CHOOSES = Returned("c", 1, chosen="x")
UNDONE = back(a=Undone())
HELD = state(a=Succeeded(), p=Running(), q=Failed())
GO, ASKS = Signalled("go"), Asked("a", 1, ("go",))
WAITS = state(a=Waiting(types=("go",), tainted=True))
ENDS = state(a=Waiting(types=("go",), until=LATER, tainted=True))
RESUMES = state(a=Waiting(types=("go",), resumes=True, until=LATER, tainted=True))
HEARS = state(a=Running(2, tainted=True, heard=1))
LOCKED = state(a=Waiting(types=("go",), tainted=True), quarantined=True)
BLIND = back(a=UndoFailed(1, with_output=False))
REWINDS = replace(back(a=Succeeded(), b=UndoFailed(1)), rewind=Rewind("b"))
AGAIN = replace(state(a=Succeeded(), b=Running(2)), spent={"b": 1})
RETRIES, AT_B = state(a=Retrying(1, 1, LATER)), state(a=Succeeded(), b=Running())
LEFT = halted(a=Succeeded())
CLOSES = replace(LEFT, action=CLOSING)
OTHER = Action("ALERT_HUMAN", "ann", closes=True, lost=1)
CLOSE = FailureOrdered(action="CLOSE_ALL", calls=True, closes=True, actor="ann")

REFUSES = Raised("a", 1, retryable=False, in_doubt=True)
ASKED, NOT_DONE = state(a=Probing(retryable=False)), Probed("a", 1, ProbeOutcome.NOT_DONE)
DOUBT = Doubted("a", 1)
IN_DOUBT = Record(0, Phase.EXECUTE, RecordStatus.IN_DOUBT, "a", "a", 1)

BAD_MOVES = [
    ("_unmoved_unless_applied", GRAPH, RUNS, Ticked(), moved(state(), verdict=STALE)),
    ("_unmoved_unless_applied", GRAPH, RUNS, Ticked(), moved(RUNS, Execute("a", 1), verdict=STALE)),
    ("_unmoved_unless_applied", GRAPH, RUNS, Ticked(), moved(RUNS, rows=(ROW,), verdict=STALE)),
    ("_over_stays_over", GRAPH, UNDONE, CancelOrdered(), moved(back(a=Undoing(2)))),
    ("_over_stays_over", GRAPH, back(a=UndoFailed(1)), Ticked(), moved(back(a=Undoing(2)))),
    ("_over_stays_over", GRAPH, UNDONE, Ticked(), moved(UNDONE, rows=(ROW,))),
    ("_work_is_new_and_outstanding", GRAPH, state(), Claimed(), moved(RUNS, Execute("b", 1))),
    ("_work_is_new_and_outstanding", GRAPH, state(), Claimed(), moved(RUNS, Execute("a", 1), Execute("a", 1))),
    ("_nothing_in_flight_unordered", GRAPH, state(), Ticked(), moved(RUNS)),
    ("_nothing_in_flight_unordered", GRAPH, RUNS_AGAIN, Claimed(), moved(RUNS_AGAIN)),
    ("_history_grows", GRAPH, RUNS, Ticked(), moved(RUNS, rows=(ROW,))),
    ("only_the_current_attempt_answers", GRAPH, state(a=Running(2)), Raised("a", 1), moved(state(a=Failed()))),
    ("only_the_current_attempt_answers", GRAPH, back(a=Undoing()), Returned("a", 1), moved(back(a=Undoing(2)))),
    ("only_the_current_attempt_answers", GRAPH, state(a=Running(2)), NOTES, moved(state(a=Running(2)), rows=(NOTED,))),
    ("a_note_is_kept_and_moves_nothing", GRAPH, RUNS, NOTES, moved(RUNS)),
    ("a_note_is_kept_and_moves_nothing", GRAPH, RUNS, NOTES, moved(RUNS_AGAIN, rows=(NOTED,))),
    ("a_note_is_kept_and_moves_nothing", GRAPH, RUNS, Noted("a", 1, "{}", undoing=True), moved(RUNS, rows=(NOTED,))),
    ("a_doubt_is_kept", GRAPH, RUNS, DOUBT, moved(state(a=Failed(tainted=True)))),
    ("a_doubt_is_kept", GRAPH, RUNS, DOUBT, moved(RUNS_AGAIN, rows=(IN_DOUBT,))),
    ("a_doubt_is_kept", GRAPH, RUNS, DOUBT, moved(state(a=Failed()), rows=(IN_DOUBT,))),
    ("replies_are_believed", GRAPH, RUNS, Returned("a", 1), moved(state(a=Failed()))),
    ("replies_are_believed", GRAPH, back(a=Undoing()), Compensated("a", 1), moved(back(a=UndoFailed(1)))),
    ("_orders_are_signed", GRAPH, RUNS, CancelOrdered(actor="ann"), moved(back(a=Running()))),
    ("no_attempt_twice", GRAPH, state(a=Failed(2)), Ticked(), moved(state(a=Running(2)))),
    ("no_attempt_twice", GRAPH, back(a=UndoFailed(2)), Ticked(), moved(back(a=Undoing(1)))),
    ("what_is_refused_is_not_tried_again", GRAPH, RUNS, REFUSES, moved(state(a=Retrying(1, 1, LATER, tainted=True)))),
    ("what_is_refused_is_not_tried_again", GRAPH, RUNS, REFUSES, moved(state(a=Probing()))),
    ("what_is_refused_is_not_tried_again", GRAPH, ASKED, NOT_DONE, moved(state(a=Running(2)))),
    ("a_claim_burns_nothing", GRAPH, RUNS, Claimed(), moved(state(a=Running(1, 1)))),
    ("a_claim_burns_nothing", GRAPH, RUNS, Claimed(), moved(state(a=Probing(2)))),
    ("_what_may_turn_back_begins_nothing", PIVOT, HELD, Ticked(), moved(state(s=Running(), **dict(HELD.all())))),
    ("_undo_begins_in_turn", GRAPH, back(a=Succeeded(), b=Undoing()), Ticked(), moved(back(a=Undoing(), b=Undoing()))),
    ("_undo_begins_in_turn", GRAPH, back(), Ticked(), moved(back(a=Undoing(), b=Failed(tainted=True)))),
    ("_undo_begins_in_turn", GRAPH, back(), Ticked(), moved(back(a=Undoing(), b=UndoFailed(1, again=True)))),
    ("_undo_begins_in_turn", STOP, back(), Ticked(), moved(back(a=Undoing(), b=UndoFailed(1)))),
    ("_undo_begins_in_turn", STOP, back(), Ticked(), moved(back(a=Undoing(), b=Waived(), c=Succeeded()))),
    ("taint_stays", GRAPH, state(a=Running(tainted=True)), Raised("a", 1), moved(state(a=Failed()))),
    ("_no_turning_back_twice", GRAPH, halted(a=Failed()), Ticked(), moved(state(a=Failed()))),
    ("_undo_begins_in_turn", STOP, back(), Ticked(), moved(back(a=Undoing(), b=Passed(), c=Undoing()))),
    ("what_is_omitted_stays_so", CHOICE, state(y=Omitted()), Ticked(), moved(state(y=Running()))),
    ("what_was_chosen_is_done", CHOICE, state(c=Running()), CHOOSES, moved(state(c=Succeeded(), x=Running()))),
    ("what_was_chosen_is_done", CHOICE, state(c=Running()), CHOOSES, moved(state(c=Succeeded(), x=Omitted()))),
    ("_what_acted_stays_recorded", GRAPH, state(a=Succeeded(), b=Running()), Ticked(), moved(state(b=Running()))),
    ("one_event_ends_one_wait", GRAPH, WAITS, GO, moved(WAITS)),
    ("one_event_ends_one_wait", GRAPH, RUNS, GO, moved(HEARS)),
    ("one_event_ends_one_wait", GRAPH, WAITS, Signalled("stop"), moved(HEARS)),
    ("one_event_ends_one_wait", GRAPH, WAITS, Signalled("go", step_id="b"), moved(HEARS)),
    ("an_event_that_fits_is_taken", GRAPH, WAITS, GO, moved(WAITS, verdict=Verdict.UNMATCHED)),
    ("waits_end_for_a_reason", GRAPH, WAITS, Ticked(), moved(state(a=Running(2, tainted=True)))),
    ("waits_end_for_a_reason", GRAPH, WAITS, Ticked(), moved(state(a=Waiting(1, types=("stop",), tainted=True)))),
    ("waits_end_for_a_reason", GRAPH, ENDS, Ticked(), moved(HEARS)),
    ("waits_end_for_a_reason", GRAPH, RESUMES, Ticked(), moved(state(a=Failed(tainted=True)))),
    ("asking_goes_on_until_somebody_has_looked", GRAPH, RUNS, ASKS, moved(WAITS)),
    ("what_is_asked_is_asked", GRAPH, RUNS, ASKS, moved(state(a=Asking(types=("stop",), tainted=True)))),
    ("what_is_asked_is_asked", GRAPH, RUNS, ASKS, moved(state(a=Succeeded()))),
    ("what_was_heard_is_not_forgotten", GRAPH, HEARS, Ticked(), moved(state(a=Running(3, tainted=True)))),
    ("who_is_let_out_looks_again", GRAPH, LOCKED, RetryOrdered(), moved(WAITS)),
    ("what_was_never_learnt_stays_so", GRAPH, BLIND, Ticked(), moved(back(a=UndoFailed(1)))),
    ("a_rewind_ends_when_nothing_stands", GRAPH, REWINDS, Compensated("b", 1), moved(AGAIN)),
    ("a_rewind_leaves_the_rest", GRAPH, REWINDS, Compensated("b", 1), moved(replace(AGAIN, done={"a": Succeeded(2)}))),
    ("who_begins_again_counts_on", GRAPH, REWINDS, Compensated("b", 1), moved(replace(AGAIN, spent={}))),
    ("who_is_let_out_looks_again", GRAPH, paused(WAITS), ResumeOrdered(), moved(WAITS)),
    ("nothing_begins_in_a_pause", GRAPH, paused(RETRIES), Ticked(), moved(paused(state(a=Running(2))))),
    ("nothing_begins_in_a_pause", GRAPH, paused(RETRIES), CancelOrdered(), moved(paused(state(a=Running(2))))),
    ("nothing_begins_in_a_pause", GRAPH, paused(state(a=Succeeded())), RetryOrdered(), moved(paused(AT_B))),
    ("nothing_begins_in_a_pause", GRAPH, paused(back(a=Undoing())), Ticked(), moved(paused(back(a=Undoing(2))))),
    ("nothing_begins_in_a_pause", GRAPH, paused(RUNS), Ticked(), moved(paused(back(a=Undoing())))),
    ("nothing_passes_a_breakpoint", GRAPH, paused(state(a=Succeeded()), "b"), ResumeOrdered(), moved(AT_B)),
    ("a_pause_begins_and_ends_for_a_reason", GRAPH, RUNS, Ticked(), moved(paused(RUNS))),
    ("a_pause_begins_and_ends_for_a_reason", GRAPH, paused(RUNS), Ticked(), moved(RUNS)),
    ("a_step_begins_something", GRAPH, RETRIES, StepOrdered(), moved(paused(state(a=Running(2))))),
    ("a_step_begins_something", GRAPH, paused(RUNS), StepOrdered(), moved(paused(RUNS))),
    ("a_step_begins_something", GRAPH, paused(RETRIES), StepOrdered(), moved(state(a=Running(2)))),
    ("nothing_crosses_an_action", GRAPH, CLOSES, CancelOrdered(), moved(LEFT)),
    ("nothing_crosses_an_action", GRAPH, CLOSES, Claimed(), moved(replace(LEFT, action=replace(CLOSING, lost=1)))),
    ("nothing_crosses_an_action", GRAPH, CLOSES, Claimed(crashed=True), moved(replace(CLOSES, done={"a": Waived()}))),
    ("nothing_crosses_an_action", GRAPH, CLOSES, Claimed(crashed=True), moved(replace(LEFT, action=OTHER))),
    ("nothing_crosses_an_action", GRAPH, CLOSES, Claimed(crashed=True), moved(LEFT)),
    ("an_action_is_claimed_by_an_order", GRAPH, LEFT, Claimed(), moved(CLOSES)),
    ("an_action_is_claimed_by_an_order", GRAPH, LEFT, CLOSE, moved(replace(CLOSES, done={"a": Waived()}))),
    ("what_was_not_closed_stands", GRAPH, CLOSES, ActionEnded(), moved(halted(a=Waived()))),
]


@pytest.mark.parametrize(("name", "graph", "before", "event", "decision"), BAD_MOVES)
def test_a_law_of_moves_can_be_broken(name: str, graph: Graph, before: State, event: Event, decision: Decision) -> None:
    """The law that names the defect is among those that are broken."""
    (law,) = [law for law in MOVE_LAWS if law.__name__ == name]
    assert law.__doc__ in list(broken_by_move(graph, before, event, decision))


def test_every_law_is_broken_by_something_above() -> None:
    """A law that nothing breaks says nothing."""
    derived = {"_compensated_means_undone", "_failed_by_itself_leaves_nothing"}
    broken = {row[0] for row in (*BAD_STATES, *BAD_MOVES)} | derived
    assert broken == {law.__name__ for law in (*STATE_LAWS, *MOVE_LAWS)}


def test_the_laws_of_structure_ask_nothing_of_policies_and_compensations() -> None:
    """A row may outlive a change of its definition's retries: it is nonsense only where no saga could be."""
    assert set(STRUCTURAL_LAWS) < set(STATE_LAWS)
    lenient = Graph.of(step("a", undoable=False), step("b", "a", undoable=False))
    for sound in (state(a=Running(9, 8)), back(a=Undoing(with_output=False)), back(a=UndoFailed(1), b=Passed())):
        assert all(law(lenient, sound) for law in STRUCTURAL_LAWS)


def test_a_law_without_words_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python may be told to strip docstrings; a broken law is named all the same."""
    for law in STATE_LAWS:
        monkeypatch.setattr(law, "__doc__", None)
    assert list(broken_by(GRAPH, state(a=Succeeded()))) == ["_never_stranded"]
