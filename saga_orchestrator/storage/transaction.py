"""A transaction that a step works in: what it writes, and the record that it has, are committed together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from loguru import logger
from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from ..definition.plain_errors import is_a, walk_causes
from ..definition.retry import leaves
from ..errors import DatabaseTimeoutError, PermanentError, RetryAfter, SagaStateError
from .bracket import PROOF, TransactionEndedError
from .database_errors import sqlstate_of
from .dialect import SqlDialect, is_passing
from .direct import DirectBatch
from .limits import WatchedBracket, driver_of
from .rows import Judge, Move
from .statements import Statements, kept, kept_letter, locked, owned, past

_FAILURE = "saga_orchestrator.failure"
"""Where a session keeps the error that its step has raised."""
_ITS_OWN = ("25", "42")
"""SQLSTATE classes that say that the step was wrong: a transaction that goes on after an error, a bad statement."""
_ABORTED = "25P02"
"""The SQLSTATE of what is said in a transaction after an error of the step's, which the step has passed over."""
_READ_ONLY = "25006"
"""The SQLSTATE of a write on a server that only reads, as one is after a failover; no step is at fault."""
_GOES_AWAY = ("08", "57")
"""SQLSTATE classes of a connection that is lost, and of a server that shuts down."""
_VERDICTS = (PermanentError, RetryAfter)
"""Errors by which the step itself says when to try again; they count, also where a conflict has led to them."""
LEFT = (
    "the step has ended its transaction itself, past ctx.session, with a COMMIT or ROLLBACK of its own; what it has "
    "written may stand, so it is not done again. Leave the end of the transaction to the engine"
)


class Transaction(Protocol):
    """A transaction in which a step works."""

    session: Any
    longest: float | None
    """How many seconds the step may work, where no lease can be renewed meanwhile; None: as long as it likes."""

    @property
    def may_stand(self) -> bool:
        """Whether the step has ended the transaction itself, so that its rows may be there although nothing else is."""
        ...

    @property
    def conflict(self) -> BaseException | None:
        """The error of the database by which it was lost, if it was: no fault of the step's."""
        ...

    async def settle(self, likely: Move, judge: Judge) -> None:
        """Write the likely move, if the saga is still where it begins; else lock it, and write what the judge says.

        What the judge raises ends the transaction.

        Raises:
            SagaNotFoundError: No saga has this id.
            SagaStateError: The step has ended the transaction itself.
        """
        ...


class Database(NamedTuple):
    """What a step's transaction needs of the store that opens it.

    Attributes:
        direct: Writes a saga's move in the database's own words, if there is such a form.
        move: Writes a saga's move in a transaction that holds its row.
        session: Makes the session of a step on a connection.
        longest: How many seconds a step may work where no lease can be renewed meanwhile; None: as long as it likes.
    """

    engine: AsyncEngine
    dialect: SqlDialect
    sql: Statements
    direct: DirectBatch | None
    move: Callable[[AsyncConnection, Sequence[Move]], Awaitable[None]]
    session: Callable[[AsyncConnection], AsyncSession]
    longest: float | None = None


