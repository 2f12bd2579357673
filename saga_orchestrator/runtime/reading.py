"""What becomes of a saga's letters: which wait each is for, and whether it can be understood there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid5

from ..definition.io import Payloads, clean_text
from ..definition.saga import SagaDefinition
from ..errors import PayloadError
from ..kernel.events import Collected, Event, Signalled
from ..kernel.projection import waits
from ..kernel.state import State
from ..kernel.step_status import Asking, UndoAsking, UndoWaiting, Wait
from ..kernel.waits import addressee
from ..storage.rows import Delivery, Fate, Head, Letter, Settled, Want
from .claims import Claims
from .letters import opened
from .moves import fold

_LONGEST_REASON = 1_000


class OpenWait(NamedTuple):
    """A wait of a saga, as it is seen from outside.

    Attributes:
        token: Ends this wait by `notify`, whatever else the saga does.
        until: When the time for it is up, if it ever is.
    """

    step_id: str
    event_types: tuple[str, ...]
    correlation_id: str | None
    until: datetime | None
    token: UUID


def open_waits(saga_id: UUID, state: State) -> list[OpenWait]:
    """Return the waits for events that are open, with the token of each."""
    return [
        OpenWait(step_id, status.types, status.correlation, _end(status), token_of(saga_id, step_id, status))
        for step_id, status in waits(state)
        if status.types
    ]


def token_of(saga_id: UUID, step_id: str, status: Wait) -> UUID:
    """Return the token of a wait: another one for each, and the same for as long as that one lasts."""
    way = "undo" if isinstance(status, UndoAsking | UndoWaiting) else "do"
    return uuid5(saga_id, f"{way}/{status.attempt}/{step_id}")


@dataclass(frozen=True, slots=True)
class SagaReader:
    """Reads the letters of any saga that its process knows."""

    claims: Claims
    payloads: Payloads

    def wants(self, head: Head) -> tuple[Want, ...] | None:
        if head.status.is_terminal:
            return ()
        known = self.claims.sound(head)
        if known is None:
            return None
        return tuple(Want(status.types, status.correlation) for _, status in waits(known[1]) if status.types)

    def read(self, head: Head, letters: Sequence[Letter], now: datetime) -> Delivery:
        if head.status.is_terminal:
            return Delivery(None, tuple(Settled(each.id, Fate.STALE, "its saga was over") for each in letters))
        known = self.claims.sound(head)
        if known is None:
            return Delivery()
        definition, state = known
        events, settled = self._sorted(definition, state, letters, now)
        if not events:
            return Delivery(None, tuple(settled))
        done = fold(definition.graph, state, head.last_error, events, now)
        return Delivery(self.claims.moved(head, definition, state, done, now), tuple(settled))

    def _sorted(
        self, definition: SagaDefinition, state: State, letters: Sequence[Letter], now: datetime
    ) -> tuple[list[Event], list[Settled]]:
        """Return the events for the kernel, and what becomes of the letters: each wait takes the oldest that fits."""
        taken: dict[str, Event] = {}
        settled: list[Settled] = []
        for letter in letters:
            left = replace(state, open={i: s for i, s in state.open.items() if i not in taken})
            step_id = addressee(left, letter.type, letter.correlation_id, now)
            if step_id is None:
                if addressee(left, letter.type, letter.correlation_id, None) is not None:
                    settled.append(Settled(letter.id, Fate.EXPIRED, "the time of its wait was up"))
            elif (why := self.misfit(definition, step_id, letter.content)) is not None:
                settled.append(Settled(letter.id, Fate.REFUSED, why))
            else:
                taken[step_id] = Signalled(letter.type, letter.correlation_id, letter.content, step_id)
                settled.append(Settled(letter.id, Fate.APPLIED))
        asked = [(i, s) for i, s in waits(state) if isinstance(s, Asking | UndoAsking) and i not in taken]
        return [*taken.values(), *(Collected(i, s.attempt) for i, s in asked)], settled

    def misfit(self, definition: SagaDefinition, step_id: str, content: str) -> str | None:
        """Return why a step could not understand an event, or None if it could."""
        try:
            opened(self.payloads, definition.step(step_id).shape.event_model, content)
        except PayloadError as error:
            return clean_text(str(error), _LONGEST_REASON)
        return None


def _end(status: Wait) -> datetime | None:
    found: datetime | None = getattr(status, "until", None) or getattr(status, "limit", None)
    return found
