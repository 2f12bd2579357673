"""Reading together: the histories that many claimed sagas need at the same moment are read in one query."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

from .database_errors import is_passing
from .rows import HistoryRow

Histories = dict[UUID, list[HistoryRow]]


class GroupRead:
    """Lets all who ask in one turn of the event loop share one read."""

    def __init__(self, read: Callable[[Iterable[UUID]], Awaitable[Histories]]) -> None:
        self._read = read
        self._wanted: set[UUID] = set()
        self._turn: asyncio.Task[Histories] | None = None

    async def read(self, saga_ids: Iterable[UUID]) -> Histories:
        """Return the history of each of the sagas."""
        wanted = list(saga_ids)
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_task(self._read_together())
            self._turn.add_done_callback(_note)
        self._wanted.update(wanted)
        try:
            found = await asyncio.shield(self._turn)
        except Exception as error:
            if is_passing(error):
                raise
            found = await self._read(wanted)  # it may be another's history that cannot be read
        return {saga_id: found[saga_id] for saga_id in wanted}

    async def _read_together(self) -> Histories:
        await asyncio.sleep(0)
        wanted, self._wanted, self._turn = self._wanted, set(), None
        return await self._read(wanted)


def _note(turn: asyncio.Task[Histories]) -> None:
    """Take note of an error even if all who asked have gone."""
    if not turn.cancelled():
        turn.exception()
