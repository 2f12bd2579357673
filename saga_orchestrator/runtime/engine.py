"""The engine: apply events to sagas through the store, and drive those that this process owns.

There are four doors by which a saga comes into this process's hands: it is born here (`start`), it is due
(`run_due`), it was started in a caller's transaction that has just committed (`wake`), or an order or a notification
has set it going (`advance`). Behind each door is the same driver. The engine owns its tasks: a caller that is
cancelled while it waits for a saga does the saga no harm.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import UUID

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from ..definition.io import PayloadCodec, Payloads
from ..errors import SagaNotFoundError, SagaStateError
from ..kernel.events import Event
from ..kernel.order_events import FailureOrdered
from ..storage.contract import Store
from ..storage.database_errors import is_passing
from ..storage.dialect import Clock
from ..storage.group_commit import GroupCommit
from ..storage.limits import Timeouts
from ..storage.mixins import SagaStateMixin
from ..storage.opening import store_of
from ..storage.rows import Birth, Head, Judge, Letter, Move, Written
from ..storage.store import SagaStore
from .aftermath import Aftermath, driver_of, leaves_more
from .alarm import GRACE
from .background import Background, ended_within
from .birth import Beginning, StartResult, unborn
from .children import SagaChildren
from .claims import Claims, Intake
from .clock import DatabaseClock
from .driver import Driver
from .error_text import log_failure, show
from .failing import CUT_OFF, CompensationResult, Outcome
from .home import Home
from .inside import Inside, driving, inside, refuse, waiting_for
from .late_doubts import late_doubts
from .lease import LeaseKeeper
from .mailroom import Mailroom, Sending
from .notices import Notice
from .numbers import LARGEST, check_count, check_settings
from .performer import Performer
from .progress import ProgressBoard
from .reading import SagaReader
from .registry import Registry
from .rounds import Rounds
from .schema import SchemaCheck
from .setbacks import is_of_the_database, set_back
from .surrender import Surrenders
from .tenure import Tenure
from .threads import THREADS, Threads, make_current
from .tools import Tools

ModelT = TypeVar("ModelT", bound=SagaStateMixin)
_LEASED = 0.9
"""The part of a lease that one call to the database may take."""
_STARTS = 3
"""How often a start is tried whose rival is over by the time one asks who it was."""


class SagaEngine(Generic[ModelT]):
    """Runs the sagas of one table. Service code uses it through `SagaOrchestrator`, operators through `SagaAdmin`.

    Args:
        execution_lease: How long a saga stays its owner's without a sign of life.
        database_timeout: How long one call to the database may take; at most 90 % of the lease.
        store: Instead of the model's own tables; for tests.
        clock: Instead of the database's; for tests.
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
        check_settings(execution_lease, database_timeout, event_retention, max_payload_bytes, payload_codec)
        self.home = Home()
        lease = execution_lease.total_seconds()
        self._limit = min(database_timeout.total_seconds(), lease * _LEASED)
        self._store: Store = store or store_of(model_class, session_maker, clock, Timeouts.within(lease, self._limit))
        self._check_values: Callable[[Any], None] = (
            self._store.check_values if isinstance(self._store, SagaStore) else _accept
        )
        self.registry = Registry(
            encrypts=payload_codec is not None, has_sessions=getattr(self._store, "has_sessions", True)
        )
        self.payloads = Payloads(max_payload_bytes, payload_codec)
        self.lease = execution_lease
        self.owner = f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(6)}"
        self.drivers: dict[UUID, Driver] = {}
        self._clock = DatabaseClock(self.store.now)
        self._commits = GroupCommit(self.store.write, patience=execution_lease)
        self.now: Callable[[], datetime] = self._clock.now if clock is None else clock.now
        """Returns the database's time."""
        self._leases = LeaseKeeper(self.owner, execution_lease, self.store, self._clock, self.drivers)
        self._leases.is_stuck = self._commits.is_stuck
        self.surrenders = Surrenders(self.owner, self._store.disown)
        self._leases.surrender = self.surrenders.add
        self._claims = Claims(self.registry, self.owner, self.lease, self.payloads, self.surrenders.has)
        self._mailroom = Mailroom(self, SagaReader(self._claims, self.payloads), event_retention)
        self.board = ProgressBoard(self.owner, self.store, self.now)
        children = SagaChildren(self, self._claims)
        performer = Performer(self.payloads, children, self.board, self._leases.trusted_until)
        self.threads = Threads(threads)
        context = copy_context()
        context.run(make_current, self.threads)
        self.background = Background(context)
        self._deliveries = Rounds(self.background, self._limit, self._mailroom.deliver_due)
        collect = partial(self.background.outcome, self._mailroom.collect)  # to the end, whoever has stopped waiting
        self._tools = Tools(self._commits, performer, self.now, collect, self.threads, late_doubts(self, self._claims))
        self._schema = SchemaCheck(self._store, self.background)
        self._claiming: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def store(self) -> Store:
        """The store of the engine's sagas, for calls in its own event loop."""
        self.home.check()
        return self._store

    # --- the doors -------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Refuse what needs an engine that is open.

        Raises:
            SagaStateError: The engine has been closed.
        """
        if self._closed:
            raise SagaStateError("This orchestrator has been closed; make a new one.")

    async def ready(self, session: AsyncSession | None = None) -> None:
        """Be ready to touch a saga; with a caller's session, by its connection and no other.

        Raises:
            SagaStateError: The engine has been closed, or belongs to another event loop.
            SagaSchemaError: A table of the sagas is missing, or is of another version.
        """
        self.home.enter()
        self.check_open()
        await self._schema.check(session)
        if not self._clock.is_ready:
            await self._clock.ready(None if session is None else partial(self.store.now, session))

    async def ready_to_read(self) -> None:
        """Be ready to look at a saga, also once the engine has been closed.

        Raises:
            SagaStateError: The engine belongs to another event loop.
            SagaSchemaError: A table of the sagas is missing, or is of another version.
        """
        self.home.check()
        await self._schema.check()

    async def start(self, beginning: Beginning) -> StartResult:
        """Make a saga durable, and drive it until it ends or waits. A cancelled caller leaves it running."""
        self._check_values(beginning.values)
        await self.ready()
        return await self.background.outcome(self._start, beginning, inside())

    async def _start(self, beginning: Beginning, caller: Inside | None) -> StartResult:
        for tries in range(1, _STARTS + 1):
            lease_until = asyncio.get_running_loop().time() + self.lease.total_seconds()
            birth, state = self._claims.born(beginning, self.now())
            if await self._written(birth) is not Written.TAKEN:
                started = StartResult(birth.head.id, created=True)
                if state is None:
                    return started
                tenure = Tenure.of_newborn(birth.head, beginning.initial, beginning.definition, state, self.store)
                tenure.lease_until = lease_until
                with waiting_for(tenure.saga_id, "start", caller):
                    await self._drive(tenure)
                return started
            rival = await self.store.rival(birth)
            if rival is not None or tries == _STARTS:
                existing = self._claims.rival(beginning, birth, rival)
                return await self._existing(existing.id, caller)
        raise AssertionError("unreachable")

    async def _written(self, birth: Birth) -> Written:
        try:
            return await self._commits.submit(birth)
        except Exception as error:
            if is_passing(error):  # it may stand all the same
                self.surrenders.add(birth.head.id, birth.head.step_execution_token)
            raise

    async def _existing(self, saga_id: UUID, caller: Inside | None) -> StartResult:
        """Answer a start that met a saga of the same key."""
        with waiting_for(saga_id, "start", caller):
            await self._driven(saga_id)
        return StartResult(saga_id, created=False)

    async def add(self, session: AsyncSession, wanted: Beginning) -> StartResult:
        """Insert a saga that nobody owns in the caller's transaction, unless its key has started it before.

        Raises:
            ActiveSagaAlreadyExistsError: The aggregate has an active saga.
            IdempotencyConflictError: The key has started another saga.
        """
        self._check_values(wanted.values)
        birth = unborn(wanted, self.now())
        rival = await self.store.add(session, birth)
        if rival is None:
            return StartResult(birth.head.id, created=True)
        existing = self._claims.rival(wanted, birth, rival[0]).id
        refuse(existing, "start", inside())
        return StartResult(existing, created=False)

    async def check_key(self, wanted: Beginning) -> None:
        """Refuse a start whose key has started another saga, before anything is written.

        Raises:
            IdempotencyConflictError: It has.
        """
        if wanted.idempotency_key is not None:
            found = await self.store.started(wanted.saga_name, wanted.idempotency_key)
            if found is not None:
                self._claims.rival(wanted, unborn(wanted, self.now()), found)

    async def run_due(self, limit: int) -> int:
        """Claim up to `limit` due sagas, drive them all until each ends or waits; return how many are driven.

        It delivers events that are due, for at most twice `database_timeout`. Those whose saga another transaction
        holds are left to a later call.

        Raises:
            SagaStateError: A step has called it; it would wait for sagas that may wait for the step's own.
        """
        check_count("limit", limit, least=0, most=LARGEST)
        if (caller := inside()) is not None:
            raise SagaStateError(f"Saga {caller.saga_id}: run_due was called from its step; let a SagaWorker call it.")
        driving = await self.claim_due(limit)
        if under_way := [*driving, *self._deliveries.under_way]:
            await asyncio.shield(asyncio.wait(under_way))
        return len(driving)

    async def claim_due(self, limit: int) -> list[asyncio.Task[None]]:
        """Claim up to `limit` due sagas and begin to drive them; return a task for each, done when it ends or waits.

        Events that are due are delivered in the background, so that none holds up a claim.
        """
        await self.ready()
        claiming = self.background.begin(self._claim_due(limit))
        self._claiming.add(claiming)
        claiming.add_done_callback(self._claiming.discard)
        driving = await asyncio.shield(claiming)
        self._deliveries.begin(limit)
        return driving

    async def _claim_due(self, limit: int) -> list[asyncio.Task[None]]:
        lease_until = asyncio.get_running_loop().time() + self.lease.total_seconds()
        with self.surrenders.heeding(self._claims.judge) as judge:
            pairs = await self.store.claim(self.registry.claimable, limit, judge)
        return [task for head, move in pairs if (task := self._launch(head, move, lease_until)) is not None]

    async def wake(self, saga_id: UUID) -> None:
        """Look at one saga now: claim and drive it if it is due, and return when it ends or waits."""
        await self.ready()
        with waiting_for(saga_id, "resume", inside()):
            await self.background.outcome(self._wake, saga_id)

    async def _wake(self, saga_id: UUID) -> None:
        head, move, since = await self.apply(saga_id, self._claims.judge_if_due)
        lease_until = since + self.lease.total_seconds()
        if move is not None and (task := self._launch(head, move, lease_until)) is not None:
            await asyncio.wait([task])
        else:
            await self._driven(saga_id)

    async def rest(self, saga_id: UUID, seconds: float) -> None:
        """Wait a while, or until this process has no more to do for the saga."""
        if not await self._driven(saga_id):
            await asyncio.sleep(seconds)
        self.check_open()

    async def _driven(self, saga_id: UUID) -> bool:
        """Wait until this process has no more to do for the saga; return False if it has nothing to do with it."""
        driver = self.drivers.get(saga_id)
        if driver is None:
            return False
        await asyncio.wait([driver.task])
        return True

    def wake_soon(self, saga_ids: Iterable[UUID]) -> None:
        """Look at some sagas in the background."""
        for saga_id in saga_ids:
            _ = self.background.begin(self._wake_quietly(saga_id))

    async def _wake_quietly(self, saga_id: UUID) -> None:
        try:
            await self.wake(saga_id)
        except SagaNotFoundError:  # it was rolled back with a savepoint
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, run_due will find the saga again
            if not self._closed:
                logger.warning("saga {} could not be woken at once: {}", saga_id, show(error, self.payloads))

    async def advance(self, saga_id: UUID, event: Event) -> str:
        """Apply an event from outside, durably, and drive the saga if the event has set it going.

        Returns:
            The verdict's name.

        Raises:
            SagaNotFoundError: No saga has this id.
            SagaStateError: The order is refused; the message says what is allowed.
        """
        await self.ready()
        with waiting_for(saga_id, "an order", inside()):
            return await self.background.outcome(self._advance, saga_id, Intake(self._claims, event))

    async def notify(self, saga_id: UUID, token: UUID, event: Any) -> str:
        """End the wait of this token; see `SagaOrchestrator.notify`. Returns the verdict's name."""
        await self.ready()
        notice = Notice(self._claims, payloads=self.payloads, token=token, said=event)
        caller = inside()
        if caller is not None and caller.saga_id == saga_id:  # it is driven already, so that nothing is waited for
            return await self.background.outcome(self._advance, saga_id, notice)
        with waiting_for(saga_id, "notify", caller):
            return await self.background.outcome(self._advance, saga_id, notice)

    async def _advance(self, saga_id: UUID, intake: Intake) -> str:
        head, move, since = await self.apply(saga_id, intake.judge)
        intake.raise_if_refused(head)
        if (task := self.follow(head, move, since)) is not None:
            await asyncio.wait([task])
        return intake.verdict.value

    async def deal(self, saga_id: UUID, order: FailureOrdered) -> Outcome:
        """Claim an action on a saga that has failed, durably, and then call its hook; return what has come of it.

        Raises:
            SagaNotFoundError: No saga has this id.
            SagaStateError: The order is refused, and no hook was called; the message names what is under way.
        """
        await self.ready()
        with waiting_for(saga_id, "an order", inside()):
            return await self.background.outcome(self._deal, saga_id, Intake(self._claims, order))

    async def _deal(self, saga_id: UUID, intake: Intake) -> Outcome:
        head, move, since = await self.apply(saga_id, intake.judge)
        intake.raise_if_refused(head)
        drivers: list[Driver] = []
        task = None if move is None else self._launch(head, move, since + self.lease.total_seconds(), drivers)
        if task is not None:
            await asyncio.wait([task])
        found = [driver.outcome for driver in drivers if isinstance(driver, Aftermath) and driver.outcome is not None]
        return found[0] if found else Outcome(CompensationResult(False, CUT_OFF))

    async def signal(self, letter: Letter, session: AsyncSession | None = None) -> Sending:
        """Keep an event durably, in the session's transaction if there is one, and deliver it: `Mailroom.signal`."""
        await self.ready(session)
        return await self._mailroom.signal(letter, session)

    # --- driving ---------------------------------------------------------------------------------------------

    async def apply(self, saga_id: UUID, judge: Judge) -> tuple[Head, Move | None, float]:
        """Apply a judge to one saga, durably; return the row, its move, and when that was begun.

        When the call fails, the engine gives up what the judge has given to it.
        """
        since = asyncio.get_running_loop().time()
        with self.surrenders.heeding(judge) as heeded:
            head, move = await self.store.advance(saga_id, heeded)
        return head, move, since

    def follow(self, head: Head, move: Move | None, since: float) -> asyncio.Task[None] | None:
        """Drive a saga that has just been moved, if that gave it to this engine; else tell its driver."""
        task = None if move is None else self._launch(head, move, since + self.lease.total_seconds())
        if task is None and (driver := self.drivers.get(head.id)) is not None:
            driver.refresh()
        return task

    def _launch(
        self, head: Head, move: Move, lease_until: float, drivers: list[Driver] | None = None
    ) -> asyncio.Task[None] | None:
        """Drive a saga that a move has just given to this engine; None if it did not. `drivers` gets its driver."""
        if move.letters:
            self._mailroom.look_soon(head.parent_id)
        if move.ownership is None or move.ownership.lease_owner != self.owner:
            return None
        tenure = self._claims.tenure(head, move, self.store, lease_until)
        return self.background.begin(self._drive(tenure, drivers))

    async def _drive(self, tenure: Tenure, drivers: list[Driver] | None = None) -> None:
        driver = driver_of(tenure, self._tools, self._claims, self.payloads)
        if drivers is not None:
            drivers.append(driver)
        if (older := self.drivers.get(saga_id := tenure.saga_id)) is not None:
            if older.tenure.revision > tenure.revision:  # the answer came so late that the saga was taken again since
                await self._driven(saga_id)
                return
            older.lose()  # its lease ran out, and it was this engine that took the saga
        self.drivers[saga_id] = driver
        self._leases.wake()
        in_time = self._leases.lasts(tenure.lease_until)
        try:
            with driving(saga_id, tenure.parent_id):
                await (driver.run() if in_time and not self._closed else driver.release())
        except Exception as error:  # noqa: BLE001 - one saga's trouble must not reach the others
            log_failure(error, f"saga {saga_id}: driving it failed by itself", self.payloads)
            if is_passing(error) and not self._leases.lasts(tenure.lease_until):  # it may end before that is written
                self.surrenders.add(saga_id, tenure.token)
            if not await set_back(self.store, tenure, error, self.payloads) and is_of_the_database(error):
                self.surrenders.add(saga_id, tenure.token)
        finally:
            if self.drivers.get(saga_id) is driver:
                del self.drivers[saga_id]
        if tenure.has_ended and not self._closed:
            self._mailroom.look_soon(tenure.parent_id)
        if not in_time or leaves_more(driver):  # too late an answer: only a new lease can be believed in
            await self._wake_quietly(saga_id)

    # --- the end ---------------------------------------------------------------------------------------------

    async def release_all(self) -> None:
        """Hand back every lease at once; the work in flight is cut off, and others take over without delay.

        It ends within `database_timeout` and twice the grace of a step (5 s), whatever the database does. Leases that
        could not be handed back by then run out.
        """
        await self._hand_back()

    async def _hand_back(self) -> bool:
        """Hand back every lease; return False if some could not be handed back in time."""
        in_time = await ended_within(self._limit + 2 * GRACE.total_seconds(), self._release_all())
        if not in_time:
            logger.error("{} sagas could not be handed back in time; their leases run out", len(self.drivers))
        return in_time

    async def _release_all(self) -> None:
        if under_way := {*self._claiming, *self._deliveries.end()}:
            await asyncio.wait(under_way)
        await asyncio.gather(*(self._release(*each) for each in tuple(self.drivers.items())), return_exceptions=True)

    async def _release(self, saga_id: UUID, driver: Driver) -> None:
        try:
            await driver.release()
        except Exception as error:  # noqa: BLE001 - one saga's trouble must not reach the others
            log_failure(error, f"saga {saga_id}: it could not be handed back; it is left to its lease", self.payloads)
            if is_of_the_database(error):
                self.surrenders.add(saga_id, driver.tenure.token)

    async def aclose(self) -> None:
        """Hand back every lease and every connection; the engine cannot be used again.

        It ends within twice the time that `release_all` may take, and what has not ended by then is cut off. All
        callers wait for the same end. A caller that is cancelled does not stop it.
        """
        self.home.check()
        if (caller := inside()) is not None and caller.saga_id in self.drivers:
            raise SagaStateError(f"Saga {caller.saga_id}: aclose was called from its step, which it would wait for.")
        if self._closing is None:
            self._closed = True
            self._closing = asyncio.get_running_loop().create_task(self._close_in_time(), name="saga-closing")
        elif self._closing.done():
            return
        await asyncio.shield(self._closing)

    async def _close_in_time(self) -> None:
        if not await self._hand_back():
            self.background.cut_off()
        self.threads.close()
        if not await ended_within(self._limit + 2 * GRACE.total_seconds(), self._close()):
            logger.error("the engine could not be closed in time; what it has at work is cut off")
            self.background.cut_off()

    async def _close(self) -> None:
        await self.background.join()  # a saga that has just been started hands itself back meanwhile
        await self._commits.aclose()
        await self._leases.aclose()
        await self.surrenders.aclose()
        await self.board.aclose()
        await self.store.aclose()


def _accept(values: Any) -> None:
    """Have nothing to say of values: a store without a model, as that of a test, knows no columns of its user's."""
