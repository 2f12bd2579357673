"""What operators may order when: every order in every situation, and what an order that is carried out does."""

from __future__ import annotations

import pytest

from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.effects import Compensate, Decision, Execute, Phase, Probe, Verdict
from saga_orchestrator.kernel.events import Claimed, Compensated, CompensationRaised
from saga_orchestrator.kernel.laws import broken_by, broken_by_move
from saga_orchestrator.kernel.order_events import (
    AbortOrdered,
    ActionEnded,
    CancelOrdered,
    CompensateOrdered,
    FailureOrdered,
    Order,
    RetryOrdered,
    RewindOrdered,
    SkipOrdered,
    WaiveOrdered,
)
from saga_orchestrator.kernel.pause import PauseOrdered, ResumeOrdered, StepOrdered
from saga_orchestrator.kernel.projection import last_error, residue, status_of
from saga_orchestrator.kernel.state import Action, SagaStatus, State
from saga_orchestrator.kernel.step_status import Failed, Probing, Retrying, Running, Skipped, Succeeded
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import Passed, UndoFailed, Undoing, Undone, UndoRetrying, Waived

from .sagas import LATER, NOW, TWICE, back, decided, halted, pivot, read, retriable, state, step

APPLIED, DUPLICATE = "", "being undone already"
GRAPH = Graph.of(
    step("a", compensation_retry=TWICE),
    step("b", "a", retry=TWICE),
    pivot("p", "b"),
    retriable("r", "p", retry=TWICE),
)
PAUSED, UNDO_PAUSED = Retrying(1, 1, LATER), UndoRetrying(1, 1, LATER)
SITUATIONS: dict[str, tuple[SagaStatus, State]] = {
    "running": (SagaStatus.RUNNING, state(a=Succeeded(), b=Running())),
    "at its pivot": (SagaStatus.RUNNING, state(a=Succeeded(), b=Succeeded(), p=Running())),
    "suspended": (SagaStatus.SUSPENDED, state(a=Succeeded(), b=PAUSED)),
    "suspended past its pivot": (
        SagaStatus.SUSPENDED,
        state(a=Succeeded(), b=Succeeded(), p=Succeeded(), r=PAUSED),
    ),
    "stuck past its pivot": (SagaStatus.STUCK, state(a=Succeeded(), b=Succeeded(), p=Succeeded(), r=Failed(2))),
    "in quarantine": (SagaStatus.STUCK, state(a=Succeeded(), b=Running(), quarantined=True)),
    "in quarantine at its pivot": (
        SagaStatus.STUCK,
        state(a=Succeeded(), b=Succeeded(), p=Running(), quarantined=True),
    ),
    "turned, a step in flight": (SagaStatus.COMPENSATING, back(a=Succeeded(), b=Running())),
    "compensating": (SagaStatus.COMPENSATING, back(a=Undoing(), b=Failed())),
    "compensating after a pause": (SagaStatus.COMPENSATING, back(a=UNDO_PAUSED, b=Failed())),
    "stuck, an undo failed": (SagaStatus.STUCK, back(a=UndoFailed(2), b=Failed())),
    "stuck, an undo impossible": (SagaStatus.STUCK, back(a=Undone(), b=UndoFailed(0, with_output=False))),
    "in quarantine on its way back": (SagaStatus.STUCK, back(a=Undoing(), b=Failed(), quarantined=True)),
    "completed": (SagaStatus.COMPLETED, state(a=Succeeded(), b=Succeeded(), p=Succeeded(), r=Succeeded())),
    "compensated": (SagaStatus.COMPENSATED, back(a=Undone(), b=Failed())),
    "failed, nothing acted": (SagaStatus.FAILED, back(a=Failed())),
    "failed, effects left": (SagaStatus.FAILED, halted(a=Succeeded(), b=Failed())),
    "failed past its pivot": (SagaStatus.FAILED, halted(a=Succeeded(), b=Succeeded(), p=Failed(tainted=True))),
    "turning, to leave effects": (SagaStatus.RUNNING, halted(a=Succeeded(), b=Running())),
}