class SagaTransaction:
    """A transaction on the saga's own database."""

    def __init__(self, connection: AsyncConnection, bracket: WatchedBracket, database: Database) -> None:
        self._connection, self._bracket, self._database = connection, bracket, database
        self.session = database.session(connection)
        self.longest = database.longest
        self.may_stand = False
        self._root = connection.sync_connection.get_transaction() if connection.sync_connection else None
        self._ended = ""
        self._is_closing = False
        self._is_left = self._is_undone = self._is_cut = False
        self._conflict: BaseException | None = None
        self._watch()

    def _watch(self) -> None:
        sync, connection = self.session.sync_session, self._connection.sync_connection
        event.listen(sync, "before_commit", self._committed)
        event.listen(sync, "after_soft_rollback", self._rolled_back)
        if connection is not None:
            _watched[connection] = self

    async def settle(self, likely: Move, judge: Judge) -> None:
        self._bracket.limit()
        if not self._ended:
            await self._flush()
        if not self._ended and not self._is_whole():
            self._ended = "rolled back"
        if self._ended:
            raise SagaStateError(self._why_ended())
        try:
            await self._bracket.prove()
            await self._write(likely, judge)
        except TransactionEndedError:
            raise SagaStateError(LEFT) from None
        except DBAPIError as error:
            # of the engine's own statement, also where in the step's it would be the step's
            if is_passing(error) and sqlstate_of(error) != _ABORTED:
                self._conflict = error
            raise

    async def _write(self, likely: Move, judge: Judge) -> None:
        if await self._written(likely):
            return
        lock = self._database.sql.lock_one(self._database.dialect.now())
        head, now = await locked(self._connection, lock, likely.saga_id)
        if (move := judge(head, now)) is not None:
            await self._database.move(self._connection, [move])

    async def _flush(self) -> None:
        """Do what a commit of the session would do before it commits: the application's own listeners, and a flush."""
        await self.session.run_sync(self._prepare)

    def _prepare(self, session: Session) -> None:
        self._is_closing = True
        session.dispatch.before_commit(session)
        self._is_closing = False
        session.flush()

    @property
    def conflict(self) -> BaseException | None:
        raised = self.session.info.get(_FAILURE)
        if raised is not None and any(is_a(each, _VERDICTS) for each in leaves(raised)):
            return None
        if self._connection.invalidated:
            return self._conflict or ConnectionError("the connection was lost")
        return self._conflict or next((each for each in walk_causes(raised) if is_conflict(each)), None)

    def note(self, error: BaseException) -> None:
        """Take note of what the database has refused, whatever the step makes of it."""
        if is_conflict(error):
            self._conflict = error
        if not (self._connection.invalidated or self._is_left or self._ended or self._bracket.is_open()):
            self._is_undone = True  # the database has rolled back by itself

    def _is_whole(self) -> bool:
        """Return whether it is still the transaction that was opened: a flush that fails rolls it back unasked."""
        now = self._connection.sync_connection and self._connection.sync_connection.get_transaction()
        return now is not None and now is self._root and now.is_active

    async def _written(self, move: Move) -> bool:
        """Write a move if it fits, without asking first."""
        direct = self._database.direct
        if direct is not None and direct.bears(move):
            done = await direct.write_within(driver_of(self._connection), move)
            if done is not None:
                return done
        sql = self._database.sql
        statement, sent = (sql.move_kept_if, kept(move)) if move.ownership is None else (sql.move_owned_if, owned(move))
        moved = await self._connection.execute(statement, {**sent, "_was": move.revision, "_held": move.token})
        if moved.rowcount != 1:
            return False
        if rows := [past(row) for row in move.rows()]:
            await self._connection.execute(sql.insert_history, rows)
        if move.letters:
            await self._connection.execute(sql.insert_letters, [kept_letter(letter) for letter in move.letters])
        return True

    # --- the end -----------------------------------------------------------------------------------------------------

    async def commit(self) -> None:
        """Commit the transaction that was opened, and no other.

        Raises:
            SagaStateError: The step has ended it itself.
        """
        self._is_closing = True
        try:
            await self._bracket.commit()
        except TransactionEndedError:
            self.may_stand = True
            raise SagaStateError(LEFT) from None
        except asyncio.CancelledError:
            self._is_cut = True
            raise
        except Exception as error:
            if is_conflict(error):
                self._conflict = error
            # the database has answered that it does not commit; a server that goes away may have committed
            self._is_undone = bool(sqlstate_of(error)) and not sqlstate_of(error).startswith(_GOES_AWAY)
            raise

    async def roll_back(self) -> None:
        """Roll back, and find out whether that undoes all that the step has written.

        A connection that is lost cannot be asked. Then it is undone if nothing was sent that could have committed it.
        """
        self._is_closing = True
        lost, stood = self._connection.invalidated, False
        try:
            stood = not lost and await self._bracket.rollback()
        except BaseException as error:
            lost = True
            if not isinstance(error, Exception):
                raise
            logger.debug("a step's transaction could not be rolled back; its connection is given up: {!r}", error)
            await self._connection.invalidate()
        finally:
            is_unproved = lost or self._is_cut  # whether the engine's own commit came through, the row says
            is_undone = stood or self._is_undone or (is_unproved and await self._bracket.is_undone())
            self.may_stand = self._is_left or not is_undone

    # --- what the step does with its connection ----------------------------------------------------------------------

    def refuse_commit(self, connection: Connection) -> None:
        if not self._is_closing:
            self._ended = "committed"
            raise SagaStateError("ctx.session is for the engine to commit, with the record of the step.")

    def note_rollback(self, connection: Connection) -> None:
        if not self._is_closing and self._ended != "rolled back":
            self._ended = self._ended or "rolled back"
            self._bracket.look_before_rollback(connection)

    def forget_conflict(self, *_: object) -> None:
        self._conflict = None

    def look_before(self, connection: Connection, cursor: object, statement: str, *_: object) -> None:
        """Refuse a statement after the step has ended its session; see whether the transaction is open before it."""
        self.look()
        self._bracket.see(statement)
        if self._ended and not self._is_closing and PROOF not in statement:
            raise SagaStateError(self._why_ended())

    def look(self, *_: object) -> None:
        """Look after each statement whether the transaction is still open: a COMMIT of the step's own ends it."""
        if self._is_closing or self._ended:
            return
        if self._bracket.is_open() is self._is_undone:  # it is over, or another has begun since
            self._is_left = True

    def _why_ended(self) -> str:
        return (
            f"the step has {self._ended} ctx.session itself, which is for the engine to commit, with the record of "
            "the step; nothing of it has been kept"
        )

    def _committed(self, session: Session) -> None:
        if not self._is_closing and not session.in_nested_transaction():
            self._ended = "committed"

    def _rolled_back(self, session: Session, ended: SessionTransaction) -> None:
        if ended.parent is None:
            self._ended = self._ended or "rolled back"


