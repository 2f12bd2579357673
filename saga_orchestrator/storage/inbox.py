"""The inbox: events that were sent to sagas, and the one way by which they reach them.

An event is posted first, and so durable; then it is delivered. A delivery locks the saga's row, and looks through all
that is there for it: so whether the event or its wait was first makes no difference, and each event goes to one wait.
A process that ends in between leaves a letter that is due, and whoever looks next delivers it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    false,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from .callers import Callers
from .companions import WAITS, inbox_table, route_table
from .dialect import SqlDialect, through_contention
from .limits import limited
from .mixins import ACTIVE, TERMINAL
from .rows import Claimable, Delivery, Fate, Head, Letter, Move, Reader, Settled, Want, Whereabouts
from .statements import Statements, kept_letter, locked
from .types import UtcDateTime

SAGA, AGGREGATION, CORRELATION = "saga", "aggregation", "correlation"
"""The kinds of addresses: each stands before a colon and the name."""
LEFT = timedelta(seconds=5)
"""How long a letter is left alone whose saga could not be read; who does not know the saga is not asked again."""
AT_ONCE = 100
"""How many letters are looked through in one delivery; a wait takes one. When so many came, there may be more."""


def address_of(kind: str, name: object) -> str:
    """Return the address under which a letter is kept."""
    return f"{kind}:{name}"


class Inbox(Protocol):
    """Where events wait for sagas. Each operation is one transaction."""

    async def post(self, letter: Letter, session: AsyncSession | None = None) -> Letter | None:
        """Keep a letter; return None once it is durable, or the one with its address, type and event id that is there.

        With a session it is kept in that session's transaction.
        """
        ...

    async def find(self, letter_id: UUID) -> Whereabouts | None:
        """Return what has become of a letter; None if it is not there."""
        ...

    async def addressees(self, address: str) -> list[UUID]:
        """Return the sagas that an address may mean, those first that are not over."""
        ...

    async def deliver(
        self, saga_id: UUID, reader: Reader, letter_id: UUID | None = None, patient: bool = True
    ) -> tuple[Head, Delivery]:
        """Lock the saga, have its letters read, and write what the reader says in the same transaction.

        Args:
            letter_id: A letter that is read even if the saga does not wait for it.
            patient: Wait for rows that another transaction holds; if False, fail after a moment.

        Raises:
            SagaNotFoundError: No saga has this id.
        """
        ...

    async def route(self, saga_id: UUID, correlations: Sequence[str]) -> None:
        """Let events of these correlations find the saga, from when this returns."""
        ...

    async def due(self, claimable: Claimable, limit: int) -> list[tuple[UUID, str]]:
        """Return the ids and addresses of letters that somebody must look at, longest due first.

        Those whose saga is known, and is none that the caller could run, are left to others.
        """
        ...

    async def defer(self, letter_id: UUID, until: datetime) -> None:
        """Have nobody look at a letter before then; fail after a moment if another transaction holds it."""
        ...

    async def shelve(self, letter_id: UUID, patient: bool = True) -> None:
        """Have nobody look at a letter that is no known saga's before a saga asks for it; `patient` as in `deliver`."""
        ...

    async def purge(self, before: datetime) -> None:
        """Forget the letters that came before then, and the routes of sagas that were over before then."""
        ...