RETRY, COMPENSATE = "needs one that is SUSPENDED, STUCK or FAILED", "needs one that is SUSPENDED, STUCK, FAILED or COMP"
BEGUN, NONE_FAILED, SKIP = "rollback has begun", "has failed or waits", "needs a saga that is SUSPENDED, or"
PAST, AT, OVER, ACTIVE = "past its pivot", "its pivot has begun", "it is over", "needs one whose rollback is STUCK"
NO_UNDO, NOTHING, STANDS = "no undo left", "no step has acted", "not part of its residue"
ANSWERS = {
    #                              retry        skip         compensate  cancel           abort    waive a
    "running":                    (RETRY,       SKIP,        COMPENSATE, APPLIED,         APPLIED, ACTIVE),
    "at its pivot":               (RETRY,       SKIP,        COMPENSATE, AT,              APPLIED, ACTIVE),
    "suspended":                  (APPLIED,     APPLIED,     APPLIED,    APPLIED,         APPLIED, ACTIVE),
    "suspended past its pivot":   (APPLIED,     APPLIED,     PAST,       AT,              APPLIED, ACTIVE),
    "stuck past its pivot":       (APPLIED,     APPLIED,     PAST,       AT,              APPLIED, ACTIVE),
    "in quarantine":              (APPLIED,     NONE_FAILED, APPLIED,    APPLIED,         APPLIED, ACTIVE),
    "in quarantine at its pivot": (APPLIED,     NONE_FAILED, PAST,       AT,              APPLIED, ACTIVE),
    "turned, a step in flight":   (RETRY,       SKIP,        DUPLICATE,  DUPLICATE,       APPLIED, ACTIVE),
    "compensating":               (RETRY,       SKIP,        DUPLICATE,  DUPLICATE,       APPLIED, ACTIVE),
    "compensating after a pause": (RETRY,       SKIP,        APPLIED,    DUPLICATE,       APPLIED, ACTIVE),
    "stuck, an undo failed":      (BEGUN,       SKIP,        APPLIED,    "by itself",     APPLIED, APPLIED),
    "stuck, an undo impossible":  (BEGUN,       SKIP,        NO_UNDO,    "by itself",     APPLIED, STANDS),
    "in quarantine on its way back": (BEGUN,    SKIP,        APPLIED,    "by itself",     APPLIED, APPLIED),
    "completed":                  (RETRY,       SKIP,        "no undo_w", OVER,            OVER,    ACTIVE),
    "compensated":                (RETRY,       SKIP,        COMPENSATE, OVER,            OVER,    ACTIVE),
    "failed, nothing acted":      (APPLIED,     SKIP,        NO_UNDO,    OVER,            OVER,    STANDS),
    "failed, effects left":       (APPLIED,     SKIP,        APPLIED,    OVER,            OVER,    APPLIED),
    "failed past its pivot":      (APPLIED,     SKIP,        PAST,       OVER,            OVER,    APPLIED),
    "turning, to leave effects":  (RETRY,       SKIP,        COMPENSATE, APPLIED,         APPLIED, ACTIVE),
}  # fmt: skip
DIRTY = (SagaStatus.STUCK, SagaStatus.FAILED)
ORDERS = (
    RetryOrdered(actor="ann", reason="fixed"),
    SkipOrdered(actor="ann", reason="fixed"),
    CompensateOrdered(actor="ann", reason="fixed"),
    CancelOrdered(actor="ann", reason="fixed"),
    AbortOrdered(actor="ann", reason="fixed"),
    WaiveOrdered(actor="ann", reason="fixed", step_id="a"),
)
MATRIX = [
    pytest.param(situation, order, answer, id=f"{type(order).__name__}, {situation}")
    for situation, answers in ANSWERS.items()
    for order, answer in zip(ORDERS, answers, strict=True)
]


def test_the_situations_are_what_they_are_called_and_can_be() -> None:
    """Each has the status that it is meant to stand for, and breaks no law; every status is there."""
    for situation, (status, before) in SITUATIONS.items():
        assert status_of(GRAPH, before) is status, situation
        assert list(broken_by(GRAPH, before)) == [], situation
    assert {status for status, _ in SITUATIONS.values()} == set(SagaStatus)


