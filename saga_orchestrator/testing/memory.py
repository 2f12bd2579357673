"""Sagas in memory: the store's contract without a database.

Between reading and writing it lets others run, as a database would, so that it can lose the same races: whoever
forgets to compare the revision is found out here too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

from ..errors import ActiveSagaAlreadyExistsError, SagaError, SagaNotFoundError, SagaStateError
from ..kernel.state import SagaStatus
from ..storage.retention import Bygone
from ..storage.rows import Birth, Claimable, Head, HistoryRow, Judge, Move, Ownership, SagaFilter, Write, Written
from .memory_inbox import MemoryInbox
from .memory_retention import bygones

T = TypeVar("T")


class MemoryStore:
    """Sagas that live as long as this object. Several engines may share it, as processes share a database.

    Args:
        now: The time; the machine's by default.
    """

    has_sessions = False
    """It has none for a transactional step to write by, so such a step is refused when it is registered."""

    def __init__(self, now: Callable[[], datetime] | None = None) -> None:
        self._now = now or (lambda: datetime.now(UTC))
        self.rows: dict[UUID, Head] = {}
        self.past: dict[UUID, list[HistoryRow]] = {}
        self.inbox = MemoryInbox(self.rows, self._move, self._now)

    async def write(self, batch: Sequence[Write]) -> list[Written]:
        await asyncio.sleep(0)
        with self._all_or_nothing(batch):
            answers = [self._write(item) for item in batch]
        await asyncio.sleep(0)
        return answers

    @contextmanager
    def _all_or_nothing(self, batch: Sequence[Write]) -> Iterator[None]:
        """Undo what a batch has written when one of its items cannot be."""
        ids = [item.head.id if isinstance(item, Birth) else item.saga_id for item in batch]
        before = [(i, self.rows.get(i), self.past.get(i)) for i in ids]
        letters = dict(self.inbox.letters)
        try:
            yield
        except Exception:
            for saga_id, head, past in before:
                _put_back(self.rows, saga_id, head)
                _put_back(self.past, saga_id, past)
            self.inbox.letters = letters
            raise

    def _write(self, item: Write) -> Written:
        if isinstance(item, Birth):
            return self._insert(item)
        head = self.rows.get(item.saga_id)
        if head is None:
            return Written.FENCED
        token = item.token if item.ownership is None else item.ownership.token
        if (head.revision, head.step_execution_token, head.state) == (item.revision + 1, token, item.state):
            return Written.DONE
        if head.step_execution_token != item.token:
            return Written.FENCED
        if head.revision != item.revision:
            return Written.CONFLICT
        self._move(head, item)
        return Written.DONE

    def _insert(self, birth: Birth) -> Written:
        if birth.head.id in self.rows:
            return Written.DONE
        if self._rival(birth.head) is not None:
            return Written.TAKEN
        _refuse_stranded(birth.head)
        self.rows[birth.head.id] = birth.head
        self.past[birth.head.id] = []
        return Written.DONE

    def _rival(self, born: Head) -> Head | None:
        others = [head for head in self.rows.values() if head.id != born.id]
        for head in others:
            if born.idempotency_key is not None and _key(head) == _key(born):
                return head
        active = (h for h in others if h.aggregation_id == born.aggregation_id and not h.status.is_terminal)
        return next(active, None)

    def _move(self, head: Head, move: Move) -> None:
        moved = replace(
            head,
            revision=move.revision + 1,
            status=move.status,
            state=move.state,
            current_step_index=move.current_step_index,
            retry_counter=move.retry_counter,
            last_error=move.last_error,
            updated_at=move.updated_at,
        )
        if move.ownership is not None:
            token, owner, deadline, awaiting, finished = move.ownership
            moved = replace(
                moved,
                step_execution_token=token,
                lease_owner=owner,
                deadline_at=deadline,
                awaiting=awaiting,
                finished_at=finished,
            )
        if not moved.status.is_terminal and (rival := self._rival(moved)) is not None:
            raise ActiveSagaAlreadyExistsError(moved.aggregation_id, rival.id)
        _refuse_stranded(moved)
        past = [*self.past[head.id], *move.rows()]
        if len({row.seq for row in past}) != len(past):
            raise SagaStateError(f"Saga {head.id} has this history already.")
        self.rows[head.id] = moved
        self.past[head.id] = sorted(past, key=lambda row: row.seq)
        for letter in move.letters:
            self.inbox.keep(letter)

    async def advance(self, saga_id: UUID, judge: Judge) -> tuple[Head, Move | None]:
        while True:
            if (head := self.rows.get(saga_id)) is None:
                raise SagaNotFoundError(saga_id)
            move = judge(head, self._now())
            await asyncio.sleep(0)
            if self.rows.get(saga_id) is head:
                if move is not None:
                    self._move(head, move)
                return head, move

    async def claim(self, claimable: Claimable, limit: int, judge: Judge) -> list[tuple[Head, Move]]:
        now = self._now()
        due = [head for head in self.rows.values() if _is_due(head, claimable, now)]
        due.sort(key=lambda head: (-head.priority, head.deadline_at))
        judged = [(head, judge(head, now)) for head in due[: max(limit, 0)]]
        await asyncio.sleep(0)
        return [(h, m) for h, m in judged if m is not None and self.rows.get(h.id) is h and self._claimed(h, m)]

    def _claimed(self, head: Head, move: Move) -> bool:
        """Write one claim; a saga whose claim cannot be written is set aside for a person."""
        try:
            self._move(head, move)
        except SagaError as error:
            aside = Ownership(uuid4(), None, None, "operator", None)
            why = f"quarantined: {error}"
            stuck = (SagaStatus.STUCK, head.state, head.current_step_index, head.retry_counter, why, head.updated_at)
            self._move(head, Move(head.id, head.revision, head.step_execution_token, *stuck, aside, ()))
            return False
        return True

    @asynccontextmanager
    async def transaction(self, seconds: float | None = None) -> AsyncIterator[MemoryTransaction]:
        """Open a transaction for a step; what it has to do in it is done at its end, with the saga's move."""
        opened = MemoryTransaction(self.advance)
        yield opened
        await opened.commit()

    async def renew(self, owner: str, saga_ids: Iterable[UUID], until: datetime) -> dict[UUID, int]:
        await asyncio.sleep(0)
        mine = [h for i in saga_ids if (h := self.rows.get(i)) is not None and h.lease_owner == owner]
        for head in mine:
            self.rows[head.id] = replace(head, deadline_at=max(until, head.deadline_at or until))
        return {head.id: head.revision for head in mine}

    async def disown(self, owner: str, tokens: Mapping[UUID, UUID]) -> set[UUID]:
        await asyncio.sleep(0)
        for saga_id, token in tokens.items():
            head = self.rows.get(saga_id)
            if head is not None and (head.lease_owner, head.step_execution_token) == (owner, token):
                self.rows[saga_id] = replace(head, lease_owner=None)
        return set()

    async def show(self, owner: str, progress: Mapping[UUID, str]) -> None:
        await asyncio.sleep(0)
        for saga_id, text in progress.items():
            if (head := self.rows.get(saga_id)) is not None and head.lease_owner == owner:
                self.rows[saga_id] = replace(head, progress=text)

    async def head(self, saga_id: UUID) -> Head | None:
        await asyncio.sleep(0)
        return self.rows.get(saga_id)

    async def heads(
        self, wanted: SagaFilter, limit: int, before: UUID | None, seconds: float | None = None
    ) -> list[Head]:
        await asyncio.sleep(0)
        newest_first = sorted(self.rows.values(), key=lambda head: head.id, reverse=True)
        return [h for h in newest_first if _matches(h, wanted) and (before is None or h.id < before)][:limit]

    async def history(self, saga_ids: Iterable[UUID]) -> dict[UUID, list[HistoryRow]]:
        await asyncio.sleep(0)
        return {saga_id: list(self.past.get(saga_id, ())) for saga_id in saga_ids}

    async def rival(self, birth: Birth) -> Head | None:
        await asyncio.sleep(0)
        return self._rival(birth.head)

    async def started(self, saga_name: str, idempotency_key: str) -> Head | None:
        await asyncio.sleep(0)
        return next((head for head in self.rows.values() if _key(head) == (saga_name, idempotency_key)), None)

    async def next_due(self, claimable: Claimable) -> datetime | None:
        timed = [head for head in self.rows.values() if _is_known(head, claimable)]
        return min((head.deadline_at for head in timed if head.deadline_at is not None), default=None)

    async def now(self, session: object = None) -> datetime:
        return self._now()

    async def add(self, session: Any, birth: Birth) -> tuple[Head | None] | None:
        """Insert the saga: with what else a step's transaction does, or at once, for memory knows no caller's own."""
        if isinstance(session, list) and self._rival(birth.head) is None:
            session.append(partial(self._insert, birth))
            return None
        return (self._rival(birth.head),) if self._insert(birth) is Written.TAKEN else None

    async def purge(self, bygone: Bygone, limit: int, seconds: float | None = None) -> int:
        await asyncio.sleep(0)
        gone = bygones(self.rows, bygone, self._now())[:limit]
        for saga_id in gone:
            self._delete(saga_id)
        self.inbox.forget(gone)
        return len(gone)

    def _delete(self, saga_id: UUID) -> None:
        del self.rows[saga_id], self.past[saga_id]

    async def aclose(self) -> None:
        return None


