"""What the forms of a batched write have in common that speak to the driver themselves, past SQLAlchemy.

SQLAlchemy's statements are portable, and dear: for a batch it works longer on the parameters than the database does on
the rows. So where the driver is known the batch is written in that database's own words, as few of them as it allows.
Each such form keeps the same contract as the portable one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..kernel.effects import Record
from .held import HeldConnection
from .limits import Watch, distrust
from .pooler import tell_of_pooler
from .rows import Birth, HistoryRow, Move, Write
from .schema_check import tell_of_lost_tables

HEAD = (
    "id",
    "saga_name",
    "definition_version",
    "fingerprint",
    "aggregation_id",
    "trace_id",
    "status",
    "state",
    "context",
    "step_execution_token",
    "lease_owner",
    "deadline_at",
    "idempotency_key",
    "parent_id",
    "priority",
    "created_at",
)
"""What is written of a newborn saga; it is updated when it is created, and the database fills in the rest."""
MOVE = (
    "id",
    "revision",
    "token",
    "status",
    "state",
    "current_step_index",
    "retry_counter",
    "last_error",
    "updated_at",
    "changes",
    "new_token",
    "lease_owner",
    "deadline_at",
    "awaiting",
    "finished_at",
)
"""What is sent of a move. `changes`: the ownership, which is what comes after, is new."""
STAYING = MOVE.index("changes")
"""How many columns of a move there are without those of its ownership."""
KEPT = (False, None, None, None, None, None)
"""What is sent of the ownership of a move that leaves it as it is."""
PAST = HistoryRow._fields
ENTRY = Record._fields
"""What is sent of a history row; the rest its move says already."""
NO_ENTRY = (None,) * len(ENTRY)

_DRIVERS = ("asyncpg", "sqlite3")
_OWNERSHIP = (
    ("step_execution_token", "new_token"),
    ("lease_owner", "lease_owner"),
    ("deadline_at", "deadline_at"),
    ("awaiting", "awaiting"),
    ("finished_at", "finished_at"),
)


class DirectBatch(ABC):
    """A batched write of one saga table, on a connection of its own.

    Args:
        writers: Taken before the connection is, as whoever else writes does.
    """

    speaks: ClassVar[tuple[str, str]]
    """The database and the driver that this form is for."""

    def __init__(
        self, head: Table, engine: AsyncEngine, writers: AbstractAsyncContextManager[Any] | None = None
    ) -> None:
        self._writers = writers or nullcontext()
        self._pooled, self._engine, self._table = engine, engine.sync_engine, head.name
        self._has_defaults = any(column.default is not None for column in head.columns)
        self.timeout = 10.0
        """Seconds that a batch may take."""
        self._held = HeldConnection(engine, self._prepare, self._tidy)

    @classmethod
    def fits(cls, head: Table, engine: AsyncEngine) -> bool:
        """Return whether this form can be used: not for what only SQLAlchemy does.

        That is a column which it keeps up to date, or a table that it writes elsewhere than its name says.
        """
        is_spoken_to = (engine.dialect.name, engine.dialect.driver) == cls.speaks
        is_elsewhere = bool(engine.get_execution_options().get("schema_translate_map"))
        return is_spoken_to and not is_elsewhere and all(column.onupdate is None for column in head.columns)

    def bears(self, item: Write) -> bool:
        """Return whether this form can write it: not a saga with columns that only SQLAlchemy fills, and no letters."""
        return not item.letters if isinstance(item, Move) else not item.values and not self._has_defaults

    async def write(self, batch: Sequence[Write]) -> set[UUID] | None:
        """Write what fits, durably; return the ids of what did not, or None if the portable form has to do it all.

        Raises:
            DBAPIError: Whatever the driver raised, as SQLAlchemy would.
        """
        births, moves = parted(batch)
        with self._raising_as_sqlalchemy():
            async with self._writers:
                return await self._write_in_time(births, moves)

    async def write_within(self, driver: Any, move: Move) -> bool | None:
        """Write a move in the transaction that a driver's connection is in; return whether it fitted.

        None: this form cannot, and nothing has been written.

        Raises:
            DBAPIError: As of `write`.
        """
        return None

    @contextmanager
    def _raising_as_sqlalchemy(self) -> Iterator[None]:
        """Raise a driver's errors as SQLAlchemy would, and say of some what they mean."""
        try:
            yield
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in _DRIVERS:
                raise
            tell_of_pooler(self._engine, error)
            wrapped = DBAPIError.instance("a batch of sagas", None, error, Exception)
            tell_of_lost_tables(self._engine, wrapped, self._table)
            raise wrapped from error

    async def _write_in_time(self, births: Sequence[Birth], moves: Sequence[Move]) -> set[UUID] | None:
        watch = Watch(self.timeout)
        try:
            async with self._held as driver:
                watch.guard(driver)
                missed = await self._write(driver, births, moves)
        except BaseException as error:
            if watch.end(error):
                distrust(self._pooled)
                raise watch.error() from error
            raise
        watch.end()
        return missed

    async def aclose(self) -> None:
        """Give the connection back."""
        await self._held.aclose()

    @abstractmethod
    async def _prepare(self, connection: AsyncConnection) -> AsyncConnection:
        """Make a connection ready that has just been taken from the pool."""

    async def _tidy(self, connection: AsyncConnection) -> None:
        """Leave nothing of its own on a connection that goes back to the pool; by default there is nothing."""
        return

    @abstractmethod
    async def _write(self, driver: Any, births: Sequence[Birth], moves: Sequence[Move]) -> set[UUID] | None:
        """Write what fits, commit, and return the ids of what did not; or write nothing and return None."""


def parted(batch: Sequence[Write]) -> tuple[list[Birth], list[Move]]:
    """Return the births of a batch, and its moves in the order in which all writers lock rows."""
    births = [item for item in batch if isinstance(item, Birth)]
    return births, sorted([item for item in batch if isinstance(item, Move)], key=_by_id)


def moved(head: str, sent: Callable[[str], str]) -> str:
    """Return the SET clause by which a saga moves.

    Args:
        head: What the row is called.
        sent: Returns what a value that was sent is called.
    """
    ownership = ", ".join(
        f"{column} = CASE WHEN {sent('changes')} THEN {sent(given)} ELSE {head}.{column} END"
        for column, given in _OWNERSHIP
    )
    return f"{advanced(sent)}, status = {sent('status')}, {ownership}"


def advanced(sent: Callable[[str], str]) -> str:
    """Return the part of it that every move has."""
    columns = ("state", "current_step_index", "retry_counter", "last_error", "updated_at")
    return f"revision = {sent('revision')} + 1, {', '.join(f'{column} = {sent(column)}' for column in columns)}"


def quoted(names: Iterable[str]) -> str:
    """Return column names, for SQL."""
    return ", ".join(f'"{name}"' for name in names)


def _by_id(move: Move) -> int:
    return move.saga_id.int
