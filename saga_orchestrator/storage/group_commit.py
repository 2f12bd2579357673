"""Group commit: the transitions of all the sagas that a process drives share their transactions.

A durable step costs a commit, and a commit costs a disk's and a network's time whatever is in it. So a writer does not
write: it queues its item and waits. One leader takes what has queued, writes it as one batch, and answers everybody;
what arrives meanwhile is the next batch. No delay is added: with one saga in flight every batch has one item, with
hundreds the batches fill by themselves. Nobody is answered before its item is durable.

A batch has at most one write of a saga: within one transaction a second could not be compared with the first.

Nobody waits because of another's saga. A row that somebody else's transaction holds, however long, keeps only its own
write waiting: that one leaves the batch, and comes back after a pause. A birth that another transaction is about to
forestall is found out by waiting a moment for it; from then on it goes alone, and takes turns with the others' batches.

A batch that fails is tried again if the error is the database's (a deadlock, a lost connection, a full disk), and
otherwise split, until the one poisonous item fails alone. One whose error is of an unknown kind is tried again, alone,
as long as patience lasts. (The idea: DeWitt et al., "Implementation Techniques for Main Memory Database
Systems", 1984.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from .database_errors import Fault, fault_of, is_blocked, is_of_the_schema, is_passing
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
        self._alone: deque[_Queued] = deque()
        self._leader: asyncio.Task[None] | None = None
        self._since: float | None = None
        """When the batch in flight was tried first."""
        self._busy: dict[asyncio.Future[Written], tuple[int, float]] = {}

    def submit(self, item: Write) -> asyncio.Future[Written]:
        """Queue a write; the future is answered once it is durable, or has failed for good."""
        answer: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._enqueue((item, answer))
        return answer

    def _enqueue(self, queued: _Queued) -> None:
        """Queue a write; a birth that has been blocked goes alone, for it makes the batch that it is in wait."""
        is_blocked_birth = bool(self._busy) and queued[1] in self._busy and isinstance(queued[0], Birth)
        (self._alone if is_blocked_birth else self._queue).append(queued)
        if self._leader is None:
            self._leader = asyncio.get_running_loop().create_task(self._lead(), name="saga-group-commit")

    def is_stuck(self) -> bool:
        """Return whether the batch in flight has made no progress for as long as patience lasts."""
        return self._since is not None and asyncio.get_running_loop().time() > self._since + self._patience

    async def aclose(self) -> None:
        """Wait until everything queued is answered."""
        while self._leader is not None or self._busy:
            await (asyncio.sleep(_PAUSES[1]) if self._leader is None else asyncio.wait([self._leader]))

    async def _lead(self) -> None:
        batch: list[_Queued] = []
        try:
            while self._queue or self._alone:
                if batch := self._next_batch():
                    await self._flush(batch)
                if self._alone:
                    batch = [self._alone.popleft()]
                    await self._flush(batch)
        except BaseException:  # the event loop ends; those that have been answered cannot be cancelled any more
            for _, answer in (*batch, *self._queue, *self._alone):
                answer.cancel()
                self._busy.pop(answer, None)
            self._queue.clear()
            self._alone.clear()
            raise
        finally:
            self._leader = None

    def _next_batch(self) -> list[_Queued]:
        """Take what has queued, in order; a saga's second write waits for the next batch."""
        batch: list[_Queued] = []
        waiting: list[_Queued] = []
        sagas: set[int] = set()
        while self._queue and len(batch) < self._max_batch:
            queued = self._queue.popleft()
            item = queued[0]
            before = len(sagas)
            sagas.add((item.head.id if isinstance(item, Birth) else item.saga_id).int)
            (batch if len(sagas) > before else waiting).append(queued)
        self._queue.extendleft(reversed(waiting))
        return batch

    async def _flush(self, batch: list[_Queued]) -> None:
        try:
            written = await self._try([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - it is handed to those who wait
            await self._split(batch, error)
            return
        for queued, outcome in zip(batch, written, strict=True):
            if outcome is Written.BUSY:
                self._come_back(queued, TimeoutError("somebody else's transaction holds the saga's row"))
            else:
                self._answer(queued, outcome)

    def _answer(self, queued: _Queued, outcome: Written | Exception) -> None:
        answer = queued[1]
        if self._busy:
            self._busy.pop(answer, None)
        if answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _come_back(self, queued: _Queued, error: Exception) -> None:
        """Let a write that somebody else blocks wait outside, for as long as patience lasts."""
        loop = asyncio.get_running_loop()
        tries, give_up = self._busy.get(queued[1], (0, loop.time() + self._patience))
        if queued[1].done() or loop.time() > give_up:
            self._answer(queued, error)
            return
        self._busy[queued[1]] = tries + 1, give_up
        loop.call_later(_PAUSES[min(tries + 1, len(_PAUSES) - 1)], self._enqueue, queued)

    async def _split(self, batch: list[_Queued], error: Exception) -> None:
        """Find the item that cannot be written, and let it alone fail, or wait."""
        if len(batch) == 1 and (is_blocked(error) or fault_of(error) is Fault.UNKNOWN):
            self._come_back(batch[0], error)
            return
        if is_of_the_schema(error):
            self._leave_to_a_person(batch, error)
            return
        if len(batch) == 1 or (is_passing(error) and not is_blocked(error)):
            for queued in batch:
                self._answer(queued, error)
            return
        middle = len(batch) // 2
        await self._flush(batch[:middle])
        await self._flush(batch[middle:])

    def _leave_to_a_person(self, batch: list[_Queued], error: Exception) -> None:
        """Tell a start at once that tables or rights are missing; let the moves of sagas at work wait for them."""
        for queued in batch:
            if isinstance(queued[0], Birth):
                self._answer(queued, error)
            else:
                self._come_back(queued, error)

    async def _try(self, items: list[Write]) -> list[Written]:
        """Write a batch; while the error passes, again and again, until patience ends."""
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        give_up = self._since + self._patience
        for attempt in range(10**9):
            try:
                written = await self._write_batch(items)
            except Exception as error:
                is_to_wait = is_passing(error) and not is_blocked(error) and not is_of_the_schema(error)
                if not is_to_wait or loop.time() > give_up:
                    self._since = None
                    raise
                await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            else:
                self._since = None
                return written
        raise AssertionError("unreachable")
