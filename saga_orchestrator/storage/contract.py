"""The store's contract: the few operations by which sagas are read and moved.

Each operation is one transaction. What is true once it returns is said at each; `testing.StoreContract` holds every
store to it. All of them lock before they decide, and compare before they write: the lock avoids wasted work, the
comparison of `revision` (and of the execution token) makes the result right even where a database has no such lock,
as SQLite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from .inbox import Inbox
from .retention import Bygone
from .rows import Birth, Claimable, Head, HistoryRow, Judge, Move, SagaFilter, Write, Written
from .transaction import Transaction


class Store(Protocol):
    """Where sagas live."""

    @property
    def inbox(self) -> Inbox:
        """Where events wait for the sagas."""
        ...

    async def write(self, batch: Sequence[Write]) -> list[Written]:
        """Write every item of the batch, each on its own merits. A saga has at most one item in it.

        When it returns, everything answered DONE is durable, rows and history together, and nothing else has changed.
        An item written by an earlier call whose answer was lost is answered DONE again. A row that somebody else's
        transaction holds is not waited for: its item is answered BUSY. Raises when some item cannot
        be written at all, with none of the moves written: the caller then splits the batch. (Some of its births may
        stand by then, as if their answer had been lost.)
        """
        ...

    async def advance(self, saga_id: UUID, judge: Judge) -> tuple[Head, Move | None]:
        """Lock the saga, let the judge decide, and write what it says in the same transaction.

        Raises:
            SagaNotFoundError: No saga has this id.
        """
        ...

    async def claim(self, claimable: Claimable, limit: int, judge: Judge) -> list[tuple[Head, Move]]:
        """Lock and judge up to `limit` due sagas that the claimer can run, by priority, then longest due first.

        Sagas that others have locked are passed over. One whose row defies being read or written is set aside as
        STUCK, and stops none of the others. When it returns, every pair is durable.
        """
        ...

    def transaction(self, seconds: float | None = None) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction for a step: committed at the end, and nothing of it there after an error.

        Args:
            seconds: How long the step may take; a server ends a transaction that is idle for longer.
        """
        ...

    async def renew(self, owner: str, saga_ids: Iterable[UUID], until: datetime) -> dict[UUID, int]:
        """Extend the lease of every saga that the owner still has, and return the revisions of those.

        A lease that lasts longer already is left alone: a renewal that was long under way never shortens one.
        Rows locked by others are passed over: a renewal never waits.
        """
        ...

    async def disown(self, owner: str, tokens: Mapping[UUID, UUID]) -> set[UUID]:
        """Take an owner's name off the rows that are still as it has claimed them; a lease stays as long as it is.

        Args:
            tokens: The token of each claim, by saga.

        Returns:
            The sagas whose rows were locked by others, and passed over.
        """
        ...

    async def show(self, owner: str, progress: Mapping[UUID, str]) -> None:
        """Have the rows of sagas that the owner still has say how far their steps have come, each a JSON text.

        Nothing else of a row changes, its revision neither. Rows locked by others are passed over.
        """
        ...

    async def head(self, saga_id: UUID) -> Head | None:
        """Return the saga's row without locking it, or None."""
        ...

    async def heads(
        self, wanted: SagaFilter, limit: int, before: UUID | None, seconds: float | None = None
    ) -> list[Head]:
        """Return sagas, newest first, from before the given id on; in so many seconds, instead of the usual time."""
        ...

    async def history(self, saga_ids: Iterable[UUID]) -> dict[UUID, list[HistoryRow]]:
        """Return the history of each of the sagas, oldest row first."""
        ...

    async def rival(self, birth: Birth) -> Head | None:
        """Return the saga that holds what this birth wanted: by idempotency key first, then by active aggregate."""
        ...

    async def started(self, saga_name: str, idempotency_key: str) -> Head | None:
        """Return the saga of this name that was started under this key, or None."""
        ...

    async def next_due(self, claimable: Claimable) -> datetime | None:
        """Return when the next saga that the claimer can run is due, or None."""
        ...

    async def now(self, session: Any | None = None) -> datetime:
        """Return the database's time: the one clock by which leases are judged.

        With a caller's session it is asked on the connection of that session, and on no other.
        """
        ...

    async def add(self, session: Any, birth: Birth) -> tuple[Head | None] | None:
        """Insert the saga in the caller's own transaction; nothing of it stays if the caller rolls back.

        Returns None, or, when something stands in its way, a tuple of that saga's row (None if it is invisible to the
        caller's transaction, or gone again). The caller's transaction can go on either way.
        """
        ...

    async def purge(self, bygone: Bygone, limit: int, seconds: float | None = None) -> int:
        """Delete up to `limit` sagas that are over, oldest first, with all that is theirs; return how many.

        It may take so many seconds, instead of the usual time.

        Their history, their letters and their routes go with them, in the same transaction; their keys are free again.
        Left alone are those that are due, that somebody has locked, that have completed and can still be undone, that
        have a parent (which goes first), and that have an active child.
        """
        ...

    async def aclose(self) -> None:
        """Give back every connection."""
        ...
