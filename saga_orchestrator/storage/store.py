"""The store on SQLAlchemy: the contract in portable SQL, for every database that SQLAlchemy's asyncio speaks.

A write of many sagas is: lock the rows that are free, drop those that have moved, update the rest in one executemany,
insert their history in another, commit. PostgreSQL through asyncpg and SQLite through aiosqlite have a faster form of
the same (`one_statement`, `one_hop`); it is chosen once, when the store is made, and held to the same contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial
from json import loads
from typing import Any
from uuid import UUID

from loguru import logger
from sqlalchemy import Select, Table, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from ..definition.io import clean_text
from ..errors import ActiveSagaAlreadyExistsError
from .callers import Callers
from .columns import OwnColumns
from .companions import history_table, inbox_table
from .database_errors import is_passing, is_the_rows
from .dialect import Clock, dialect_for, through_contention
from .direct import parted
from .group_read import GroupRead
from .inbox import SagaInbox
from .keepalive import warn_of_keepalive
from .limits import Timeouts, limited
from .mixins import COLUMNS
from .pooler import watch_for_pooler
from .retention import Bygone, SagaRetention
from .rows import Birth, Claimable, Head, HistoryRow, Judge, Move, SagaFilter, Write, Written
from .schema_check import check_tables, watch_for_lost_tables
from .sessions import session_on
from .sqlite_stop import stop_once
from .statements import Statements, Times, born, head_of, kept, kept_letter, locked, owned, past
from .suspects import Suspects
from .transaction import Database, SagaTransaction, transaction, watch_connections
from .types import JsonText


class SagaStore:
    """Sagas of one model, in one database. See `contract.Store` for what each operation guarantees.

    Args:
        model: The mapped class with `SagaStateMixin`.
        engine: The engine that the model's sessions use.
        clock: Stands in for the database's clock, in tests.
        sessions: Makes the sessions of steps.
        timeouts: How many seconds things may take.
    """

    def __init__(
        self,
        model: type[Any],
        engine: AsyncEngine,
        clock: Clock | None = None,
        sessions: Callable[..., Any] = AsyncSession,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - it cannot change
    ) -> None:
        self.model = model
        self.engine = engine
        self.table: Table = model.__table__
        self.past: Table = history_table(self.table)
        self.dialect = dialect_for(engine, clock)
        self.dialect.timeout, self.dialect.idle, alone = timeouts
        self._longest = alone if self.dialect.room.is_alone else None
        watch_for_pooler(engine)
        watch_for_lost_tables(engine, self.table)
        self._histories = GroupRead(self._history)
        self._sql = Statements(self.table, self.past, inbox_table(self.table), self.dialect.insert_or_nothing)
        self._fast = self.dialect.direct(self.table, self.past, engine)
        if self._fast is not None:
            self._fast.timeout = self.dialect.timeout
        self._callers = Callers(model, engine, self.table, inbox_table(self.table))
        self.inbox = SagaInbox(self.table, self._callers, self.dialect, self._sql, self._move)
        self._own = OwnColumns(model, self.table, frozenset(COLUMNS.c.keys()))
        self._retention = SagaRetention(self.table, engine, self.dialect)
        self._sessions = sessions
        watch_connections(engine)
        stop_once(engine)
        self._suspects = Suspects()

    def check_values(self, values: Mapping[str, Any]) -> None:
        """Refuse what `start(values=)` says of columns that do not exist, and the lack of what the table demands.

        Raises:
            SagaStateError: With the columns, and what to do.
        """
        self._own.check(values)

    # --- writing ---------------------------------------------------------------------------------------------

    async def write(self, batch: Sequence[Write]) -> list[Written]:
        if not batch:
            return []
        missed = await self._write_directly(batch)
        if missed is None:
            async with self.dialect.writing(self.engine) as connection:
                missed = await self._write(connection, batch)
        if not missed:
            return [Written.DONE] * len(batch)
        answers = await self._explain([item for item in batch if _id_of(item) in missed])
        return [answers.get(_id_of(item), Written.DONE) for item in batch]

    async def _write_directly(self, batch: Sequence[Write]) -> set[UUID] | None:
        """Write the batch in the database's own form, if there is one and it can; None if nothing has been written."""
        fast = self._fast
        if fast is None or not all(map(fast.bears, batch)):
            return None
        return await fast.write(batch)

    async def _write(self, connection: AsyncConnection, batch: Sequence[Write]) -> set[UUID]:
        """Write what still fits; return the ids of the sagas that did not."""
        births, moves = parted(batch)
        there = await self._insert(connection, births) if births else set()
        held = await self._held(connection, moves)
        fitting = [m for m in moves if held.get(m.saga_id) == (m.revision, m.token)]
        await self._move(connection, fitting)
        return {_id_of(item) for item in batch} - there - {move.saga_id for move in fitting}

    async def _insert(self, connection: AsyncConnection, births: Sequence[Birth]) -> set[UUID]:
        """Insert newborn sagas, passing over those that clash; return the ids of those that are there now."""
        await self.dialect.hurry(connection)
        if plain := [born(birth) for birth in births if not birth.values]:
            await connection.execute(self._sql.insert_sagas, plain)
        for birth in births:
            if birth.values:
                await connection.execute(self._sql.insert_saga(birth))
        there = await connection.execute(self._sql.present, {"ids": [birth.head.id for birth in births]})
        return set(there.scalars())

    async def _held(self, connection: AsyncConnection, moves: Sequence[Move]) -> dict[UUID, tuple[int, UUID | None]]:
        """Lock the rows that nobody else has locked, and return who may move them from where."""
        if not moves:
            return {}
        rows = await connection.execute(self._sql.lock_many, {"ids": [move.saga_id for move in moves]})
        return {row.id: (row.revision, row.step_execution_token) for row in rows}

    async def _move(self, connection: AsyncConnection, moves: Sequence[Move]) -> None:
        """Write moves that are known to fit, under the lock."""
        staying = [move for move in moves if move.ownership is None]
        changed = [move for move in moves if move.ownership is not None]
        if staying:
            await connection.execute(self._sql.move_kept, [kept(move) for move in staying])
        if changed:
            await connection.execute(self._sql.move_owned, [owned(move) for move in changed])
        if rows := [past(row) for move in moves for row in move.rows()]:
            await connection.execute(self._sql.insert_history, rows)
        if letters := [letter for move in moves for letter in move.letters]:
            await connection.execute(self._sql.insert_letters, [kept_letter(letter) for letter in letters])

    async def _explain(self, missed: Sequence[Write]) -> dict[UUID, Written]:
        """Say why writes did not fit: done before, moved by others, lost to another owner, or taken."""
        ids = [_id_of(item) for item in missed]
        async with self.dialect.reading(self.engine) as connection:
            rows = (await connection.execute(self._sql.read_many, {"ids": ids})).all()
        found = {row.id: head_of(row) for row in rows}
        return {_id_of(item): _explanation(item, found.get(_id_of(item))) for item in missed}

    async def advance(self, saga_id: UUID, judge: Judge) -> tuple[Head, Move | None]:
        try:
            return await through_contention(partial(self._advance, saga_id, judge))
        except IntegrityError as clash:  # bringing a saga back to life may meet the aggregate's new one
            head = await self.head(saga_id)
            rival = None if head is None else await self.rival(Birth(replace(head, idempotency_key=None)))
            if head is None or rival is None or rival.id == saga_id:
                raise
            raise ActiveSagaAlreadyExistsError(head.aggregation_id, rival.id) from clash

    async def _advance(self, saga_id: UUID, judge: Judge) -> tuple[Head, Move | None]:
        async with self.dialect.writing(self.engine) as connection:
            head, now = await locked(connection, self._sql.lock_one(self.dialect.now()), saga_id)
            move = judge(head, now)
            if move is not None:
                await self._move(connection, [move])
            return head, move

    async def claim(self, claimable: Claimable, limit: int, judge: Judge) -> list[tuple[Head, Move]]:
        if not claimable.versions or limit < 1 or not await self._anything_due(claimable):
            return []
        try:
            return await through_contention(partial(self._claim, claimable, limit, judge))
        except Exception as error:
            if is_passing(error):
                raise
        return await self._claim_singly(claimable, limit, judge)

    async def _claim(
        self, claimable: Claimable, limit: int, judge: Judge, only: UUID | None = None
    ) -> list[tuple[Head, Move]]:
        async with self.dialect.writing(self.engine) as connection:
            due = self._sql.lock_due(claimable, limit, Times(self.dialect.now(), self.dialect.due_by()), only)
            heads = [(head_of(row), row.db_now) for row in await connection.execute(due)]
            judged = [(head, judge(head, now)) for head, now in heads]
            moved = sorted(((h, m) for h, m in judged if m is not None), key=lambda pair: pair[0].id.int)
            await self._move(connection, [move for _, move in moved])
        return [(head, move) for head, move in judged if move is not None]

    async def _claim_singly(self, claimable: Claimable, limit: int, judge: Judge) -> list[tuple[Head, Move]]:
        """Claim one by one, because some row defies it: a row that proves to be at fault is set aside."""
        async with self.dialect.reading(self.engine) as connection:
            chosen = self._sql.due(claimable, self.dialect.due_by(), limit + self._suspects.count)
            due = (await connection.execute(chosen)).scalars().all()
        claimed: list[tuple[Head, Move]] = []
        failed: list[UUID] = []
        for saga_id in due:
            if len(claimed) == limit:
                break
            try:
                claimed += await self._claim(claimable, 1, judge, saga_id)
            except Exception as error:  # noqa: BLE001 - the table says whose fault it is
                if is_passing(error):
                    return claimed  # what has been claimed by now must be driven
                failed.append(saga_id)
        succeeded = len(claimed)
        self._suspects.count_successes(succeeded)
        for saga_id in failed:
            try:
                claimed += await self._claim(claimable, 1, judge, saga_id)
            except Exception as error:  # noqa: BLE001 - the table says whose fault it is
                if is_passing(error):
                    break
                if self._suspects.is_proved(saga_id, error, succeeded, len(failed)):
                    await self._set_aside(saga_id, error)
        return claimed

    async def _set_aside(self, saga_id: UUID, error: Exception) -> None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        why = clean_text(f"quarantined: {str(cause).partition(chr(10))[0]}", _LONGEST_ERROR)
        logger.error("saga {}: {}", saga_id, why)
        for shown in (why, None):  # a row that cannot keep the text may be set aside without it
            try:
                async with self.dialect.writing(self.engine) as connection:
                    await connection.execute(self._sql.set_aside(saga_id, shown, self.dialect.now()))
            except Exception as worse:  # noqa: BLE001 - it stays due, and those claimed with it must be driven
                if shown is not None and is_the_rows(worse):
                    continue
                logger.warning("saga {} could not be set aside: {!r}", saga_id, worse)
            return

    async def _anything_due(self, claimable: Claimable) -> bool:
        """Look before locking, so that an idle poll writes nothing and waits for nobody."""
        async with self.dialect.reading(self.engine) as connection:
            return (await connection.execute(self._sql.any_due(claimable, self.dialect.due_by()))).first() is not None

    async def warn_of_keepalive(self) -> None:
        """Log one WARNING if the server would notice the loss of this host late."""
        async with self.dialect.reading(self.engine) as connection:
            await warn_of_keepalive(connection)

    def transaction(self, seconds: float | None = None) -> AbstractAsyncContextManager[SagaTransaction]:
        session = partial(session_on, self._sessions, self.engine)
        given = Database(self.engine, self.dialect, self._sql, self._fast, self._move, session, self._longest)
        return transaction(given, seconds)

    async def renew(self, owner: str, saga_ids: Iterable[UUID], until: datetime) -> dict[UUID, int]:
        alive: dict[UUID, int] = {}
        ids = sorted(saga_ids)
        for start in range(0, len(ids), _RENEWED_AT_ONCE):
            chosen = ids[start : start + _RENEWED_AT_ONCE]
            async with self.dialect.writing(self.engine) as connection:
                rows = await connection.execute(self._sql.renew, {"ids": chosen, "owner": owner, "until": until})
                alive.update((row.id, row.revision) for row in rows)
        return alive

    async def disown(self, owner: str, tokens: Mapping[UUID, UUID]) -> set[UUID]:
        left: set[UUID] = set()
        ids = sorted(tokens)
        for start in range(0, len(ids), _RENEWED_AT_ONCE):
            chosen = ids[start : start + _RENEWED_AT_ONCE]
            sent = {"ids": chosen, "tokens": [tokens[saga_id] for saga_id in chosen], "owner": owner}
            async with self.dialect.writing(self.engine) as connection:
                await connection.execute(self._sql.disown, sent)
                left.update((await connection.execute(self._sql.claimed, sent)).scalars())
        return left

    async def show(self, owner: str, progress: Mapping[UUID, str]) -> None:
        shown = [
            {"_id": saga_id, "_owner": owner, "_progress": JsonText(text)}
            for saga_id, text in sorted(progress.items(), key=lambda pair: pair[0].int)
        ]
        async with self.dialect.writing(self.engine) as connection:
            await connection.execute(self._sql.show, shown)

    async def add(self, session: AsyncSession, birth: Birth) -> tuple[Head | None] | None:
        async with limited(self.dialect.timeout):
            connection = await self._callers.connection(session)
            insert = self._sql.insert_saga(birth)
            if await self._callers.insert(connection, self.table, insert, self.dialect.timeout):
                return None
            row = (await connection.execute(self._sql.rival(birth))).first()
        return (None if row is None else head_of(row),)

    async def purge(self, bygone: Bygone, limit: int, seconds: float | None = None) -> int:
        return await self._retention.purge(bygone, limit, seconds)

    # --- reading ---------------------------------------------------------------------------------------------

    async def head(self, saga_id: UUID) -> Head | None:
        return await self._one(self._sql.read_many, {"ids": [saga_id]})

    async def heads(
        self, wanted: SagaFilter, limit: int, before: UUID | None, seconds: float | None = None
    ) -> list[Head]:
        async with self.dialect.reading(self.engine, seconds) as connection:
            return [head_of(row) for row in await connection.execute(self._sql.listing(wanted, limit, before))]

    async def history(self, saga_ids: Iterable[UUID]) -> dict[UUID, list[HistoryRow]]:
        return await self._histories.read(saga_ids)

    async def _history(self, saga_ids: Iterable[UUID]) -> dict[UUID, list[HistoryRow]]:
        found: dict[UUID, list[HistoryRow]] = {saga_id: [] for saga_id in saga_ids}
        async with self.dialect.reading(self.engine) as connection:
            for row in await connection.execute(self._sql.read_history, {"ids": list(found)}):
                found[row.saga_id].append(HistoryRow(*row))
        return found

    async def rival(self, birth: Birth) -> Head | None:
        return await self._one(self._sql.rival(birth), {})

    async def started(self, saga_name: str, idempotency_key: str) -> Head | None:
        return await self._one(self._sql.started(saga_name, idempotency_key), {})

    async def _one(self, query: Select[Any], parameters: dict[str, Any]) -> Head | None:
        async with self.dialect.reading(self.engine) as connection:
            row = (await connection.execute(query, parameters)).first()
        return None if row is None else head_of(row)

    async def next_due(self, claimable: Claimable) -> datetime | None:
        async with self.dialect.reading(self.engine) as connection:
            return (await connection.execute(self._sql.next_due(claimable))).scalar()  # type: ignore[no-any-return]

    async def check_tables(self, session: AsyncSession | None = None) -> None:
        """Check that the tables are there, and are of this version; with a caller's session, on its connection.

        Raises:
            SagaSchemaError: They are not.
        """
        if session is not None:
            async with limited(self.dialect.timeout):
                await check_tables(await self._callers.connection(session), self.table, is_callers=True)
            return
        async with self.dialect.reading(self.engine) as connection:
            await check_tables(connection, self.table)

    async def now(self, session: AsyncSession | None = None) -> datetime:
        if session is not None:
            async with limited(self.dialect.timeout):
                connection = await self._callers.connection(session)
                return (await connection.execute(select(self.dialect.now()))).scalar_one()  # type: ignore[no-any-return]
        async with self.dialect.reading(self.engine) as connection:
            return (await connection.execute(select(self.dialect.now()))).scalar_one()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        if self._fast is not None:
            await self._fast.aclose()


_RENEWED_AT_ONCE = 500
_LONGEST_ERROR = 1_000


def _is_the_work_of(move: Move, found: Head) -> bool:
    """Return whether it was this move that made the row what it is: another's may have left the same state."""
    token = move.token if move.ownership is None else move.ownership.token
    same_hand = (found.step_execution_token, found.updated_at) == (token, move.updated_at)
    return same_hand and bool(loads(found.state) == loads(move.state))


def _id_of(item: Write) -> UUID:
    return item.head.id if isinstance(item, Birth) else item.saga_id


def _explanation(item: Write, found: Head | None) -> Written:
    if isinstance(item, Birth):
        return Written.TAKEN if found is None else Written.DONE
    if found is None:
        return Written.FENCED
    if found.revision == item.revision + 1 and _is_the_work_of(item, found):
        return Written.DONE
    if found.step_execution_token != item.token:
        return Written.FENCED
    return Written.BUSY if found.revision == item.revision else Written.CONFLICT