@pytest.mark.parametrize(("situation", "order", "answer"), MATRIX)
def test_an_order_is_carried_out_or_answered_with_a_reason(situation: str, order: Order, answer: str) -> None:
    """An order at a wrong moment moves nothing and says why; at a right one it is recorded, with who gave it."""
    status, before = SITUATIONS[situation]
    decision = decide(GRAPH, before, order, now=NOW)
    assert list(broken_by_move(GRAPH, before, order, decision)) == []
    if answer == APPLIED:
        assert decision.verdict is Verdict.APPLIED
        assert decision.state != before
        signed = [row for row in decision.records if row.phase is Phase.ORDER]
        assert [(row.actor, row.reason) for row in signed] == [("ann", "fixed")]
        return
    assert decision.verdict is (Verdict.DUPLICATE if answer == DUPLICATE else Verdict.REFUSED)
    assert answer in decision.reason
    assert decision.verdict is Verdict.DUPLICATE or decision.reason.startswith(f"it is {status.value}: ")
    assert decision.state is before


def carried_out(graph: Graph, before: State, *orders: Order) -> Decision:
    decision = decided(graph, before, *orders)
    assert decision.verdict is Verdict.APPLIED, decision.reason
    return decision


def rows(decision: Decision) -> list[str]:
    return [f"{row.phase} {row.status} {row.step_id}" for row in decision.records]


def steps(decision: Decision) -> dict[str, object]:
    return dict(decision.state.all())


# --- retry -----------------------------------------------------------------------------------------------------------


def test_a_retry_starts_now_with_a_fresh_count() -> None:
    """The attempts are numbered on, but counted anew; forgiven are the crashes, too."""
    before = state(a=Succeeded(), b=Retrying(3, 2, LATER, tainted=True), recoveries=3)
    done = carried_out(GRAPH, before, RetryOrdered(step_id="b"))
    assert steps(done) == {"a": Succeeded(), "b": Running(4, 0, tainted=True)}
    assert done.work == (Execute("b", 4, tainted=True),)
    assert done.state.recoveries == 0
    assert rows(done) == ["ORDER SUCCESS retry:b"]


def test_a_retry_of_one_step_leaves_the_others() -> None:
    """Past the pivot several may have failed."""
    graph = Graph.of(pivot("p"), retriable("r", "p"), retriable("s", "p"))
    before = state(p=Succeeded(), r=Failed(), s=Failed())
    assert steps(carried_out(graph, before, RetryOrdered(step_id="r"))) == {
        "p": Succeeded(),
        "r": Running(2),
        "s": Failed(),
    }
    assert len(carried_out(graph, before, RetryOrdered()).work) == 2
    assert decide(graph, before, RetryOrdered(step_id="p"), now=NOW).verdict is Verdict.REFUSED


def test_a_retry_takes_back_a_turn_that_has_undone_nothing() -> None:
    """The saga goes forward again as if it had not turned: what was passed has succeeded, or was skipped."""
    graph = Graph.of(read("q"), read("k"), read("h"), read("d"), step("b", "q", "k", "h"), step("c", "q"))
    turned = back(q=Passed(3), k=Passed(0, acted=False), h=Passed(0), d=Failed(2, tainted=True), b=Failed())
    done = carried_out(graph, turned, RetryOrdered(step_id="b"))
    assert steps(done) == {
        "q": Succeeded(3),
        "k": Skipped(),
        "h": Skipped(acted=True),
        "d": Running(3, tainted=True),
        "b": Running(2),
        "c": Running(),
    }


def test_a_retry_ends_a_quarantine() -> None:
    """What was in flight when the last owner was lost is in doubt."""
    before = state(a=Succeeded(), b=Running(2, 1), quarantined=True, recoveries=6)
    done = carried_out(GRAPH, before, RetryOrdered(step_id="b"))
    assert done.work == (Execute("b", 2, tainted=True),)
    assert (done.state.quarantined, done.state.recoveries) == (False, 0)
    assert rows(done) == ["EXECUTE IN_DOUBT b", "ORDER SUCCESS retry:b"]
    assert decide(GRAPH, before, RetryOrdered(step_id="a"), now=NOW).verdict is Verdict.REFUSED


