"""What becomes of a saga's letters: which wait each is for, and whether it can be understood there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid5

from ..definition.io import Payloads, clean_text
from ..definition.saga import SagaDefinition
from ..kernel.effects import Verdict
from ..kernel.events import Collected, Signalled
from ..kernel.projection import waits
from ..kernel.state import SagaStatus, State
from ..kernel.step_status import Asking, Wait
from ..kernel.undo_status import UndoAsking, UndoWaiting
from ..kernel.waits import addressee
from ..storage.inbox import AT_ONCE, CORRELATION
from ..storage.rows import Delivery, Fate, Head, Letter, Move, Settled, Want
from .claims import Claims
from .letters import MisfitError, opened
from .moves import Fold, fold_on

_OVER = (SagaStatus.COMPLETED, SagaStatus.COMPENSATED)
"""Of a saga that no event will move any more what comes is stale; one that has FAILED may be tried again."""
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


class Question(NamedTuple):
    """What a step has asked for, and nobody has looked up yet."""

    step_id: str
    attempt: int
    correlation: str | None


def is_correlated(letter: Letter) -> bool:
    """Return whether a letter is for whoever waits for its correlation, and for no saga by its name."""
    return letter.address.startswith(f"{CORRELATION}:")


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
    """Reads the letters of any saga that its process knows.

    Args:
        looked: The questions, by step and attempt, of which it can be said that nothing has come if nothing has.
        note: Is told of each move before it is written.
    """

    claims: Claims
    payloads: Payloads
    looked: frozenset[tuple[str, int]] = frozenset()
    note: Callable[[Head, Move | None], None] = lambda *_: None

    def wants(self, head: Head) -> tuple[Want, ...] | None:
        if head.status in _OVER:
            return ()
        known = self.claims.sound(head)
        if known is None:
            return None
        return tuple(Want(status.types, status.correlation) for _, status in waits(known[1]) if status.types)

    def read(self, head: Head, letters: Sequence[Letter], now: datetime) -> Delivery:
        if head.status in _OVER:
            mine = [letter for letter in letters if not is_correlated(letter)]
            return Delivery(None, tuple(Settled(each.id, Fate.STALE, "its saga was over") for each in mine))
        known = self.claims.sound(head)
        if known is None:
            return Delivery()
        definition, state = known
        done, settled = Fold(state, (), head.last_error, Verdict.UNMATCHED, "", moved=False), []
        for letter in letters:
            done, fate = self._taken(definition, done, letter, now)
            if fate is not None:
                settled.append(fate)
        if len(letters) < AT_ONCE:
            asking = [(i, s.attempt) for i, s in waits(done.state) if isinstance(s, Asking | UndoAsking)]
            done = fold_on(definition.graph, done, [Collected(*each) for each in asking if each in self.looked], now)
        move = self.claims.moved(head, definition, state, done, now) if done.moved else None
        self.note(head, move)
        return Delivery(move, tuple(settled))

    def _taken(
        self, definition: SagaDefinition, done: Fold, letter: Letter, now: datetime
    ) -> tuple[Fold, Settled | None]:
        """Give a letter to the wait that it fits; return what that comes to, and what becomes of the letter, if known.

        Only what the kernel has applied counts as taken. An event that was sent to a correlation is for whoever waits
        for just that: no saga turns it away for all.
        """
        exact = is_correlated(letter)
        step_id = addressee(done.state, letter.type, letter.correlation_id, now, exact=exact)
        if step_id is None:
            late = None if exact else addressee(done.state, letter.type, letter.correlation_id, None)
            is_lost = late is not None and not getattr(done.state.of(late), "resumes", False)
            return done, Settled(letter.id, Fate.EXPIRED, "the time of its wait was up") if is_lost else None
        if (why := self.misfit(definition, step_id, letter.content)) is not None:
            return done, Settled(letter.id, Fate.REFUSED, why)
        event = Signalled(letter.type, letter.correlation_id, letter.content, step_id)
        after = fold_on(definition.graph, done, [event], now)
        is_taken = after.verdict is Verdict.APPLIED
        return after, Settled(letter.id, Fate.APPLIED) if is_taken else None

    def misfit(self, definition: SagaDefinition, step_id: str, content: str) -> str | None:
        """Return why a step could not understand an event, or None if it could.

        Raises:
            PayloadError: It cannot be decoded, now or by this process: that says nothing of the event.
        """
        model = definition.step(step_id).shape.event_model
        try:
            opened(self.payloads, model, content)
        except MisfitError as error:
            if self.payloads.codec is not None and model is not None:  # a validator's message may quote the payload
                return f"The event does not fit {model.__name__}. A payload codec hides why."
            return clean_text(str(error), _LONGEST_REASON)
        return None

    def questions(self, head: Head) -> list[Question]:
        """Return what the saga has asked for and nobody has looked up."""
        known = None if head.status in _OVER else self.claims.sound(head)
        asking = () if known is None else waits(known[1])
        return [Question(i, s.attempt, s.correlation) for i, s in asking if isinstance(s, Asking | UndoAsking)]


def _end(status: Wait) -> datetime | None:
    found: datetime | None = getattr(status, "until", None) or getattr(status, "limit", None)
    return found
