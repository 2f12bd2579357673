"""What must hold of every state, and of every move, whatever happens: the laws as data.

The tests, the simulation and the users' own crash tests all check these same functions; each is kept alive by a
mutant of the kernel that only it (or a few) can catch.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..definition.graph import Graph
from .effects import Decision
from .move_laws import MOVE_LAWS, MoveLaw
from .state import State
from .state_laws import STATE_LAWS, STRUCTURAL_LAWS, StateLaw

__all__ = ["MOVE_LAWS", "STATE_LAWS", "STRUCTURAL_LAWS", "MoveLaw", "StateLaw", "broken_by", "broken_by_move"]


def broken_by(graph: Graph, state: State) -> Iterator[str]:
    """Yield what each broken law says, for a state; of a state with steps that the graph does not have, only that."""
    graph = graph.unfolded(state.fans)
    laws = STATE_LAWS if STATE_LAWS[0](graph, state) else STATE_LAWS[:1]
    yield from (law.__doc__ or law.__name__ for law in laws if not law(graph, state))


def broken_by_move(graph: Graph, before: State, event: object, decision: Decision) -> Iterator[str]:
    """Yield what each broken law says, for a decision and the state that it leads to."""
    graph = graph.unfolded({**decision.state.fans, **before.fans})
    yield from (law.__doc__ or law.__name__ for law in MOVE_LAWS if not law(graph, before, event, decision))
    yield from broken_by(graph, decision.state)
