"""The world outside a saga: which effects stand, whatever the saga believes.

A participant keeps one effect for each step, under the step's idempotency key: acting twice is acting once. A step that
was rewound has another key than before. A participant remembers an undo, and refuses to act under that key any more;
without that, a request that is delayed for long enough undoes any undo.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, int]
"""The key of a step's effect: the step, and how many attempts of it are not counted any more since a rewind."""


@dataclass(eq=False, slots=True)
class Flight:
    """Work that somebody has begun and that has not ended. `void`: nothing can come of it any more."""

    work: Any
    owner: int
    key: Key
    acted: bool = False
    void: bool = False


@dataclass(slots=True)
class Ledger:
    """The effects of one saga's steps."""

    standing: set[Key] = field(default_factory=set)
    closed: set[Key] = field(default_factory=set)
    waived: set[Key] = field(default_factory=set)
    undone: bool = False

    def act(self, flight: Flight) -> bool:
        """Let an attempt act; return whether it has acted."""
        if not flight.void and flight.key not in self.closed:
            self.standing.add(flight.key)
            flight.acted = True
        return flight.acted

    def undo(self, key: Key) -> None:
        self.standing.discard(key)
        self.closed.add(key)

    def stands(self, step_id: str) -> bool:
        """Return whether the step has an effect that nobody has undone, or taken on himself."""
        return any(key[0] == step_id for key in self.standing - self.waived)
