"""The portable SQL of the store, built once from the tables, in SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    false,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from ..errors import SagaNotFoundError
from ..kernel.state import SagaStatus
from .mixins import ACTIVE
from .rows import Birth, Claimable, Fate, Head, HistoryRow, Letter, Move, SagaFilter
from .types import JsonText, UtcDateTime

_HEAD_COLUMNS = tuple(field.name for field in fields(Head))
_TEXTS = ("state", "context", "progress", "input", "output")


class Times(NamedTuple):
    """The database's time as expressions: `now` goes on within a statement, an index is searched by `due_by`."""

    now: ColumnElement[Any]
    due_by: ColumnElement[Any]


class Statements:
    """Every statement of the portable store.

    Rows are locked FOR NO KEY UPDATE, since no key of theirs ever changes: rows of the user's that refer to a saga may
    be written meanwhile.
    """

    def __init__(self, head: Table, past: Table, inbox: Table, insert_or_nothing: Callable[[Table], Any]) -> None:
        self.head, self.past, self._insert = head, past, insert_or_nothing
        self._ids: BindParameter[Any] = bindparam("ids", expanding=True)
        self._columns = [_readable(head, name) for name in _HEAD_COLUMNS]
        self.read_many = select(*self._columns).where(head.c.id.in_(self._ids))
        self.lock_many = self._lock_many()
        self.move_kept = self._update(*_KEPT)
        self.move_owned = self._update(*_KEPT, *_OWNED)
        was = (head.c.revision == bindparam("_was"), head.c.step_execution_token == bindparam("_held"))
        self.move_kept_if = self.move_kept.where(*was)
        self.move_owned_if = self.move_owned.where(*was)
        self.insert_sagas = insert_or_nothing(head).on_conflict_do_nothing()
        self.present = select(head.c.id).where(head.c.id.in_(self._ids))
        self.insert_history = insert(past)
        self.insert_letters = insert_or_nothing(inbox).on_conflict_do_nothing()
        self.read_history = self._read_history()
        self.renew = self._renew()
        self.claimed = self._claimed()
        self.disown = update(self.head).where(self.head.c.id.in_(self._free(self._claimed()))).values(lease_owner=None)
        self.show = self._show()

    def insert_saga(self, birth: Birth) -> Any:
        """Return the insert of one saga, which inserts no row if something stands in its way.

        It says so by its row count, not by RETURNING: a caller who is cancelled before the rows are read would leave
        SQLite's write lock behind with them.
        """
        statement = self._insert(self.head).values({**born(birth), **birth.values})
        return statement.on_conflict_do_nothing().execution_options(preserve_rowcount=True)

    def lock_one(self, now: ColumnElement[Any]) -> Select[Any]:
        """Return the locking read of one saga, with the database's time."""
        chosen = select(*self._columns, now.label("db_now")).where(self.head.c.id == bindparam("id"))
        return chosen.with_for_update(key_share=True)

    def lock_due(self, claimable: Claimable, limit: int, times: Times, only: UUID | None = None) -> Select[Any]:
        """Return the claiming read: due sagas that nobody has locked, or only one of them."""
        chosen = select(*self._columns, times.now.label("db_now")).where(*self._due(claimable, times.due_by))
        if only is not None:
            chosen = chosen.where(self.head.c.id == only)
        return self._first(chosen, limit).with_for_update(skip_locked=True, key_share=True)

    def due(self, claimable: Claimable, now: ColumnElement[Any], limit: int) -> Select[Any]:
        """Return a read of the ids of due sagas, in the order in which they are claimed."""
        return self._first(select(self.head.c.id).where(*self._due(claimable, now)), limit)

    def _first(self, chosen: Select[Any], limit: int) -> Select[Any]:
        return chosen.order_by(self.head.c.priority.desc(), self.head.c.deadline_at).limit(limit)

    def any_due(self, claimable: Claimable, now: ColumnElement[Any]) -> Select[Any]:
        """Return a read of one due saga's id, if there is one."""
        return select(self.head.c.id).where(*self._due(claimable, now)).limit(1)

    def set_aside(self, saga_id: UUID, why: str | None, now: ColumnElement[Any]) -> Any:
        """Return the update that leaves a due saga to a person, whatever its row says."""
        aside = {
            "status": SagaStatus.STUCK,
            "awaiting": "operator",
            "deadline_at": None,
            "lease_owner": None,
            "step_execution_token": uuid4(),
            "revision": self.head.c.revision + 1,
            "last_error": why,
        }
        return update(self.head).where(self.head.c.id == saga_id, self.head.c.deadline_at <= now).values(aside)

    def next_due(self, claimable: Claimable) -> Select[Any]:
        """Return the read of the earliest time at which a saga that the claimer can run is due."""
        timed = self.head.c.deadline_at
        return select(timed).where(timed.is_not(None), self.known(claimable)).order_by(timed).limit(1)

    def _due(self, claimable: Claimable, now: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
        timed = self.head.c.deadline_at
        return timed.is_not(None), timed <= now, self.known(claimable)

    def known(self, claimable: Claimable) -> ColumnElement[bool]:
        """Return whether a saga is one that a claimer can run."""
        head = self.head.c
        known = [
            and_(head.saga_name == name, head.definition_version.in_(sorted(versions)))
            for name, versions in sorted(claimable.versions.items())
        ]
        return or_(false(), *known)

    def rival(self, birth: Birth) -> Select[Any]:
        """Return the read of the saga that holds what this birth wanted, a namesake by key before one by aggregate."""
        head, born = self.head.c, birth.head
        same_key = and_(head.saga_name == born.saga_name, head.idempotency_key == born.idempotency_key)
        same_aggregate = and_(head.aggregation_id == born.aggregation_id, text(ACTIVE))
        wanted = same_aggregate if born.idempotency_key is None else or_(same_key, same_aggregate)
        by_key_first = case((same_key, 0), else_=1)
        return select(*self._columns).where(wanted).order_by(by_key_first, head.id).limit(1)

    def started(self, saga_name: str, idempotency_key: str) -> Select[Any]:
        """Return the read of the saga that was started under a key."""
        head = self.head.c
        return select(*self._columns).where(head.saga_name == saga_name, head.idempotency_key == idempotency_key)

    def listing(self, wanted: SagaFilter, limit: int, before: UUID | None) -> Select[Any]:
        """Return the read of a page of sagas, newest first (ids are time-ordered)."""
        head = self.head.c
        query = select(*self._columns).order_by(head.id.desc()).limit(limit)
        if wanted.status is not None:
            query = query.where(head.status.in_(wanted.status))
        for name in ("saga_name", "aggregation_id", "trace_id", "awaiting"):
            if (value := getattr(wanted, name)) is not None:
                query = query.where(head[name] == value)
        if wanted.created_after is not None:
            query = query.where(head.created_at >= wanted.created_after)
        if wanted.created_before is not None:
            query = query.where(head.created_at < wanted.created_before)
        return query if before is None else query.where(head.id < before)

    def _lock_many(self) -> Select[Any]:
        head = self.head.c
        chosen = select(head.id, head.revision, head.step_execution_token).where(head.id.in_(self._ids))
        return chosen.order_by(head.id).with_for_update(skip_locked=True, key_share=True)

    def _update(self, *names: str) -> Any:
        chosen = update(self.head).where(self.head.c.id == bindparam("_id"))
        return chosen.values({name: bindparam(f"_{name}", type_=self.head.c[name].type) for name in names})

    def _read_history(self) -> Select[Any]:
        columns = [_readable(self.past, name) for name in HistoryRow._fields]
        chosen = select(*columns).where(self.past.c.saga_id.in_(self._ids))
        return chosen.order_by(self.past.c.saga_id, self.past.c.seq)

    def _renew(self) -> Any:
        head = self.head.c
        mine = and_(head.id.in_(self._ids), head.lease_owner == bindparam("owner"))
        free = select(head.id).where(mine).order_by(head.id).with_for_update(skip_locked=True, key_share=True)
        until = bindparam("until", type_=UtcDateTime)
        later = case((head.deadline_at < until, until), else_=head.deadline_at)  # one that is late must not shorten it
        return update(self.head).where(head.id.in_(free)).values(deadline_at=later).returning(head.id, head.revision)

    def _claimed(self) -> Select[Any]:
        """Return the read of the rows that are as an owner has claimed them."""
        head = self.head.c
        tokens = head.step_execution_token.in_(bindparam("tokens", expanding=True))
        return select(head.id).where(head.id.in_(self._ids), head.lease_owner == bindparam("owner"), tokens)

    def _free(self, chosen: Select[Any]) -> Select[Any]:
        return chosen.order_by(self.head.c.id).with_for_update(skip_locked=True, key_share=True)

    def _show(self) -> Any:
        head = self.head.c
        mine = and_(head.id == bindparam("_id"), head.lease_owner == bindparam("_owner"))
        free = select(head.id).where(mine).with_for_update(skip_locked=True, key_share=True)
        shown = bindparam("_progress", type_=head.progress.type)
        return update(self.head).where(head.id.in_(free)).values(progress=shown)


_KEPT = ("revision", "status", "state", "current_step_index", "retry_counter", "last_error", "updated_at")
_OWNED = ("step_execution_token", "lease_owner", "deadline_at", "awaiting", "finished_at")


def born(birth: Birth) -> dict[str, Any]:
    """Return the parameters of a newborn saga."""
    row = {name: getattr(birth.head, name) for name in _HEAD_COLUMNS}
    return row | {"state": JsonText(row["state"]), "context": JsonText(row["context"])}


def kept(move: Move) -> dict[str, Any]:
    """Return the parameters of a move that leaves the ownership alone."""
    return {
        "_id": move.saga_id,
        "_revision": move.revision + 1,
        "_status": move.status,
        "_state": JsonText(move.state),
        "_current_step_index": move.current_step_index,
        "_retry_counter": move.retry_counter,
        "_last_error": move.last_error,
        "_updated_at": move.updated_at,
    }


def owned(move: Move) -> dict[str, Any]:
    """Return the parameters of a move that changes the ownership."""
    assert move.ownership is not None
    return kept(move) | {f"_{name}": value for name, value in zip(_OWNED, move.ownership, strict=True)}


def past(row: HistoryRow) -> dict[str, Any]:
    """Return the parameters of a history row."""
    facts = row._asdict()
    for name in ("input", "output"):
        if facts[name] is not None:
            facts[name] = JsonText(facts[name])
    return facts


def kept_letter(letter: Letter) -> dict[str, Any]:
    """Return the parameters of a letter that nobody has looked at yet."""
    return {**letter._asdict(), "content": JsonText(letter.content), "status": Fate.BUFFERED.value}


async def locked(connection: AsyncConnection, lock_one: Select[Any], saga_id: UUID) -> tuple[Head, datetime]:
    """Lock one saga's row, for as long as the transaction lasts; return what it says, and the database's time.

    Raises:
        SagaNotFoundError: No saga has this id.
    """
    row = (await connection.execute(lock_one, {"id": saga_id})).first()
    if row is None:
        raise SagaNotFoundError(saga_id)
    return head_of(row), row.db_now


def head_of(row: Any) -> Head:
    """Return the head that a row says."""
    facts: dict[str, Any] = {name: getattr(row, name) for name in _HEAD_COLUMNS}
    return Head(**{**facts, "status": SagaStatus(facts["status"])})


def _readable(table: Table, name: str) -> ColumnElement[Any]:
    """Return a column to be read; JSON is read as text, so that live and stored payloads are decoded alike."""
    column = table.c[name]
    return cast(column, Text).label(name) if name in _TEXTS else column
