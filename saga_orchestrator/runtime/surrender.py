"""Sagas that this process has given up because of the database, and not because of anything that they did.

A driver that cannot commit, a lease that cannot be renewed, a claim without an answer: each leaves a row that names
this process as its owner. The next owner takes such a row for that of a crash, and too many crashes make a saga STUCK.
So the engine remembers which of its claims it has given up. When it claims such a saga itself it counts no crash. For
other processes it takes its name off the row, as soon as the database answers. The lease stays as long as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from loguru import logger

from ..storage.database_errors import is_passing
from ..storage.rows import Head, Judge, Move, Ownership
from .background import cut_off

_PAUSE = 1.0
"""Seconds between two tries to write."""
_MOST = 100_000
"""How many sagas are remembered; of more the oldest are forgotten, and count as those of a crash."""


class Surrenders:
    """What one engine has given up because of the database.

    Args:
        owner: The engine's name in the rows.
        advance: Applies a judge to one saga, durably.
    """

    def __init__(self, owner: str, advance: Callable[[UUID, Judge], Awaitable[object]]) -> None:
        self._owner = owner
        self._advance = advance
        self._tokens: dict[UUID, UUID] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, saga_id: UUID, token: UUID | None) -> None:
        """Remember that this claim has been given up."""
        if token is None:
            return
        self._tokens.pop(saga_id, None)
        self._tokens[saga_id] = token
        if len(self._tokens) > _MOST:
            del self._tokens[next(iter(self._tokens))]
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._tell(), name="saga-surrenders")

    def has(self, head: Head) -> bool:
        """Return whether the row is such as this engine has left it when it gave the saga up."""
        is_own = head.lease_owner == self._owner and head.step_execution_token is not None
        return is_own and self._tokens.get(head.id) == head.step_execution_token

    @contextmanager
    def heeding(self, judge: Judge) -> Iterator[Judge]:
        """Lend a judge; when the call that uses it fails, what it has given to this engine is given up."""
        claimed: dict[UUID, UUID | None] = {}

        def heed(head: Head, now: datetime) -> Move | None:
            move = judge(head, now)
            if move is not None and move.ownership is not None and move.ownership.lease_owner == self._owner:
                claimed[head.id] = move.ownership.token
            return move

        try:
            yield heed
        except Exception as error:
            if is_passing(error):
                for saga_id, token in claimed.items():
                    self.add(saga_id, token)
            raise

    async def aclose(self) -> None:
        """Tell the database no more; leases that name this engine still run out as if it had crashed."""
        await cut_off(self._task)

    async def _tell(self) -> None:
        """Take this engine's name off the rows, until none is left."""
        try:
            while self._tokens:
                await asyncio.sleep(_PAUSE)
                for saga_id, token in tuple(self._tokens.items()):
                    await self._tell_of(saga_id, token)
        finally:
            self._task = None

    async def _tell_of(self, saga_id: UUID, token: UUID) -> None:
        try:
            await self._advance(saga_id, judge_surrender(self._owner, token))
        except Exception as error:  # noqa: BLE001 - whatever it is, the lease runs out
            if is_passing(error):
                return
            logger.warning("saga {}: it is left to its lease: {}", saga_id, type(error).__name__)
        if self._tokens.get(saga_id) == token:
            del self._tokens[saga_id]


def judge_surrender(owner: str, token: UUID) -> Judge:
    """Return the judge that takes an owner's name off a row, if the row is still as that owner has claimed it.

    The saga is due when its lease ends, and not before: until then a step that was cut off may still be at work.
    """

    def judge(head: Head, now: datetime) -> Move | None:
        if head.step_execution_token != token or head.lease_owner != owner:
            return None
        ownership = Ownership(token, None, head.deadline_at, head.awaiting, head.finished_at)
        place = head.current_step_index, head.retry_counter
        return Move(head.id, head.revision, token, head.status, head.state, *place, head.last_error, now, ownership, ())

    return judge