_watched: WeakKeyDictionary[Connection, SagaTransaction] = WeakKeyDictionary()


def watch_connections(engine: AsyncEngine) -> None:
    """Have what happens on an engine's connections told to the transactions of steps on them.

    The listeners are the engine's, because to add some to each connection takes longer than a statement.
    """
    for name, listener in _LISTENERS.items():
        if not event.contains(engine.sync_engine, name, listener):
            event.listen(engine.sync_engine, name, listener)


def is_of_a_step(connection: Connection) -> bool:
    """Return whether a connection is that of a step's transaction, which the engine commits."""
    return connection in _watched


def _note_error(context: ExceptionContext) -> None:
    found = None if context.connection is None else _watched.get(context.connection)
    error = context.sqlalchemy_exception or context.original_exception
    if found is not None and isinstance(error, Exception):
        found.note(error)


def _telling(tell: Callable[..., None]) -> Callable[..., None]:
    """Return a listener that tells the step's transaction on a connection; there is none on most."""

    def listener(connection: Connection, *rest: Any) -> None:
        if _watched and (found := _watched.get(connection)) is not None:
            tell(found, connection, *rest)

    return listener


_LISTENERS: Mapping[str, Callable[..., None]] = {
    "handle_error": _note_error,
    "commit": _telling(SagaTransaction.refuse_commit),
    "rollback": _telling(SagaTransaction.note_rollback),
    "rollback_savepoint": _telling(SagaTransaction.forget_conflict),
    "before_cursor_execute": _telling(SagaTransaction.look_before),
    "after_cursor_execute": _telling(SagaTransaction.look),
}


def keep_failure(session: object, error: BaseException | None) -> None:
    """Keep the error that a step has raised with the session of its transaction, if it has one."""
    if isinstance(session, AsyncSession):
        session.info[_FAILURE] = error


def is_conflict(error: BaseException) -> bool:
    """Return whether a database has refused a step's transaction for what passes: another's, or a lost connection."""
    try:
        return _is_conflict(error)
    except Exception:  # noqa: BLE001 - an error of the author's may raise when it is looked at
        return False


def _is_conflict(error: BaseException) -> bool:
    if isinstance(error, DatabaseTimeoutError):  # of a call of the engine's in the step's transaction
        return not error.advice  # the step's own transaction may hold what the call has waited for
    is_driver = isinstance(error, DBAPIError) or type(error).__module__.partition(".")[0] in ("asyncpg", "sqlite3")
    return is_driver and not _is_own(sqlstate_of(error)) and is_passing(error)


def is_own(error: BaseException) -> bool:
    """Return whether a database says that the step was wrong, as with what it does after an error."""
    try:
        return _is_own(sqlstate_of(error))
    except Exception:  # noqa: BLE001 - as above
        return False


def _is_own(state: str) -> bool:
    return state.startswith(_ITS_OWN) and state != _READ_ONLY


@asynccontextmanager
async def transaction(database: Database, seconds: float | None = None) -> AsyncIterator[SagaTransaction]:
    """Open a transaction for a step: committed at the end, rolled back on an error."""
    async with database.dialect.taking_turns(database.engine, seconds) as (connection, bracket):
        await bracket.open()
        opened = SagaTransaction(connection, bracket, database)
        try:
            yield opened
            await opened.commit()
        except BaseException:
            with suppress(SagaStateError):
                await opened.roll_back()
            raise
        finally:
            opened.session.sync_session.expunge_all()
