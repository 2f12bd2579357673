"""What must hold of choices: of every state, and of every decision."""

from __future__ import annotations

from ..definition.graph import Graph
from .effects import Decision, Verdict
from .events import Returned
from .rewind_laws import begun_again
from .state import State
from .step_status import Omitted, Pending


def one_branch_at_most(graph: Graph, state: State) -> bool:
    """Of a choice's branches one has begun at most, and all of the others are omitted; nothing else ever is."""
    for choice, steps in graph.choices.items():
        begun = {label for step_id, label in steps if not isinstance(state.of(step_id), Pending | Omitted)}
        others = [step_id for step_id, label in steps if begun and label not in begun]
        if len(begun) > 1 or not all(isinstance(state.of(step_id), Omitted) for step_id in others):
            return False
        if begun and isinstance(state.of(choice), Pending | Omitted):
            return False
    omitted = [step_id for step_id, status in state.all() if isinstance(status, Omitted)]
    return all(graph.nodes[step_id].branches for step_id in omitted)


def what_is_omitted_stays_so(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A choice that has been made is not made again, unless it was rewound."""
    again = begun_again(graph, before, event, decision)
    omitted = [i for i, status in before.all() if isinstance(status, Omitted) and i not in again]
    return all(isinstance(decision.state.of(step_id), Omitted) for step_id in omitted)


def what_was_chosen_is_done(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """A choice's answer omits what belongs to other branches, and nothing of its own."""
    if decision.verdict is not Verdict.APPLIED or not isinstance(event, Returned):
        return True
    if event.step_id in begun_again(graph, before, event, decision):
        return True
    after = decision.state
    return all(
        isinstance(after.of(step_id), Omitted) is (label != event.chosen)
        for step_id, label in graph.choices.get(event.step_id, ())
        if isinstance(before.of(step_id), Pending)
    )