class SagaInbox:
    """The inbox of one model, in one database.

    Args:
        move: Writes a saga's move in a transaction that holds its row.
    """

    def __init__(
        self,
        head: Table,
        callers: Callers,
        dialect: SqlDialect,
        sql: Statements,
        move: Callable[[AsyncConnection, Sequence[Move]], Awaitable[None]],
    ) -> None:
        self._head, self._callers, self._dialect, self._sql, self._move = head, callers, dialect, sql, move
        self._engine = callers.engine
        self._table, self._routes = inbox_table(head), route_table(head)

    async def post(self, letter: Letter, session: AsyncSession | None = None) -> Letter | None:
        statement = self._sql.insert_letters.values(**kept_letter(letter), sent_at=self._dialect.sent())
        statement = statement.execution_options(preserve_rowcount=True)
        if session is not None:
            async with limited(self._dialect.timeout):
                theirs = await self._callers.connection(session)
                is_new = await self._callers.insert(theirs, self._table, statement, self._dialect.timeout)
                return None if is_new else await self._same(theirs, letter)
        async with self._dialect.writing(self._engine) as connection:
            written = await connection.execute(statement)
            return None if written.rowcount else await self._same(connection, letter)

    async def _same(self, connection: AsyncConnection, letter: Letter) -> Letter:
        column = self._table.c
        same = (column.address == letter.address, column.type == letter.type, column.event_id == letter.event_id)
        found = (await connection.execute(self._letters().where(*same))).first()
        return letter if found is None else Letter(*found)

    async def find(self, letter_id: UUID) -> Whereabouts | None:
        column = self._table.c
        async with self._dialect.reading(self._engine) as connection:
            chosen = select(column.status, column.saga_id).where(column.id == letter_id)
            found = (await connection.execute(chosen)).first()
        return None if found is None else Whereabouts(Fate(found.status), found.saga_id)

    async def addressees(self, address: str) -> list[UUID]:
        kind, _, name = address.partition(":")
        async with self._dialect.reading(self._engine) as connection:
            return list((await connection.execute(self._meant(kind, name))).scalars())

    def _meant(self, kind: str, name: str) -> Select[Any]:
        head = self._head.c
        if kind == SAGA:
            return select(head.id).where(head.id == UUID(name))
        if kind == AGGREGATION:
            return select(head.id).where(head.aggregation_id == name, text(ACTIVE))
        route = self._routes.c
        active_first = case((text(TERMINAL), 1), else_=0)
        return select(head.id).join(self._routes).where(route.correlation_id == name).order_by(active_first, head.id)

    async def deliver(
        self, saga_id: UUID, reader: Reader, letter_id: UUID | None = None, patient: bool = True
    ) -> tuple[Head, Delivery]:
        return await through_contention(partial(self._deliver, saga_id, reader, letter_id, patient), patient)

    async def _deliver(
        self, saga_id: UUID, reader: Reader, letter_id: UUID | None, patient: bool
    ) -> tuple[Head, Delivery]:
        async with self._writing(patient) as connection:
            head, now = await locked(connection, self._sql.lock_one(self._dialect.now()), saga_id)
            wants = reader.wants(head)
            if wants is None:
                await connection.execute(self._leave(head, letter_id, now + LEFT))
                return head, Delivery()
            await connection.execute(self._bind(head, letter_id))
            chosen = self._wanted(head, wants, letter_id)
            letters = [Letter(*found) for found in await connection.execute(chosen)]
            delivery = reader.read(head, letters, now)
            if delivery.move is not None:
                await self._move(connection, [delivery.move])
            for settled in delivery.settled:
                await connection.execute(self._settle(), _facts(settled, head.id, now))
            return head, delivery

    def _bind(self, head: Head, letter_id: UUID | None) -> Any:
        """Return the update by which what was sent to the saga, or to its aggregate, is this saga's from now on.

        A letter that is named, and is its already, has been looked at by then.
        """
        column = self._table.c
        addresses = [address_of(SAGA, head.id)]
        if not head.status.is_terminal:
            addresses.append(address_of(AGGREGATION, head.aggregation_id))
        nobodys = and_(column.saga_id.is_(None), column.address.in_(addresses))
        named = [] if letter_id is None else [and_(column.id == letter_id, column.saga_id == head.id)]
        chosen = update(self._table).where(or_(nobodys, *named), text(WAITS))
        return chosen.values(saga_id=head.id, due_at=None)

    def _leave(self, head: Head, letter_id: UUID | None, until: datetime) -> Any:
        """Return the update by which a letter is left to whoever can read the saga that it is for."""
        chosen = update(self._table).where(self._table.c.id == letter_id, text(WAITS))
        return chosen.values(saga_id=head.id, due_at=until)

    def _wanted(self, head: Head, wants: Sequence[Want], letter_id: UUID | None) -> Select[Any]:
        """Return the locking read of the letters that the saga waits for, in the order in which they were sent.

        A named letter that the saga does not wait for comes first, so that the limit does not cut it off.
        One that somebody else holds is waited for: to pass over it would be to say that nothing has come.
        """
        column = self._table.c
        correlated = [address_of(CORRELATION, want.correlation) for want in wants if want.correlation is not None]
        mine = (
            or_(column.saga_id == head.id, column.address.in_(correlated)) if correlated else column.saga_id == head.id
        )
        fits = and_(mine, or_(false(), *(self._fits(want) for want in wants)))
        named = [] if letter_id is None else [column.id == letter_id]
        waiting = self._letters().where(text(WAITS), or_(fits, *named))
        others_first = [case((and_(each, not_(fits)), 0), else_=1) for each in named]
        return waiting.order_by(*others_first, *self._dialect.by_sending(self._table)).limit(AT_ONCE).with_for_update()

    def _fits(self, want: Want) -> ColumnElement[bool]:
        column = self._table.c
        of_type = column.type.in_(want.types)
        return of_type if want.correlation is None else and_(of_type, column.correlation_id == want.correlation)

    def _letters(self) -> Select[Any]:
        columns = [self._table.c[name] for name in Letter._fields]
        return select(*(cast(each, Text) if each.name == "content" else each for each in columns))

    def _settle(self) -> Any:
        chosen = update(self._table).where(self._table.c.id == bindparam("_id"))
        return chosen.values(
            status=bindparam("_fate"),
            reason=bindparam("_why"),
            saga_id=bindparam("_saga"),
            settled_at=bindparam("_now", type_=UtcDateTime),
            due_at=None,
        )

    async def route(self, saga_id: UUID, correlations: Sequence[str]) -> None:
        rows = [{"saga_id": saga_id, "correlation_id": name} for name in sorted(set(correlations))]
        async with self._dialect.writing(self._engine) as connection:
            await connection.execute(self._dialect.insert_or_nothing(self._routes).on_conflict_do_nothing(), rows)

    async def due(self, claimable: Claimable, limit: int) -> list[tuple[UUID, str]]:
        column = self._table.c
        late = column.due_at <= self._dialect.due_by()
        mine = or_(column.saga_id.is_(None), self._sql.known(claimable))
        chosen = select(column.id, column.address).outerjoin(self._head)
        chosen = chosen.where(column.due_at.is_not(None), late, mine)
        async with self._dialect.reading(self._engine) as connection:
            found = await connection.execute(chosen.order_by(column.due_at).limit(limit))
            return [(row.id, row.address) for row in found]

    async def defer(self, letter_id: UUID, until: datetime) -> None:
        column = self._table.c
        waiting = update(self._table).where(column.id == letter_id, column.due_at.is_not(None), text(WAITS))
        async with self._writing(patient=False) as connection:
            await connection.execute(waiting.values(due_at=until))

    async def shelve(self, letter_id: UUID, patient: bool = True) -> None:
        column = self._table.c
        nobodys = update(self._table).where(column.id == letter_id, column.saga_id.is_(None))
        async with self._writing(patient) as connection:
            await connection.execute(nobodys.values(due_at=None))

    @asynccontextmanager
    async def _writing(self, patient: bool) -> AsyncIterator[AsyncConnection]:
        async with self._dialect.writing(self._engine) as connection:
            if not patient:
                await self._dialect.hurry(connection)
            yield connection

    async def purge(self, before: datetime) -> None:
        head = self._head.c
        over = select(head.id).where(text(TERMINAL), head.finished_at < before)
        async with self._dialect.writing(self._engine) as connection:
            await connection.execute(delete(self._table).where(self._table.c.id < _first_id(before)))
            await connection.execute(delete(self._routes).where(self._routes.c.saga_id.in_(over)))


def _facts(settled: Settled, saga_id: UUID, now: datetime) -> dict[str, Any]:
    fate, why = settled.fate.value, settled.reason
    return {"_id": settled.letter_id, "_fate": fate, "_why": why, "_saga": saga_id, "_now": now}


def _first_id(moment: datetime) -> UUID:
    """Return an id before all those that are made from this moment on: ids begin with the time (RFC 9562)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