def test_a_retry_in_quarantine_puts_no_doubt_on_what_it_starts_itself() -> None:
    """Only what was in flight may have acted."""
    graph = Graph.of(step("a", retry=TWICE), step("b"))
    done = carried_out(graph, state(a=PAUSED, b=Running(), quarantined=True), RetryOrdered())
    assert steps(done) == {"a": Running(2), "b": Running(tainted=True)}


# --- skip ------------------------------------------------------------------------------------------------------------


def test_a_skipped_step_makes_way() -> None:
    """What comes after it starts; its output, if the operator gave one, stands in the history."""
    graph = Graph.of(step("a", retry=TWICE), step("b", "a"))
    order = SkipOrdered(acted=True, output='{"n":1}', actor="ann", reason="by hand")
    done = carried_out(graph, state(a=PAUSED), order)
    assert steps(done) == {"a": Skipped(acted=True), "b": Running()}
    row = done.records[0]
    assert (row.phase, row.status, row.step_id, row.output) == ("EXECUTE", "SKIPPED", "a", '{"n":1}')
    assert (row.skipped, row.actor, row.reason) == (True, "ann", "by hand")


def test_a_skip_must_name_its_step_when_several_could_be_meant() -> None:
    """Skipping the wrong step is worse than asking again."""
    graph = Graph.of(step("a"), step("b"))
    before = state(a=PAUSED, b=PAUSED)
    assert "found: a, b" in decide(graph, before, SkipOrdered(), now=NOW).reason
    assert "found: a, b" in decide(graph, before, SkipOrdered(step_id="z"), now=NOW).reason
    assert steps(carried_out(graph, before, SkipOrdered(step_id="b"))) == {"a": PAUSED, "b": Skipped()}


def test_a_skip_that_ends_a_quarantine_starts_what_was_held_back() -> None:
    """Steps that a failure had held back, and attempts that were lost, go on."""
    graph = Graph.of(pivot("p"), read("q"), read("s"), read("t", "s"), max_recoveries=0)
    before = state(p=Running(), q=Failed(), s=Succeeded(), quarantined=True)
    done = carried_out(graph, before, SkipOrdered(step_id="q"))
    assert set(done.work) == {Execute("p", 1, tainted=True), Execute("t", 1)}


# --- compensate and cancel -------------------------------------------------------------------------------------------


def test_a_compensation_can_be_ordered_while_a_retry_is_waited_for() -> None:
    """The pause ends in failure, and what has acted is undone."""
    done = carried_out(GRAPH, state(a=Succeeded(), b=PAUSED), CompensateOrdered())
    assert steps(done) == {"a": Undoing(), "b": Failed()}
    assert rows(done) == ["ORDER SUCCESS compensate"]


def test_what_was_left_alone_can_be_undone_later() -> None:
    """After an abort, too, also what was being undone when it came."""
    graph = Graph.of(step("a"), step("b", "a"), step("c"))
    before = halted(a=Succeeded(), b=UndoFailed(2), c=Failed())
    assert carried_out(graph, before, CompensateOrdered()).work == (Compensate("b", 3),)


def test_undos_that_failed_are_resumed_in_their_order() -> None:
    """A step's undo waits for those of the steps that come after it, however it failed before."""
    graph = Graph.of(step("a"), step("b", "a"), step("c", "b", undo_without_output=True), step("d"))
    before = back(a=UndoFailed(2), b=UNDO_PAUSED, c=UndoFailed(1, with_output=False), d=UndoFailed(0))
    resumed = carried_out(graph, before, CompensateOrdered())
    assert resumed.work == (Compensate("c", 2, with_output=False), Compensate("d", 1))
    assert resumed.state.of("a") == UndoFailed(2, again=True)
    assert decide(graph, resumed.state, CompensateOrdered(), now=NOW).verdict is Verdict.DUPLICATE
    then = decided(graph, resumed.state, Compensated("c", 2))
    assert then.work == (Compensate("b", 2),)
    last = decided(graph, then.state, CompensationRaised("b", 2))
    assert last.work == (Compensate("a", 3),)


