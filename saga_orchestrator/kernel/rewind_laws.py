"""What must hold of rewinds, in every decision."""

from __future__ import annotations

from ..definition.graph import Graph
from .effects import Decision, Verdict
from .order_events import RetryOrdered, RewindOrdered, WaiveOrdered
from .state import Course, State
from .step_status import Omitted, Pending
from .undo_status import UndoFailed


def begun_again(graph: Graph, before: State, event: object, decision: Decision) -> frozenset[str]:
    """Return the steps that this decision has made such as never ran: those of a rewind that it ends."""
    if isinstance(event, RetryOrdered):  # it has taken a rewind back, before anything was undone
        return frozenset()
    after = decision.state
    to = before.rewind.to if before.rewind is not None else getattr(event, "step_id", "")
    rewinds = before.rewind is not None or isinstance(event, RewindOrdered)
    ends = after.rewind is None and after.course is Course.FORWARD and decision.verdict is Verdict.APPLIED
    return graph.part(to) if rewinds and ends else frozenset()


def a_rewind_ends_when_nothing_stands(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What a rewind makes such as never ran was undone or had nothing to undo, and no undo of it had failed."""
    part = begun_again(graph, before, event, decision)
    failed = {step_id for step_id in part if isinstance(before.of(step_id), UndoFailed)}
    return failed <= ({event.step_id} if isinstance(event, WaiveOrdered) else set())


def a_rewind_leaves_the_rest(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """What comes before the step that a rewind goes back to is as it was."""
    rewound, after = before.rewind or decision.state.rewind, decision.state
    if rewound is None or (after.rewind is None and after.course is not Course.FORWARD):
        return True
    ancestors = graph.ancestors(rewound.to)
    return all(decision.state.of(step_id) == before.of(step_id) for step_id in ancestors)


def who_begins_again_counts_on(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """An attempt after a rewind has a number that no attempt before it has had."""
    after = decision.state
    part = begun_again(graph, before, event, decision)
    begun = [step_id for step_id in part if not isinstance(before.of(step_id), Pending | Omitted)]
    return all(after.spent.get(i, 0) >= max(getattr(before.of(i), "attempt", 0), 1) for i in begun) and all(
        getattr(after.of(i), "attempt", after.spent.get(i, 0) + 1) > after.spent.get(i, 0) for i in begun
    )


def rewinds_go_back(graph: Graph, state: State) -> bool:
    """Only a saga on its way back is going back to some step."""
    return state.rewind is None or state.course is Course.BACKWARD
