"""What must hold of fans, whatever has happened."""

from __future__ import annotations

from ..definition.graph import Graph
from .state import State
from .step_status import Missed, Skipped, Succeeded
from .undo_status import Passed


def no_more_missed_than_tolerated(graph: Graph, state: State) -> bool:
    """Only steps of a fan are missed, and of each at most as many as it tolerates."""
    fans = [graph.nodes[i].fan for i, s in state.all() if isinstance(s, Missed)]
    return all(fan is not None and fans.count(fan) <= graph.fans[fan].tolerate for fan in fans)


def fans_are_unfolded(graph: Graph, state: State) -> bool:
    """How many items a fan has is known as soon as its first step has been passed, and not before."""
    passed = {first for first in graph.fans if isinstance(state.of(first), Succeeded | Skipped | Passed)}
    return passed == state.fans.keys()