def test_an_undo_whose_turn_is_over_waits_for_what_is_being_undone_before_it() -> None:
    """What comes before it is on its way back already: undoing both at once would be in no order at all."""
    graph = Graph.of(step("a"), step("b", "a"))
    assert decide(graph, back(a=Undoing(), b=UndoFailed(1)), CompensateOrdered(), now=NOW).verdict is Verdict.DUPLICATE
    assert carried_out(graph, back(a=UndoFailed(1), b=UndoFailed(1)), CompensateOrdered()).work == (Compensate("b", 2),)


def test_an_undo_that_lacks_its_output_is_not_tried_again() -> None:
    """Only a person can resolve that: by undoing it himself, and waiving it."""
    before = back(a=UndoFailed(1), b=UndoFailed(0, with_output=False))
    resumed = carried_out(Graph.of(step("a"), step("b")), before, CompensateOrdered())
    assert resumed.work == (Compensate("a", 2),)
    assert resumed.state.of("b") == UndoFailed(0, with_output=False)


def test_a_compensation_ends_a_quarantine() -> None:
    """On the way forward it turns; on the way back it goes on, with what was in flight begun again."""
    graph = Graph.of(step("a"), step("b", probes=True))
    turned = carried_out(graph, state(a=Succeeded(), b=Running(), quarantined=True), CompensateOrdered())
    assert set(turned.work) == {Probe("b", 1), Compensate("a", 1)}
    resumed = carried_out(graph, back(a=Undoing(2), b=Failed(), quarantined=True), CompensateOrdered())
    assert resumed.work == (Compensate("a", 2),)
    assert not resumed.state.quarantined


def test_nothing_is_undone_where_nothing_has_acted() -> None:
    """The order is refused, rather than leading to a saga that claims to be compensated."""
    assert "no step has acted" in decide(GRAPH, state(a=PAUSED), CompensateOrdered(), now=NOW).reason


def test_a_waived_pivot_has_acted_all_the_same() -> None:
    """What an operator took on himself stays done; undoing what came before it would break a kept promise."""
    before = halted(a=Succeeded(), b=Succeeded(), p=Waived())
    assert "past its pivot" in decide(GRAPH, before, CompensateOrdered(), now=NOW).reason


def test_a_cancelled_saga_lets_what_is_in_flight_finish() -> None:
    """Then everything is undone."""
    done = carried_out(GRAPH, state(a=Succeeded(), b=Running()), CancelOrdered())
    assert steps(done) == {"a": Succeeded(), "b": Running()}
    assert status_of(GRAPH, done.state) is SagaStatus.COMPENSATING
    newborn = carried_out(GRAPH, state(), CancelOrdered())
    assert status_of(GRAPH, newborn.state) is SagaStatus.FAILED


def test_a_cancel_ends_a_quarantine() -> None:
    """What was in flight is asked for, or undone."""
    graph = Graph.of(step("a", undo_without_output=True))
    done = carried_out(graph, state(a=Running(), quarantined=True), CancelOrdered())
    assert done.work == (Compensate("a", 1, with_output=False),)


# --- abort and waive -------------------------------------------------------------------------------------------------


def test_an_abort_leaves_everything_as_it_is_and_says_so() -> None:
    """What was in flight is in doubt, and all that stands is residue."""
    graph = Graph.of(step("a"), step("b"), step("c"), step("d"), read("e"))
    before = state(a=Succeeded(), b=Running(2), c=Probing(3), d=PAUSED, e=Succeeded())
    done = carried_out(graph, before, AbortOrdered())
    assert steps(done) == {
        "a": Succeeded(),
        "b": Failed(2, tainted=True),
        "c": Failed(3, tainted=True),
        "d": Failed(),
        "e": Succeeded(),
    }
    assert rows(done) == ["EXECUTE IN_DOUBT b", "EXECUTE IN_DOUBT c", "ORDER SUCCESS abort"]
    assert (status_of(graph, done.state), residue(graph, done.state)) == (SagaStatus.FAILED, ("a", "b", "c"))


