"""Group commit: the transitions of all the sagas that a process drives share their transactions.

A durable step costs a commit, and a commit costs a disk's and a network's time whatever is in it. So a writer does not
write: it queues its item and waits. One leader takes what has queued, writes it as one batch, and answers everybody;
what arrives meanwhile is the next batch. No delay is added: with one saga in flight every batch has one item, with
hundreds the batches fill by themselves. Nobody is answered before its item is durable.

A batch has at most one write of a saga: within one transaction a second could not be compared with the first.

A batch that fails is tried again if the error passes (a deadlock, a lost connection), and otherwise split, until the
one poisonous item fails alone. (The idea: DeWitt et al., "Implementation Techniques for Main Memory Database
Systems", 1984.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

from .dialect import is_passing
from .rows import Birth, Write, Written

_Queued = tuple[Write, "asyncio.Future[Written]"]
_PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between tries while the database is away; the last one repeats."""


class GroupCommit:
    """Batches the writes of one process.

    Args:
        write: Writes a batch in one transaction.
        patience: How long a batch is tried again while its error is a passing one.
        max_batch: How many items share a transaction at most.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Write]], Awaitable[list[Written]]],
        *,
        patience: timedelta = timedelta(seconds=30),
        max_batch: int = 128,
    ) -> None:
        self._write_batch = write
        self._patience = patience.total_seconds()
        self._max_batch = max_batch
        self._queue: deque[_Queued] = deque()
        self._leader: asyncio.Task[None] | None = None

    def submit(self, item: Write) -> asyncio.Future[Written]:
        """Queue a write; the future is answered once it is durable, or has failed for good."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Written] = loop.create_future()
        self._queue.append((item, answer))
        if self._leader is None:
            self._leader = loop.create_task(self._lead(), name="saga-group-commit")
        return answer

    async def aclose(self) -> None:
        """Wait until everything queued is answered."""
        while self._leader is not None:
            await asyncio.wait([self._leader])

    async def _lead(self) -> None:
        batch: list[_Queued] = []
        try:
            while self._queue:
                batch = self._next_batch()
                await self._flush(batch)
        finally:
            self._leader = None
            for _, answer in (*batch, *self._queue):  # those that have been answered cannot be cancelled any more
                answer.cancel()
            self._queue.clear()

    def _next_batch(self) -> list[_Queued]:
        """Take what has queued, in order; a saga's second write waits for the next batch."""
        batch: list[_Queued] = []
        waiting: list[_Queued] = []
        sagas: set[UUID] = set()
        while self._queue and len(batch) < self._max_batch:
            queued = self._queue.popleft()
            item = queued[0]
            saga_id = item.head.id if isinstance(item, Birth) else item.saga_id
            (waiting if saga_id in sagas else batch).append(queued)
            sagas.add(saga_id)
        self._queue.extendleft(reversed(waiting))
        return batch

    async def _flush(self, batch: list[_Queued]) -> None:
        try:
            written = await self._try([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - it is handed to those who wait
            await self._split(batch, error)
            return
        for (_, answer), outcome in zip(batch, written, strict=True):
            if not answer.done():
                answer.set_result(outcome)

    async def _split(self, batch: list[_Queued], error: Exception) -> None:
        """Find the item that cannot be written, and let it alone fail."""
        if len(batch) == 1 or is_passing(error):
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        middle = len(batch) // 2
        await self._flush(batch[:middle])
        await self._flush(batch[middle:])

    async def _try(self, items: list[Write]) -> list[Written]:
        """Write a batch; while the error passes, again and again, until patience ends."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        for attempt in range(10**9):
            try:
                return await self._write_batch(items)
            except Exception as error:
                if not is_passing(error) or loop.time() > give_up:
                    raise
                await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        raise AssertionError("unreachable")
