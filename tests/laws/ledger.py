"""The world outside a saga: which effects stand, whatever the saga believes.

A participant keeps one effect for each step, under the step's idempotency key: acting twice is acting once. It
remembers an undo, and refuses to act under that key any more; without that, a request that is delayed for long enough
undoes any undo.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False, slots=True)
class Flight:
    """Work that somebody has begun and that has not ended. `void`: nothing can come of it any more."""

    work: Any
    owner: int
    acted: bool = False
    void: bool = False


@dataclass(slots=True)
class Ledger:
    """The effects of one saga's steps."""

    standing: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    waived: set[str] = field(default_factory=set)
    undone: bool = False

    def act(self, flight: Flight) -> bool:
        """Let an attempt act; return whether it has acted."""
        step_id = flight.work.step_id
        if not flight.void and step_id not in self.closed:
            self.standing.add(step_id)
            flight.acted = True
        return flight.acted

    def undo(self, step_id: str) -> None:
        self.standing.discard(step_id)
        self.closed.add(step_id)
