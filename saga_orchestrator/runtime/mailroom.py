"""The mailroom: events are kept as soon as they come, and delivered to the saga that they are for, once.

Posting and delivering are two transactions, so that an event can be posted in a caller's own, and none is lost between
them: what was posted and not delivered is due, and `deliver_due` sees to it. The same delivery serves an event that
has just come, one that came before its saga, and a step that has just asked: it locks the saga's row and looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import NamedTuple, Protocol
from uuid import UUID

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import SagaNotFoundError
from ..kernel.draft import LONGEST
from ..storage.contract import Store
from ..storage.database_errors import is_blocked
from ..storage.inbox import CORRELATION, LEFT, SAGA
from ..storage.rows import Fate, Head, Letter, Move
from .after_commit import after_commit
from .background import Background
from .error_text import show
from .reading import Question, SagaReader
from .registry import Registry
from .rounds import IsOver
from .surrender import Surrenders

_PURGED_EVERY = timedelta(minutes=1)


class SignalResult(StrEnum):
    """What became of an event. All but UNMATCHED mean that it is kept, with this answer."""

    APPLIED = "APPLIED"
    """A step has waited for it, and goes on."""
    BUFFERED = "BUFFERED"
    """Nobody waits for it yet; it is kept for who will."""
    DUPLICATE = "DUPLICATE"
    """An event of this type and id has been sent to the same address before; nothing was changed."""
    STALE = "STALE"
    """Its saga is over."""
    UNMATCHED = "UNMATCHED"
    """No saga has this id; nothing was kept."""
    EXPIRED = "EXPIRED"
    """The time of the wait that it was for was up."""
    DEFERRED = "DEFERRED"
    """It is kept, but this process knows its saga with other steps, and leaves it to one that has the right ones."""
    REFUSED = "REFUSED"
    """Its payload is not what the step wants, which waits on. The inbox has the reason."""


class Sending(NamedTuple):
    """What became of an event that was sent. `letter_id`: that of its first sending."""

    letter_id: UUID
    result: SignalResult


class Office(Protocol):
    """What a mailroom needs of the engine that it is part of."""

    registry: Registry
    background: Background
    surrenders: Surrenders
    now: Callable[[], datetime]

    @property
    def store(self) -> Store:
        """The store of the engine's sagas."""

    def follow(self, head: Head, move: Move | None, since: float) -> object:
        """Drive a saga that has just been moved, if that gave it to this engine; else tell its driver."""


