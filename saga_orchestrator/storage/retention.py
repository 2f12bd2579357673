"""Retention: sagas that are over are deleted when nobody can need them any more.

Who may need a saga that is over? A hook that is still to be called: the saga is due. An operator, while its undo window
is open. And its parent, who finds it by its key, and would take one that is gone for one that never began: it would be
undone without its child, and say so falsely. So a family goes from the top: a saga goes after its parent, never before;
and a parent goes when none of its children is active.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, delete, false, not_, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..kernel.state import SagaStatus
from ..kernel.value import value
from .companions import WAITS, history_table, inbox_table, route_table
from .dialect import SqlDialect, through_contention
from .inbox import SAGA, address_of
from .mixins import ACTIVE

_FIRST = datetime.min.replace(tzinfo=UTC)


@value(frozen=True, slots=True, kw_only=True)
class Bygone:
    """Which of the sagas that are over may go.

    Attributes:
        older_than: For how long they have been over, by the database's clock.
        statuses: How they have ended.
        saga_name: None means any.
        undo_windows: For how long one that has COMPLETED can be undone, by name and version of its definition.
        unregistered: Whether one that has COMPLETED may go if its definition is not among those.
    """

    older_than: timedelta
    statuses: frozenset[SagaStatus]
    saga_name: str | None = None
    undo_windows: Mapping[tuple[str, int], timedelta] = field(default_factory=dict)
    unregistered: bool = False

    def open_windows(self) -> dict[tuple[str, int], timedelta]:
        """Return the windows that may still be open when a saga is old enough."""
        return {of: window for of, window in self.undo_windows.items() if window >= self.older_than}


def ago(now: datetime, age: timedelta) -> datetime:
    """Return a moment in the past; of an age that no calendar holds, the first moment of all."""
    return now - min(age, now - _FIRST)


class SagaRetention:
    """Lets go of the sagas of one model, in one database."""

    def __init__(self, head: Table, engine: AsyncEngine, dialect: SqlDialect) -> None:
        self._head, self._engine, self._dialect = head, engine, dialect
        self._inbox, self._owned = inbox_table(head), (history_table(head), inbox_table(head), route_table(head))

    async def purge(self, bygone: Bygone, limit: int, seconds: float | None = None) -> int:
        """Delete sagas; see `contract.Store.purge`."""
        return await through_contention(partial(self._purge, bygone, limit, seconds))

    async def _purge(self, bygone: Bygone, limit: int, seconds: float | None) -> int:
        async with self._dialect.writing(self._engine, seconds) as connection:
            now = (await connection.execute(select(self._dialect.now()))).scalar_one()
            ids = (await connection.execute(self._chosen(bygone, now, limit))).scalars().all()
            if ids:
                await self._delete(connection, ids)
        return len(ids)

    async def _delete(self, connection: AsyncConnection, ids: Sequence[UUID]) -> None:
        """Delete sagas and all that is theirs: not every database minds the foreign keys' ON DELETE CASCADE."""
        letter = self._inbox.c
        unread = and_(letter.saga_id.is_(None), letter.address.in_([address_of(SAGA, each) for each in ids]))
        await connection.execute(delete(self._inbox).where(unread, text(WAITS)))
        for table in self._owned:
            await connection.execute(delete(table).where(table.c.saga_id.in_(ids)))
        await connection.execute(delete(self._head).where(self._head.c.id.in_(ids)))

    def _chosen(self, bygone: Bygone, now: datetime, limit: int) -> Select[Any]:
        """Return the locking read of the sagas to delete, oldest first (ids are time-ordered)."""
        head = self._head.c
        chosen = select(head.id).where(
            head.status.in_(bygone.statuses),
            head.finished_at <= ago(now, bygone.older_than),
            head.deadline_at.is_(None),
            or_(head.status != SagaStatus.COMPLETED, self._is_settled(bygone, now)),
            self._is_nobodys(),
        )
        if bygone.saga_name is not None:
            chosen = chosen.where(head.saga_name == bygone.saga_name)
        return chosen.order_by(head.id).limit(limit).with_for_update(skip_locked=True)

    def _is_settled(self, bygone: Bygone, now: datetime) -> ColumnElement[bool]:
        """Return whether a saga that has completed can no longer be undone."""
        finished = self._head.c.finished_at
        reopens = [and_(self._is_of(*of), finished >= ago(now, window)) for of, window in bygone.open_windows().items()]
        settled = not_(or_(false(), *reopens))
        known = or_(false(), *(self._is_of(*of) for of in bygone.undo_windows))
        return settled if bygone.unregistered else and_(known, settled)

    def _is_of(self, saga_name: str, version: int) -> ColumnElement[bool]:
        head = self._head.c
        return and_(head.saga_name == saga_name, head.definition_version == version)

    def _is_nobodys(self) -> ColumnElement[bool]:
        """Return whether a saga's parent is gone, if it had one, and no child of its is active."""
        head, parent, child = self._head.c, self._head.alias(), self._head.alias()
        below = select(parent.c.id).where(parent.c.id == head.parent_id).exists()
        active = select(child.c.id).where(child.c.parent_id == head.id, text(ACTIVE)).exists()
        return and_(not_(below), not_(active))
