"""A transaction that a step works in: what it writes, and the record that it has, are committed together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from ..errors import SagaStateError
from .dialect import SqlDialect
from .rows import Judge, Move
from .statements import Statements, kept, kept_letter, locked, owned, past


class Transaction(Protocol):
    """A transaction in which a step works."""

    session: Any

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone, and with it all that was written."""
        ...

    async def settle(self, likely: Move, judge: Judge) -> None:
        """Write the likely move, if the saga is still where it begins; else lock it, and write what the judge says.

        What the judge raises ends the transaction.

        Raises:
            SagaNotFoundError: No saga has this id.
            SagaStateError: The step has ended the transaction itself.
        """
        ...


class SagaTransaction:
    """A transaction on the saga's own database.

    Args:
        move: Writes a saga's move in a transaction that holds its row.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        dialect: SqlDialect,
        sql: Statements,
        move: Callable[[AsyncConnection, Sequence[Move]], Awaitable[None]],
    ) -> None:
        self._connection, self._dialect, self._sql, self._move = connection, dialect, sql, move
        self.session = AsyncSession(bind=connection, expire_on_commit=False)
        self._root = connection.sync_connection.get_transaction() if connection.sync_connection else None
        self._ended = ""
        event.listen(self.session.sync_session, "before_commit", self._committed)
        event.listen(self.session.sync_session, "after_soft_rollback", self._rolled_back)

    async def settle(self, likely: Move, judge: Judge) -> None:
        if not self._ended:
            await self.session.flush()
        if not self._ended and not self._is_whole():
            self._ended = "rolled back"
        if self._ended:
            raise SagaStateError(
                f"the step has {self._ended} ctx.session itself, which is for the engine to commit, with the record of "
                "the step; nothing of it has been kept"
            )
        if await self._written(likely):
            return
        head, now = await locked(self._connection, self._sql.lock_one(self._dialect.now()), likely.saga_id)
        if (move := judge(head, now)) is not None:
            await self._move(self._connection, [move])

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone, and with it all that was written."""
        return self._connection.invalidated

    def _is_whole(self) -> bool:
        """Return whether it is still the transaction that was opened: a flush that fails rolls it back unasked."""
        now = self._connection.sync_connection and self._connection.sync_connection.get_transaction()
        return now is not None and now is self._root and now.is_active

    async def _written(self, move: Move) -> bool:
        """Write a move if it fits, without asking first."""
        statement, sent = (
            (self._sql.move_kept_if, kept(move)) if move.ownership is None else (self._sql.move_owned_if, owned(move))
        )
        moved = await self._connection.execute(statement, {**sent, "_was": move.revision, "_held": move.token})
        if moved.rowcount != 1:
            return False
        if rows := [past(row) for row in move.rows()]:
            await self._connection.execute(self._sql.insert_history, rows)
        if move.letters:
            await self._connection.execute(self._sql.insert_letters, [kept_letter(letter) for letter in move.letters])
        return True

    def _committed(self, session: Session) -> None:
        if not session.in_nested_transaction():
            self._ended = "committed"

    def _rolled_back(self, session: Session, ended: SessionTransaction) -> None:
        if ended.parent is None:
            self._ended = "rolled back"


@asynccontextmanager
async def transaction(
    engine: AsyncEngine,
    dialect: SqlDialect,
    sql: Statements,
    move: Callable[[AsyncConnection, Sequence[Move]], Awaitable[None]],
) -> AsyncIterator[SagaTransaction]:
    """Open a transaction for a step: committed at the end, rolled back on an error."""
    async with dialect.writing(engine) as connection:
        opened = SagaTransaction(connection, dialect, sql, move)
        try:
            yield opened
        finally:
            opened.session.sync_session.expunge_all()