def test_an_abort_stops_a_rollback() -> None:
    """What was being undone may or may not be: it stands in the residue."""
    before = back(a=Succeeded(), b=Undoing(2), c=UNDO_PAUSED, d=Undone())
    graph = Graph.of(step("a"), step("b", "a"), step("c"), step("d"))
    done = carried_out(graph, before, AbortOrdered())
    assert steps(done) == {"a": Succeeded(), "b": UndoFailed(2), "c": UndoFailed(1), "d": Undone()}
    assert rows(done) == ["COMPENSATE IN_DOUBT b", "ORDER SUCCESS abort"]
    assert residue(graph, done.state) == ("a", "b", "c")


def test_an_abort_ends_a_quarantine_for_good() -> None:
    """There is nothing left to take over."""
    done = carried_out(GRAPH, state(a=Running(), quarantined=True), AbortOrdered())
    assert (done.work, status_of(GRAPH, done.state)) == ((), SagaStatus.FAILED)


def test_a_waiver_needs_a_name() -> None:
    """Somebody takes it on himself, and the history says who."""
    before = back(a=UndoFailed(1))
    for nobody in (None, ""):
        assert "actor=" in decide(GRAPH, before, WaiveOrdered(step_id="a", actor=nobody), now=NOW).reason


def test_a_waiver_lets_the_rollback_go_on() -> None:
    """What was held back by an undo that failed is undone now."""
    graph = Graph.of(step("a"), step("b", "a", on_undo_failure="stop"))
    done = carried_out(graph, back(a=Succeeded(), b=UndoFailed(1)), WaiveOrdered(step_id="b", actor="ann"))
    assert steps(done) == {"a": Undoing(), "b": Waived()}
    assert rows(done) == ["ORDER SUCCESS waive:b"]


def test_a_waiver_ends_a_quarantine() -> None:
    """The rest of the rollback goes on."""
    graph = Graph.of(step("a"), step("b"))
    before = back(a=Undoing(), b=UndoFailed(1), quarantined=True)
    assert carried_out(graph, before, WaiveOrdered(step_id="b", actor="ann")).work == (Compensate("a", 1),)


CLOSING = FailureOrdered(action="CLOSE_ALL", calls=True, closes=True, actor="ann", reason="sold off")
CLOSED = ActionEnded(came_off=True, actor="ann", reason="sold off")


def test_what_was_done_about_a_failure_is_recorded() -> None:
    """It changes nothing of what stands."""
    before = halted(a=Succeeded(), b=Failed())
    done = carried_out(GRAPH, before, FailureOrdered(action="ALERT_HUMAN", actor="ann"))
    assert rows(done) == ["ORDER SUCCESS failure:ALERT_HUMAN"]
    assert residue(GRAPH, done.state) == ("a",)


@pytest.mark.parametrize("situation", [name for name, (status, _) in SITUATIONS.items() if status in DIRTY])
def test_where_everything_was_closed_nothing_stands(situation: str) -> None:
    """The saga is over, whichever way it went: nothing of it goes on, and nothing is left to undo."""
    _, before = SITUATIONS[situation]
    if situation == "failed, nothing acted":
        assert "nothing of it stands" in decide(GRAPH, before, CLOSING, now=NOW).reason
        return
    begun = carried_out(GRAPH, before, CLOSING)
    assert rows(begun) == ["ORDER WAITING failure:CLOSE_ALL"]
    assert begun.state.action == Action("CLOSE_ALL", "ann", "sold off", closes=True)
    done = carried_out(GRAPH, begun.state, CLOSED)
    assert done.state.action is None
    assert (done.work, residue(GRAPH, done.state)) == ((), ())
    assert status_of(GRAPH, done.state).is_terminal
    assert rows(done)[-1] == "ORDER SUCCESS failure:CLOSE_ALL"


