"""Small sagas and states to write tables with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from saga_orchestrator.definition.graph import Graph, Node, StepKind
from saga_orchestrator.definition.retry import FixedRetry
from saga_orchestrator.kernel.effects import Decision
from saga_orchestrator.kernel.events import Event
from saga_orchestrator.kernel.state import Course, State
from saga_orchestrator.kernel.step_status import StepStatus
from saga_orchestrator.kernel.transition import decide

NOW = datetime(2024, 2, 29, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PAUSE = 10 * SECOND
LATER = NOW + PAUSE
TWICE = FixedRetry(2, PAUSE)
AT_ONCE = FixedRetry(2, timedelta(0))


def step(step_id: str, *after: str, **facts: Any) -> Node:
    """A step that can be undone."""
    return Node(step_id=step_id, after=after, **({"undoable": True} | facts))


def read(step_id: str, *after: str, **facts: Any) -> Node:
    return step(step_id, *after, kind=StepKind.READ_ONLY, undoable=False, nothing_to_undo=True, **facts)


def pivot(step_id: str, *after: str, **facts: Any) -> Node:
    return step(step_id, *after, kind=StepKind.PIVOT, undoable=False, **facts)


def retriable(step_id: str, *after: str, **facts: Any) -> Node:
    return step(step_id, *after, kind=StepKind.RETRIABLE, undoable=False, **facts)


def state(
    course: Course = Course.FORWARD, /, *, recoveries: int = 0, quarantined: bool = False, **steps: StepStatus
) -> State:
    """A state with these steps, each in the map where its status belongs."""
    return State(
        "saga",
        {step_id: status for step_id, status in steps.items() if status.is_open},
        {step_id: status for step_id, status in steps.items() if not status.is_open},
        course,
        recoveries=recoveries,
        quarantined=quarantined,
    )


def back(**steps: Any) -> State:
    return state(Course.BACKWARD, **steps)


def halted(**steps: Any) -> State:
    return state(Course.HALTED, **steps)


def decided(graph: Graph, before: State, *events: Event, now: datetime = NOW) -> Decision:
    """The last of several decisions, one after the other."""
    decision = None
    for event in events:
        decision = decide(graph, before, event, now=now)
        before = decision.state
    assert decision is not None
    return decision