class MemoryTransaction:
    """A step's transaction. Its session is a list of what is to be done when the saga is moved, and not before."""

    def __init__(self, advance: Callable[[UUID, Judge], Awaitable[Any]]) -> None:
        self.session: list[Callable[[], object]] = []
        self._advance = advance
        self._settled: tuple[UUID, Judge] | None = None
        self.longest: float | None = None
        self.may_stand = False
        self.conflict: BaseException | None = None

    async def settle(self, likely: Move, judge: Judge) -> None:
        self._settled = likely.saga_id, judge

    async def commit(self) -> None:
        if self._settled is not None:
            await self._advance(*self._settled)
            for deed in self.session:
                deed()


def _refuse_stranded(head: Head) -> None:
    if not head.status.is_terminal and head.deadline_at is None and head.awaiting is None:
        raise SagaStateError(f"Saga {head.id} would be active and neither due nor awaiting anything.")


def _put_back(where: dict[UUID, T], key: UUID, value: T | None) -> None:
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value


def _key(head: Head) -> tuple[str, str | None]:
    return head.saga_name, head.idempotency_key


def _is_known(head: Head, claimable: Claimable) -> bool:
    return head.definition_version in claimable.versions.get(head.saga_name, ())


def _is_due(head: Head, claimable: Claimable, now: datetime) -> bool:
    return _is_known(head, claimable) and head.deadline_at is not None and head.deadline_at <= now


def _matches(head: Head, wanted: SagaFilter) -> bool:
    names = ("saga_name", "aggregation_id", "trace_id", "awaiting")
    return (
        all(getattr(wanted, name) in (None, getattr(head, name)) for name in names)
        and (wanted.status is None or head.status in wanted.status)
        and (wanted.created_after is None or head.created_at >= wanted.created_after)
        and (wanted.created_before is None or head.created_at < wanted.created_before)
    )
