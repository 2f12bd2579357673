"""`SagaOrchestrator`: what service code calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from ..definition.io import PayloadCodec
from ..definition.saga import SagaDefinition
from ..errors import SagaDefinitionError, SagaFailedError
from ..kernel.state import SagaStatus
from ..storage.contract import Store
from ..storage.dialect import Clock
from ..storage.mixins import SagaStateMixin
from .after_commit import after_commit
from .birth import OnConflict, StartResult
from .deciding import Decider
from .engine import SagaEngine
from .numbers import check_duration
from .owned import check_own, session_of
from .pausing import Pausing
from .receiving import Start
from .snapshots import SagaResult, SagaSnapshot, result, snapshot
from .texts import check_saga_id
from .threads import THREADS
from .watching import ended, head_of, moves

ModelT = TypeVar("ModelT", bound=SagaStateMixin)


class SagaOrchestrator(Decider, Pausing, Generic[ModelT]):
    """Starts sagas, wakes them, and tells what became of them. One per saga table and process; it is safe to share.

    Whatever has returned from `start` is durable: a crash of this process, at any moment, loses no saga. Another
    process that calls `run_due` (a `SagaWorker` does) takes over what this one leaves.

    Args:
        model_class: The mapped class with `SagaStateMixin`.
        session_maker: Bound to the AsyncEngine of the application's database.
        execution_lease: How long a saga stays its owner's without a sign of life, and so how long a crash delays it.
            Steps
            may take longer: leases are renewed while their owner lives.
        max_payload_bytes: The most that one input, output or `initial_data` may take, as JSON in UTF-8.
        payload_codec: Encodes payloads at rest, for example to encrypt them.
        event_retention: How long an event is kept, and known again: one that nobody has waited for is gone then.
        database_timeout: How long one call to the database may take; at most 90 % of the lease. Then its connection is
            given up. A write whose answer did not come is looked up by its row, and made again if it is not there.
        threads: How many plain functions are at work at once. Others queue; a step's time begins with its function.

    Raises:
        SagaDefinitionError: The session maker is not bound to an engine, or to one that cannot hold sagas.
    """

    def __init__(
        self,
        *,
        model_class: type[ModelT] | None = None,
        session_maker: async_sessionmaker[AsyncSession] | None = None,
        execution_lease: timedelta = timedelta(seconds=30),
        max_payload_bytes: int = 1 << 20,
        payload_codec: PayloadCodec | None = None,
        event_retention: timedelta = timedelta(days=30),
        database_timeout: timedelta = timedelta(seconds=10),
        threads: int = THREADS,
        store: Store | None = None,
        clock: Clock | None = None,
    ) -> None:
        if store is None:
            check_own(model_class, session_maker)
        self._engine: SagaEngine[ModelT] = SagaEngine(
            model_class=model_class,
            session_maker=session_maker,
            execution_lease=execution_lease,
            max_payload_bytes=max_payload_bytes,
            payload_codec=payload_codec,
            event_retention=event_retention,
            database_timeout=database_timeout,
            threads=threads,
            store=store,
            clock=clock,
        )

    @property
    def engine(self) -> SagaEngine[ModelT]:
        """The engine, for `SagaAdmin`."""
        return self._engine

    def register(self, name: str, definition: SagaDefinition) -> None:
        """Make a definition known under a name; several versions of one name may be known at once.

        New sagas start with the newest version, running ones keep theirs.

        Raises:
            SagaDefinitionError: This version of the name is registered already.
        """
        self._engine.registry.register(name, definition)

    async def start(
        self,
        *,
        saga_name: str,
        initial_data: BaseModel | Mapping[str, Any] | Any,
        aggregation_id: str,
        trace_id: str | None = None,
        session: AsyncSession | None = None,
        idempotency_key: str | None = None,
        on_conflict: OnConflict = "refuse",
        priority: int = 0,
        values: Mapping[str, Any] | None = None,
    ) -> UUID:
        """Start a saga durably, and drive it until it ends or waits.

        What a step does is not raised: read the snapshot. Cancelling the caller does the saga no harm.

        With `session` the saga is only written, in the caller's own transaction: it exists if and when the caller
        commits, and then starts at once in this process. If the caller rolls back, also to a savepoint, nothing is
        left.

        While the database is away the write is tried again, for one `execution_lease` and at most one call longer.

        Args:
            initial_data: A Pydantic model, or plain data with datetimes, Decimals, UUIDs, Enums and bytes.
            aggregation_id: What the saga is about; at most one saga of the table is active for it. 1 to 255 characters.
            trace_id: Links the saga to a request; made up, in the form of a W3C trace id, if None.
            idempotency_key: A start repeated under the same key answers with the first one's id; each `saga_name` has
                keys of its own. Where you write rows of your own beside it, use `start_once`.
            on_conflict: What a start does whose key has started a saga for another aggregate, or with other
                `initial_data`. "refuse" raises; "first" answers with that saga's id.
            priority: Higher first, among the sagas that are due.
            values: The model's own columns.

        Raises:
            SagaDefinitionError: The name is not registered.
            ActiveSagaAlreadyExistsError: The aggregate has an active saga; the error names it.
            IdempotencyConflictError: The key has started another saga; the error names it.
            PayloadError: `initial_data` cannot be stored; nothing was written.
            DatabaseTimeoutError: The database gave no answer in that time; the saga may have been started.
        """
        started = await self.start_once(
            saga_name=saga_name,
            initial_data=initial_data,
            aggregation_id=aggregation_id,
            trace_id=trace_id,
            session=session,
            idempotency_key=idempotency_key,
            on_conflict=on_conflict,
            priority=priority,
            values=values,
        )
        return started.saga_id

    async def start_once(self, *, session: AsyncSession | None = None, **wanted: Unpack[Start]) -> StartResult:
        """Start a saga as `start` does, and tell whether this call has made it.

        A repeated start under the same `idempotency_key` is answered with the first one's saga, and `created` False;
        so a caller that writes rows of its own in the same transaction knows that it has written them before.

        Raises:
            SagaError: As for `start`.
        """
        beginning = self._beginning(**wanted)
        if session is None:
            return await self._engine.start(beginning)
        session = session_of(session)
        await self._engine.ready(session)
        started = await self._engine.add(session, beginning)
        if started.created:
            after_commit(session.sync_session, partial(self._engine.wake_soon, [started.saga_id]))
        return started

    async def run_due(self, limit: int = 100) -> int:
        """Take over and drive up to `limit` due sagas, until each ends or waits; return how many were driven.

        A saga that needs no step any more, as when its wait has run out and it is not undone, is not counted.

        Due are: those whose owner has vanished, those whose pause before a retry is over, those started in a
        transaction and not begun yet. Safe to call from any number of processes. A saga that this process does not
        know, or that makes no sense, stops none of the others.
        """
        return await self._engine.run_due(limit)

    async def resume(self, saga_id: UUID) -> None:
        """Look at one saga now: drive it if it is due. One that an operator has paused stays paused.

        Raises:
            SagaNotFoundError: No saga has this id.
        """
        check_saga_id(saga_id)
        await self._engine.wake(saga_id)

    async def get_snapshot(self, saga_id: UUID) -> SagaSnapshot:
        """Return where a saga stands, without locking it.

        Raises:
            SagaNotFoundError: No saga has this id.
        """
        return snapshot(await head_of(self._engine, saga_id), self._engine.registry, self._engine.payloads)

    async def watch(self, saga_id: UUID) -> AsyncIterator[SagaSnapshot]:
        """Yield where a saga stands, and again whenever it has moved or shown progress; end when it is over, or STUCK.

        What follows quickly on each other comes as one. It does not matter which process drives the saga.

        Raises:
            SagaNotFoundError: No saga has this id.
            SagaStateError: A step watches its own saga, which has nothing else under way, so it would wait for itself.
        """
        async for head in moves(self._engine, saga_id):
            yield snapshot(head, self._engine.registry, self._engine.payloads)

    async def result(self, saga_id: UUID, timeout: timedelta | None = None) -> SagaResult:
        """Wait until a saga is over, or STUCK, and return what it has come to.

        It only waits: a saga that rests until a time, as before its next attempt, goes on when some process calls
        `run_due`, as a `SagaWorker` does. A step that waits for its own saga is refused, but not from a thread of its
        own making, such as one of `run_in_executor`: give `timeout` there.

        Raises:
            SagaNotFoundError: No saga has this id.
            TimeoutError: It took longer than `timeout`; the saga goes on.
        """
        if timeout is not None:
            check_duration("timeout", timeout, least=None)
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            head = await ended(self._engine, saga_id)
        rows = (await self._engine.store.history([saga_id]))[saga_id]
        return result(head, rows, self._engine.registry, self._engine.payloads)

    async def run(
        self, *, raise_on_error: bool = True, timeout: timedelta | None = None, **wanted: Unpack[Start]
    ) -> SagaResult:
        """Start a saga, wait until it is over, and return what it has come to.

        It is as durable as any: when the caller is cancelled, or its process dies, the saga goes on.

        Args:
            raise_on_error: False returns the result of a saga that has not completed, too.
            timeout: How long to wait; the saga goes on.

        Raises:
            SagaFailedError: It is over, or STUCK, and has not completed.
            TimeoutError: It took longer than `timeout`.
            SagaError: As for `start`.
        """
        if timeout is not None:
            check_duration("timeout", timeout, least=None)
        result = await self.result(await self.start(**wanted), timeout)
        if raise_on_error and result.status is not SagaStatus.COMPLETED:
            raise SagaFailedError(result.saga_id, result.status.value, result.error, result.residue)
        return result

    async def aclose(self) -> None:
        """Hand back every lease at once, so that others take over without delay, and every connection.

        Work in flight is cut off, which costs it no attempt. The orchestrator cannot be used again; the SQLAlchemy
        engine, which is the application's, is left open.
        """
        await self._engine.aclose()

    async def __aenter__(self) -> Self:
        self._engine.home.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def engine_of(given: Any, whose: str) -> SagaEngine[Any]:
    """Return the engine of an orchestrator, or the engine itself.

    Raises:
        SagaDefinitionError: It is neither, most often the engine of SQLAlchemy.
    """
    if isinstance(given, SagaOrchestrator):
        return given.engine
    if isinstance(given, SagaEngine):
        return given
    raise SagaDefinitionError(f"{whose} is given {given!r:.80}; give it the orchestrator: {whose}(orchestrator).")
