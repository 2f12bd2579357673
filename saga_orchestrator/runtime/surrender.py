"""Sagas that this process has given up because of the database, and not because of anything that they did.

A driver that cannot commit, a lease that cannot be renewed, a claim without an answer: each leaves a row that names
this process as its owner. The next owner takes such a row for that of a crash, and too many crashes make a saga STUCK.
So the engine remembers which of its claims it has given up. When it claims such a saga itself it counts no crash. For
other processes it takes its name off the row, as soon as the database answers. The lease stays as long as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from loguru import logger

from ..storage.database_errors import is_passing
from ..storage.rows import Head, Judge, Move
from .background import cut_off

_PAUSES = (0.0, 0.05, 0.2, 0.5, 1.0)
"""Seconds before the next try to write; the last one is for all further tries."""
_MOST = 100_000
"""How many sagas are remembered; of more the oldest are forgotten, and count as those of a crash."""


class Surrenders:
    """What one engine has given up because of the database.

    Args:
        owner: The engine's name in the rows.
        disown: Takes the owner's name off rows; see `Store.disown`.
    """

    def __init__(self, owner: str, disown: Callable[[str, Mapping[UUID, UUID]], Awaitable[set[UUID]]]) -> None:
        self._owner = owner
        self._disown = disown
        self._tokens: dict[UUID, UUID] = {}
        self._tries = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, saga_id: UUID, token: UUID | None) -> None:
        """Remember that this claim has been given up."""
        if token is None:
            return
        self._tokens.pop(saga_id, None)
        self._tokens[saga_id] = token
        self._tries = 0
        if len(self._tokens) > _MOST:
            del self._tokens[next(iter(self._tokens))]
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._tell(), name="saga-surrenders")

    def has(self, head: Head) -> bool:
        """Return whether the row is such as this engine has left it when it gave the saga up."""
        is_own = head.lease_owner == self._owner and head.step_execution_token is not None
        return is_own and self._tokens.get(head.id) == head.step_execution_token

    @contextmanager
    def noting(self) -> Iterator[Callable[[Head, Move | None], None]]:
        """Lend a function that is told of each move of a call; when the call fails, what it has claimed is given up."""
        claimed: dict[UUID, UUID | None] = {}

        def note(head: Head, move: Move | None) -> None:
            if move is not None and move.ownership is not None and move.ownership.lease_owner == self._owner:
                claimed[head.id] = move.ownership.token

        try:
            yield note
        except Exception as error:
            if is_passing(error):
                for saga_id, token in claimed.items():
                    self.add(saga_id, token)
            raise

    @contextmanager
    def heeding(self, judge: Judge) -> Iterator[Judge]:
        """Lend a judge; when the call that uses it fails, what it has given to this engine is given up."""
        with self.noting() as note:

            def heed(head: Head, now: datetime) -> Move | None:
                move = judge(head, now)
                note(head, move)
                return move

            yield heed

    async def aclose(self) -> None:
        """Tell the database a last time; what it does not take runs out as if this engine had crashed."""
        await cut_off(self._task)
        if self._tokens:
            await self._tell_of(dict(self._tokens))

    async def _tell(self) -> None:
        """Take this engine's name off the rows, until none is left."""
        try:
            while self._tokens:
                await asyncio.sleep(_PAUSES[min(self._tries, len(_PAUSES) - 1)])
                self._tries += 1
                await self._tell_of(dict(self._tokens))
        finally:
            self._task = None

    async def _tell_of(self, tokens: Mapping[UUID, UUID]) -> None:
        """Tell of all of them at once: each may have a lease that is about to end."""
        try:
            left = await self._disown(self._owner, tokens)
        except Exception as error:  # noqa: BLE001 - whatever it is, the leases run out
            if is_passing(error):
                return
            logger.warning("{} sagas are left to their leases: {}", len(tokens), type(error).__name__)
            left = set()
        for saga_id, token in tokens.items():
            if saga_id not in left and self._tokens.get(saga_id) == token:
                del self._tokens[saga_id]