def test_to_close_everything_needs_a_name_and_a_failure() -> None:
    """Somebody answers for what was left; and a saga that goes on is not dealt with behind its back."""
    nobody = FailureOrdered(action="CLOSE_ALL", calls=True, closes=True)
    assert "actor=" in decide(GRAPH, halted(a=Succeeded(), b=Failed()), nobody, now=NOW).reason
    for situation, (status, before) in SITUATIONS.items():
        if status not in DIRTY:
            assert "STUCK or has FAILED" in decide(GRAPH, before, CLOSING, now=NOW).reason, situation


def under_way() -> State:
    return carried_out(GRAPH, halted(a=Succeeded(), b=Failed()), CLOSING).state


EVERY_ORDER = [
    CLOSING,
    FailureOrdered(action="NOOP"),
    FailureOrdered(action="ALERT_HUMAN", calls=True),
    RetryOrdered(),
    SkipOrdered(),
    CompensateOrdered(),
    CompensateOrdered(by_parent=True),
    CancelOrdered(),
    AbortOrdered(),
    RewindOrdered(step_id="a"),
    WaiveOrdered(step_id="a", actor="bob"),
    PauseOrdered(),
    ResumeOrdered(),
    StepOrdered(),
]


@pytest.mark.parametrize("order", EVERY_ORDER, ids=lambda order: type(order).__name__)
@pytest.mark.parametrize("situation", [name for name, (status, _) in SITUATIONS.items() if status in DIRTY])
def test_while_an_action_is_under_way_every_order_is_refused(situation: str, order: Order) -> None:
    """What is under way is named, with who ordered it: two ways to compensate never meet."""
    begun = carried_out(GRAPH, SITUATIONS[situation][1], FailureOrdered(action="ALERT_HUMAN", calls=True, actor="ann"))
    said = decide(GRAPH, begun.state, order, now=NOW)
    assert said.verdict is Verdict.REFUSED
    assert "ALERT_HUMAN, ordered by ann, is under way; wait until it has ended" in said.reason


def test_an_action_that_does_not_come_off_leaves_the_saga_as_it_was() -> None:
    """The history says that it failed, and why; another action can be ordered then."""
    done = carried_out(GRAPH, under_way(), ActionEnded(error="away", actor="ann"))
    assert (rows(done), done.records[0].error) == (["ORDER ERROR failure:CLOSE_ALL"], "away")
    assert (done.state.action, residue(GRAPH, done.state)) == (None, ("a",))
    assert carried_out(GRAPH, done.state, CompensateOrdered()).work == (Compensate("a", 1),)


def test_an_action_whose_owner_is_gone_ends_in_doubt() -> None:
    """It closes nothing, for the hook may have done its work or not."""
    lost = ActionEnded(error="its owner is gone", actor="ann", in_doubt=True)
    done = carried_out(GRAPH, under_way(), lost)
    assert (rows(done), done.records[0].error) == (["ORDER IN_DOUBT failure:CLOSE_ALL"], "its owner is gone")
    assert (done.state.action, residue(GRAPH, done.state)) == (None, ("a",))


def test_only_an_action_that_is_under_way_can_end() -> None:
    """The end that comes twice is refused the second time."""
    before = halted(a=Succeeded(), b=Failed())
    assert "no action is under way" in decide(GRAPH, before, CLOSED, now=NOW).reason


def test_an_action_whose_owner_vanished_is_the_next_owners() -> None:
    """It stays claimed, whoever takes the saga; when it has cost too many owners it is given up, in doubt."""
    graph = Graph.of(step("a"), step("b"), max_recoveries=1)
    claimed = carried_out(graph, halted(a=Succeeded(), b=Failed()), CLOSING).state
    assert decide(graph, claimed, Claimed(), now=NOW).state == claimed
    once = decide(graph, claimed, Claimed(crashed=True), now=NOW)
    assert (once.records, once.state.action and once.state.action.lost) == ((), 1)
    twice = decide(graph, once.state, Claimed(crashed=True), now=NOW)
    assert (rows(twice), twice.state.action) == (["ORDER IN_DOUBT failure:CLOSE_ALL"], None)
    assert "2 owners were lost while CLOSE_ALL was under way; it may have acted" in str(twice.records[0].error)
    assert residue(graph, twice.state) == ("a",)


