"""Events in memory: the inbox's contract without a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ..errors import SagaNotFoundError
from ..storage.inbox import AGGREGATION, AT_ONCE, CORRELATION, LEFT, SAGA, address_of
from ..storage.rows import Claimable, Delivery, Fate, Head, Letter, Move, Reader, Want, Whereabouts


@dataclass
class Kept:
    """A letter, and what has become of it."""

    letter: Letter
    saga_id: UUID | None = None
    fate: Fate = Fate.BUFFERED
    reason: str | None = None


class MemoryInbox:
    """Events that live as long as this object.

    Args:
        heads: The sagas.
        move: Moves a saga.
        now: The time.
    """

    def __init__(
        self, heads: dict[UUID, Head], move: Callable[[Head, Move], None], now: Callable[[], datetime]
    ) -> None:
        self._heads, self._move, self._now = heads, move, now
        self.letters: dict[UUID, Kept] = {}
        self.routes: set[tuple[str, UUID]] = set()

    async def post(self, letter: Letter, session: Any = None) -> Letter | None:
        await asyncio.sleep(0)
        return self.keep(letter)

    def keep(self, letter: Letter) -> Letter | None:
        """Keep a letter at once; see `post`."""
        for kept in self.letters.values():
            if letter.event_id is not None and _key(kept.letter) == _key(letter):
                return kept.letter
        self.letters[letter.id] = Kept(letter)
        return None

    async def find(self, letter_id: UUID) -> Whereabouts | None:
        await asyncio.sleep(0)
        kept = self.letters.get(letter_id)
        return None if kept is None else Whereabouts(kept.fate, kept.saga_id)

    async def addressees(self, address: str) -> list[UUID]:
        await asyncio.sleep(0)
        found = [head for head in self._heads.values() if self._is_meant(head, address)]
        return [head.id for head in sorted(found, key=lambda head: (head.status.is_terminal, head.id))]

    def _is_meant(self, head: Head, address: str) -> bool:
        kind, _, name = address.partition(":")
        if kind == CORRELATION:
            return (name, head.id) in self.routes
        mine = head.aggregation_id if kind == AGGREGATION else str(head.id)
        return mine == name and (kind == SAGA or not head.status.is_terminal)

    async def deliver(
        self, saga_id: UUID, reader: Reader, letter_id: UUID | None = None, patient: bool = True
    ) -> tuple[Head, Delivery]:
        while True:
            if (head := self._heads.get(saga_id)) is None:
                raise SagaNotFoundError(saga_id)
            await asyncio.sleep(0)
            if self._heads.get(saga_id) is head:
                return head, self._deliver(head, reader, letter_id)

    def _deliver(self, head: Head, reader: Reader, letter_id: UUID | None) -> Delivery:
        wants = reader.wants(head)
        if wants is None:
            kept = None if letter_id is None else self.letters.get(letter_id)
            if kept is not None and kept.fate is Fate.BUFFERED:
                kept.saga_id, kept.letter = head.id, kept.letter._replace(due_at=self._now() + LEFT)
            return Delivery()
        self._bind(head)
        waiting = [kept for kept in self.letters.values() if kept.fate is Fate.BUFFERED]
        wanted = [kept.letter for kept in waiting if _is_wanted(kept, head, wants)]
        named = [kept.letter for kept in waiting if kept.letter.id == letter_id and kept.letter not in wanted]
        delivery = reader.read(head, [*named, *wanted][:AT_ONCE], self._now())
        if delivery.move is not None:
            self._move(head, delivery.move)
        for settled in delivery.settled:
            kept = self.letters[settled.letter_id]
            kept.fate, kept.reason, kept.saga_id = settled.fate, settled.reason, head.id
            kept.letter = kept.letter._replace(due_at=None)
        return delivery

    def _bind(self, head: Head) -> None:
        mine = [address_of(SAGA, head.id)]
        if not head.status.is_terminal:
            mine.append(address_of(AGGREGATION, head.aggregation_id))
        for kept in self.letters.values():
            is_mine = kept.saga_id == head.id or (kept.saga_id is None and kept.letter.address in mine)
            if is_mine and kept.fate is Fate.BUFFERED:
                kept.saga_id, kept.letter = head.id, kept.letter._replace(due_at=None)

    async def route(self, saga_id: UUID, correlations: Sequence[str]) -> None:
        await asyncio.sleep(0)
        self.routes |= {(name, saga_id) for name in correlations}

    async def due(self, claimable: Claimable, limit: int) -> list[tuple[UUID, str]]:
        await asyncio.sleep(0)
        now = self._now()
        due = [kept for kept in self.letters.values() if kept.letter.due_at is not None and kept.letter.due_at <= now]
        late = [kept.letter for kept in due if self._is_for(claimable, kept)]
        return [(letter.id, letter.address) for letter in sorted(late, key=lambda letter: letter.due_at or now)][:limit]

    def _is_for(self, claimable: Claimable, kept: Kept) -> bool:
        head = self._heads.get(kept.saga_id) if kept.saga_id is not None else None
        return head is None or head.definition_version in claimable.versions.get(head.saga_name, ())

    async def defer(self, letter_id: UUID, until: datetime) -> None:
        await asyncio.sleep(0)
        kept = self.letters.get(letter_id)
        if kept is not None and kept.letter.due_at is not None and kept.fate is Fate.BUFFERED:
            kept.letter = kept.letter._replace(due_at=until)

    async def shelve(self, letter_id: UUID, patient: bool = True) -> None:
        await asyncio.sleep(0)
        if (kept := self.letters.get(letter_id)) is not None and kept.saga_id is None:
            kept.letter = kept.letter._replace(due_at=None)

    async def purge(self, before: datetime) -> None:
        await asyncio.sleep(0)
        for letter_id in [i for i, kept in self.letters.items() if kept.letter.received_at < before]:
            del self.letters[letter_id]
        over = [h.id for h in self._heads.values() if h.finished_at is not None and h.finished_at < before]
        self.routes = {(name, saga_id) for name, saga_id in self.routes if saga_id not in over}

    def forget(self, saga_ids: Iterable[UUID]) -> None:
        """Forget what was sent to sagas, and what they have waited for."""
        gone = set(saga_ids)
        addresses = {address_of(SAGA, each) for each in gone}
        kept = self.letters.items()
        self.letters = {i: k for i, k in kept if k.saga_id not in gone and k.letter.address not in addresses}
        self.routes = {(name, saga_id) for name, saga_id in self.routes if saga_id not in gone}


def _key(letter: Letter) -> tuple[str, str, str | None]:
    return letter.address, letter.type, letter.event_id


def _is_wanted(kept: Kept, head: Head, wants: Sequence[Want]) -> bool:
    letter = kept.letter
    correlated = [address_of(CORRELATION, want.correlation) for want in wants if want.correlation is not None]
    if kept.saga_id != head.id and letter.address not in correlated:
        return False
    return any(letter.type in types and correlation in (None, letter.correlation_id) for types, correlation in wants)
