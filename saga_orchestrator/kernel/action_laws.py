"""What must hold of the actions on a saga that has failed: of every state, and of every decision."""

from __future__ import annotations

from dataclasses import replace

from ..definition.graph import Graph
from .effects import Decision
from .events import Claimed
from .order_events import ActionEnded, FailureOrdered
from .projection import status_of
from .state import SagaStatus, State


def an_action_is_of_what_has_failed(graph: Graph, state: State) -> bool:
    """An action is under way only on a saga that is STUCK or has FAILED."""
    return state.action is None or status_of(graph, state) in (SagaStatus.STUCK, SagaStatus.FAILED)


def nothing_crosses_an_action(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """While an action is under way, only its end moves the saga; a new owner counts a loss of owners, or gives up."""
    after = decision.state
    if before.action is None or after == before or isinstance(event, ActionEnded):
        return True
    unmoved = replace(after, action=before.action, recorded=before.recorded) == before
    if after.action is None:
        is_same = before.action.lost >= graph.max_recoveries
    else:
        is_same = replace(after.action, lost=before.action.lost) == before.action
    return isinstance(event, Claimed) and event.crashed and unmoved and is_same


def an_action_is_claimed_by_an_order(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """An action begins by an order alone, which changes nothing else."""
    after = decision.state
    if after.action is None or before.action is not None:
        return True
    unmoved = replace(after, action=None, recorded=before.recorded, recoveries=before.recoveries) == before
    return isinstance(event, FailureOrdered) and unmoved


def what_was_not_closed_stands(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """An action that did not come off, or closes nothing, leaves every step as it was."""
    action = before.action
    if action is None or not isinstance(event, ActionEnded) or (event.came_off and action.closes):
        return True
    return dict(decision.state.all()) == dict(before.all()) and decision.state.course is before.course


def crash_loops_of_an_action_end(graph: Graph, state: State) -> bool:
    """An action in which too many owners have vanished is given up."""
    return state.action is None or state.action.lost <= graph.max_recoveries