class Mailroom:
    """Delivers the events of one engine's sagas.

    Args:
        retention: How long an event that nobody takes is kept.
    """

    def __init__(self, office: Office, reader: SagaReader, retention: timedelta) -> None:
        self._office, self._reader, self._retention = office, reader, min(retention, LONGEST)
        self._inbox = office.store.inbox
        self._purge_at: datetime | None = None
        self._held: set[UUID] = set()

    async def signal(self, letter: Letter, session: AsyncSession | None) -> Sending:
        """Keep an event durably, and deliver it; what it sets going goes on in the background.

        With a session it is kept in the session's transaction, and delivered after that has been committed.
        """
        if session is None:
            return await self._office.background.outcome(self._signal, letter)
        known = await self._inbox.post(letter, session)
        after_commit(session.sync_session, partial(self._deliver_soon, known or letter))
        return Sending(letter.id, SignalResult.BUFFERED) if known is None else Sending(known.id, SignalResult.DUPLICATE)

    async def _signal(self, letter: Letter) -> Sending:
        if letter.address.startswith(f"{SAGA}:") and not await self._inbox.addressees(letter.address):
            return Sending(letter.id, SignalResult.UNMATCHED)
        known = await self._inbox.post(letter)
        if known is None:
            return Sending(letter.id, await self.deliver(letter.id, letter.address))
        if known.due_at is not None:  # whoever sent it first has not got as far as this
            await self.deliver(known.id, known.address)
        return Sending(known.id, SignalResult.DUPLICATE)

    def _deliver_soon(self, letter: Letter) -> None:
        _ = self._office.background.begin(self.deliver(letter.id, letter.address, patient=False))

    def look_soon(self, saga_id: UUID | None) -> None:
        """Give a saga what has come for it, in the background. If that fails, `deliver_due` does it later."""
        if saga_id is not None:
            _ = self._office.background.begin(self._delivered(saga_id, patient=False))

    async def deliver(self, letter_id: UUID, address: str, *, patient: bool = True) -> SignalResult:
        """Deliver an event to the first saga of its address that takes it; say what has become of it.

        Args:
            patient: Wait for rows that another transaction holds, as long as a call to the database may take.
        """
        addressees, is_deferred = await self._inbox.addressees(address), False
        for saga_id in addressees:
            with suppress(SagaNotFoundError):  # it has been deleted since it was found
                head, _ = await self._delivered(saga_id, letter_id, patient=patient)
                is_deferred = is_deferred or self._is_deferred(head)
            found = await self._inbox.find(letter_id)
            if found is None or found.fate is not Fate.BUFFERED:
                return SignalResult.UNMATCHED if found is None else SignalResult(found.fate.value)
        if not addressees or address.startswith(f"{CORRELATION}:"):
            await self._inbox.shelve(letter_id, patient)
        return SignalResult.DEFERRED if is_deferred else SignalResult.BUFFERED

    def _is_deferred(self, head: Head) -> bool:
        """Return whether a saga is left to another process, since its definition has changed here; say so once."""
        if head.status.is_terminal or not self._reader.claims.is_changed(head):
            return False
        self._office.registry.warn_changed(head.saga_name, head.definition_version)
        return True

    async def _delivered(
        self, saga_id: UUID, letter_id: UUID | None = None, reader: SagaReader | None = None, patient: bool = True
    ) -> tuple[Head, bool]:
        """Have a saga take what has come for it, if this process knows it; return whether anything became of it."""
        since = asyncio.get_running_loop().time()
        with self._office.surrenders.noting() as note:
            noted = replace(reader or self._reader, note=note)
            head, delivery = await self._inbox.deliver(saga_id, noted, letter_id, patient)
        if delivery.move is not None:
            self._office.follow(head, delivery.move, since)
        return head, bool(delivery.settled)

    async def collect(self, saga_id: UUID) -> None:
        """Give a saga whose steps have just asked what has come before; from now on, what comes finds it.

        Nothing is said to have been looked up for a step before its correlation leads here.
        """
        while asked := await self._asked(saga_id):
            if correlated := [each.correlation for each in asked if each.correlation is not None]:
                await self._inbox.route(saga_id, correlated)
            looked = frozenset((each.step_id, each.attempt) for each in asked)
            _, is_news = await self._delivered(saga_id, reader=replace(self._reader, looked=looked))
            if not is_news:
                return

    async def _asked(self, saga_id: UUID) -> list[Question]:
        head = await self._office.store.head(saga_id)
        return [] if head is None else self._reader.questions(head)

    async def deliver_due(self, limit: int, is_over: IsOver) -> None:
        """Deliver what was posted, and not delivered by whoever posted it; now and then, forget what is too old.

        Events that could not even be deferred come last, and others in their place.
        """
        try:
            found = await self._inbox.due(self._office.registry.claimable, limit + len(self._held))
            self._held.intersection_update(letter_id for letter_id, _ in found)
            blocked: set[str] = set()
            for letter_id, address in sorted(found, key=lambda each: each[0] in self._held):
                if is_over():
                    return
                await self._deliver_or_defer(letter_id, address, blocked)
            await self._purge(self._office.now())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again with the next round
            logger.warning("events could not be delivered yet: {}", show(error, self._reader.payloads))

    async def _deliver_or_defer(self, letter_id: UUID, address: str, blocked: set[str]) -> None:
        """Deliver an event; one that cannot be stands in nobody's way.

        Args:
            blocked: The addresses whose rows another transaction holds. Each is waited for once in a round.
        """
        try:
            if address not in blocked:
                await self.deliver(letter_id, address, patient=False)
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this letter's
            if is_blocked(error):
                blocked.add(address)
            logger.warning("event {} could not be delivered yet: {}", letter_id, show(error, self._reader.payloads))
        try:
            await self._inbox.defer(letter_id, self._office.now() + LEFT)
        except Exception as error:
            self._held.add(letter_id)
            if not is_blocked(error):
                raise

    async def _purge(self, now: datetime) -> None:
        if self._purge_at is not None and self._purge_at <= now:
            await self._inbox.purge(now - self._retention)
        if self._purge_at is None or self._purge_at <= now:
            self._purge_at = now + _PURGED_EVERY