def test_the_orders_that_end_a_saga_say_so_in_its_error() -> None:
    """Who, and why; an error that it had before is what a person wants to see."""
    for order, said in (
        (AbortOrdered(actor="ann", reason="fraud"), "aborted by ann: fraud"),
        (AbortOrdered(), "aborted by an operator"),
        (CancelOrdered(actor="ann", reason="fraud"), "cancelled by ann: fraud"),
    ):
        before = state(a=Running())
        done = carried_out(GRAPH, before, order)
        assert last_error(None, before, done) == said
        assert last_error("full", before, done) == "full"
    resting = halted(a=Succeeded(), b=Failed())
    undone = carried_out(GRAPH, resting, CompensateOrdered(actor="ann", reason="fraud"))
    assert last_error(None, resting, undone) == "undone by ann: fraud"
    assert last_error("full", resting, undone) == "full"
    ended = carried_out(GRAPH, under_way(), ActionEnded(error="away", actor="ann"))
    assert last_error("full", under_way(), ended) == "full"


def test_an_order_of_a_newer_version_is_refused() -> None:
    """A decision never raises, not even for what it has never heard of."""
    assert "no order that this version knows" in decide(GRAPH, state(), Order(), now=NOW).reason


# --- what a parent orders --------------------------------------------------------------------------------------------

BY_PARENT = CompensateOrdered(by_parent=True, actor="saga 1", reason="its parent is undone")


def test_a_parent_may_have_undone_what_has_completed() -> None:
    """From its last step on, as in any rollback; it stands in the history."""
    graph = Graph.of(step("a"), step("b", "a"))
    done = carried_out(graph, state(a=Succeeded(), b=Succeeded(2)), BY_PARENT)
    assert done.work == (Compensate("b", 1),)
    assert steps(done) == {"a": Succeeded(), "b": Undoing()}
    assert status_of(graph, done.state) is SagaStatus.COMPENSATING
    assert rows(done) == ["ORDER SUCCESS compensate"]


def test_a_parent_cannot_have_undone_what_is_past_its_pivot_or_has_no_effect() -> None:
    """Nor what is undone already."""
    past = decide(GRAPH, SITUATIONS["completed"][1], BY_PARENT, now=NOW)
    assert (past.verdict, PAST in past.reason) == (Verdict.REFUSED, True)
    idle = decide(Graph.of(read("q")), state(q=Succeeded()), BY_PARENT, now=NOW)
    assert (idle.verdict, NOTHING in idle.reason) == (Verdict.REFUSED, True)
    undone = decide(GRAPH, SITUATIONS["compensated"][1], BY_PARENT, now=NOW)
    assert (undone.verdict, COMPENSATE in undone.reason) == (Verdict.REFUSED, True)


def test_what_a_parent_orders_is_otherwise_what_an_operator_does() -> None:
    """In every other situation it is answered alike."""
    for situation, (_, before) in SITUATIONS.items():
        if situation != "completed":
            own = decide(GRAPH, before, CompensateOrdered(), now=NOW)
            parents = decide(GRAPH, before, CompensateOrdered(by_parent=True), now=NOW)
            assert (own.state, own.verdict, own.reason) == (parents.state, parents.verdict, parents.reason), situation


def test_it_is_a_law_that_only_a_parent_moves_what_has_completed() -> None:
    """And that nobody moves what is COMPENSATED."""
    graph = Graph.of(step("a"))
    completed, compensated = state(a=Succeeded()), back(a=Undone())
    moved = decide(graph, completed, BY_PARENT, now=NOW)
    assert list(broken_by_move(graph, completed, BY_PARENT, moved)) == []
    signed = CompensateOrdered(actor=BY_PARENT.actor, reason=BY_PARENT.reason)
    assert any("only its parent" in law for law in broken_by_move(graph, completed, signed, moved))
    assert any("only its parent" in law for law in broken_by_move(graph, compensated, BY_PARENT, moved))
