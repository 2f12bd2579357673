"""What chaos found: each defect that `tests/chaos` brought to light, as a small test of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel
from sqlalchemy import event, text
from sqlalchemy.exc import InternalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import (
    BaseStep,
    InputContext,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    SagaStatus,
)
from saga_orchestrator.storage.contract import Store
from saga_orchestrator.storage.dialect import is_passing
from saga_orchestrator.storage.rows import Move, Write, Written
from saga_orchestrator.storage.store import SagaStore


class Base(DeclarativeBase):
    """The tables."""


class FoundSaga(Base, SagaStateMixin):
    """The sagas."""

    __tablename__ = "found_saga"


class Number(BaseModel):
    """A payload."""

    number: int = 0


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A database with the tables."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


def orchestrator_on(
    engine: AsyncEngine, definition: SagaDefinition, store: Store | None = None
) -> SagaOrchestrator[FoundSaga]:
    """Return an orchestrator whose leases never end within a test: what is handed back, was handed back."""
    orchestrator = SagaOrchestrator[FoundSaga](
        model_class=FoundSaga,
        session_maker=async_sessionmaker(engine),
        execution_lease=timedelta(hours=1),
        store=store,
    )
    orchestrator.register("found", definition)
    return orchestrator


def number_of(ctx: InputContext) -> Number:
    return Number(number=ctx.initial_data["number"])


class Probed(BaseStep[Number, Number]):
    """Is cut off in its first attempt, and can be asked afterwards."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def execute(self, inp: Number) -> Number:
        self.begun.set()
        await asyncio.Event().wait()
        return inp

    async def probe(self, inp: Number) -> Number | None:
        return Number(number=inp.number + 1)


async def test_an_attempt_lost_without_a_recorded_input_is_probed_with_its_input_made_again(
    engine: AsyncEngine,
) -> None:
    """The history of a lost attempt has no input: SQL's NULL, not the JSON null that once was read as an input."""
    step = Probed()
    builder = SagaBuilder()
    builder.add_step(step=step, step_id="probed", input_map=number_of)
    first, second = (orchestrator_on(engine, builder.build()) for _ in range(2))
    starting = asyncio.ensure_future(first.start(saga_name="found", initial_data={"number": 41}, aggregation_id="a"))
    await step.begun.wait()
    await first.aclose()
    saga_id = await starting
    async with second:
        assert await second.run_due() == 1
        result = await second.result(saga_id)
    assert (result.status, result.outputs) == (SagaStatus.COMPLETED, {"probed": {"number": 42}})
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT status, input IS NULL FROM found_saga_history ORDER BY seq"))
        assert [tuple(row) for row in rows] == [("IN_DOUBT", 1), ("SUCCESS", 0)]


class Blocking(BaseStep[Number, Number]):
    """Acts at once, except where it is told to go on for ever; so does its undo."""

    def __init__(self, blocks: str = "") -> None:
        self.blocks = blocks
        self.begun = asyncio.Event()

    async def execute(self, inp: Number) -> Number:
        await self._maybe_block("execute")
        return inp

    async def compensate(self, inp: Number, out: Number | None) -> None:
        await self._maybe_block("compensate")

    async def _maybe_block(self, where: str) -> None:
        if self.blocks == where:
            self.begun.set()
            await asyncio.Event().wait()


class Failing(BaseStep[Number, Number]):
    """Does not act, ever."""

    async def execute(self, inp: Number) -> Number:
        raise PermanentError("no")


async def test_closing_does_not_wait_for_the_lease_of_a_saga_with_a_step_in_flight(engine: AsyncEngine) -> None:
    """A driver that waits for its step is told that it has been released; once it slept until its lease ran out."""
    step = Blocking("execute")
    builder = SagaBuilder()
    builder.add_step(step=step, input_map=number_of)
    orchestrator = orchestrator_on(engine, builder.build())
    starting = asyncio.ensure_future(
        orchestrator.start(saga_name="found", initial_data={"number": 1}, aggregation_id="a")
    )
    await step.begun.wait()
    await orchestrator.aclose()
    await starting
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT status, lease_owner FROM found_saga"))).one()
    assert tuple(row) == ("RUNNING", None)


class Gate:
    """A store whose writes of moves wait until it is opened."""

    def __init__(self, store: SagaStore) -> None:
        self.store = store
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def write(self, batch: Sequence[Write]) -> list[Written]:
        if any(isinstance(item, Move) for item in batch):
            self.reached.set()
            await self.opened.wait()
        return await self.store.write(batch)


async def turns() -> None:
    """Let the event loop turn until nothing but the database could still make a difference."""
    for _ in range(50):
        await asyncio.sleep(0)


class Held(BaseStep[Number, Number]):
    """Returns once its number is let go."""

    def __init__(self) -> None:
        self.begun = {1: asyncio.Event(), 2: asyncio.Event()}
        self.let_go = {1: asyncio.Event(), 2: asyncio.Event()}

    async def execute(self, inp: Number) -> Number:
        self.begun[inp.number].set()
        await self.let_go[inp.number].wait()
        return inp

    async def compensate(self, inp: Number, out: Number | None) -> None: ...


async def test_a_release_while_a_commit_is_in_flight_loses_nothing_of_it(engine: AsyncEngine) -> None:
    """A step's result and the release of its saga, queued together, once shared a batch: one row for two writes."""
    builder, held, slow = SagaBuilder(), Held(), Blocking("execute")
    builder.add_step(step=held, step_id="held", input_map=number_of)
    builder.add_step(step=slow, step_id="slow", input_map=number_of)
    definition = builder.build()
    gate = Gate(SagaStore(FoundSaga, engine))
    first, second = orchestrator_on(engine, definition, gate), orchestrator_on(engine, definition)
    starting = [
        asyncio.ensure_future(first.start(saga_name="found", initial_data={"number": n}, aggregation_id=f"a-{n}"))
        for n in (1, 2)
    ]
    for begun in held.begun.values():
        await begun.wait()
    held.let_go[1].set()
    await gate.reached.wait()  # the group commit is busy with the first one's result,
    held.let_go[2].set()
    await turns()
    assert len(first.engine._commits._queue) == 1  # so the second one's has to queue,
    closing = asyncio.ensure_future(first.aclose())
    await turns()  # and now both sagas are to be released
    gate.opened.set()
    await closing
    saga_ids = [await task for task in starting]

    slow.blocks = ""
    async with second:
        assert await second.run_due() == 2
        assert [(await second.result(saga_id)).status for saga_id in saga_ids] == [SagaStatus.COMPLETED] * 2
        histories = await second.engine.store.history(saga_ids)
    for rows in histories.values():
        assert [row.seq for row in rows] == list(range(len(rows)))
        assert [row.step_id for row in rows if row.status == "SUCCESS"] == ["held", "slow"]


async def test_an_undo_cut_off_by_an_abort_is_recorded_as_in_doubt(engine: AsyncEngine) -> None:
    """The history says that nobody knows whether the undo happened, as it does of a step that is cut off."""
    step = Blocking("compensate")
    builder = SagaBuilder()
    builder.add_step(step=step, step_id="undone", input_map=number_of)
    builder.add_step(step=Failing(), step_id="failing", input_map=number_of)
    async with orchestrator_on(engine, builder.build()) as orchestrator:
        starting = asyncio.ensure_future(
            orchestrator.start(saga_name="found", initial_data={"number": 1}, aggregation_id="a")
        )
        await step.begun.wait()
        (saga,) = (await SagaAdmin(orchestrator.engine).list_sagas()).items
        await SagaAdmin(orchestrator.engine).abort(saga.id, actor="somebody", reason="enough")
        await starting
        found = await SagaAdmin(orchestrator.engine).get_saga(saga.id)
    assert (found.status, found.residue) == (SagaStatus.FAILED, ("undone",))
    assert ("COMPENSATE", "IN_DOUBT", "undone") in [(e.phase, e.status, e.step_id) for e in found.step_history]


def test_a_connection_that_is_about_to_close_is_a_passing_trouble() -> None:
    """PostgreSQL said good-bye to an idle connection; asyncpg then refuses to use it, with an error of its own."""
    refusal = asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
    assert is_passing(refusal)
    assert is_passing(InternalError("SELECT 1", None, refusal))
    assert not is_passing(asyncpg.InternalClientError("unexpected error"))


async def test_a_start_that_is_cancelled_in_its_session_leaves_sqlite_unlocked(sqlite_url: str) -> None:
    """A driver that is cut off closes its connection; with rows still to be read, SQLite would keep the lock."""
    engine = create_async_engine(sqlite_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    builder = SagaBuilder()
    builder.add_step(step=Blocking(), input_map=number_of)

    async def start() -> None:
        async with orchestrator_on(engine, builder.build()) as orchestrator, AsyncSession(engine) as session:
            await session.execute(text("DELETE FROM found_saga"))  # the transaction writes already
            await orchestrator.start(saga_name="found", initial_data={"number": 1}, aggregation_id="a", session=session)

    def cut_off(*arguments: Any) -> None:
        if "INSERT INTO found_saga" in arguments[2]:
            asyncio.get_running_loop().call_soon(starting.cancel)

    event.listen(engine.sync_engine, "before_cursor_execute", cut_off)
    starting = asyncio.ensure_future(start())
    with no_garbage_collection():
        await asyncio.wait([starting])
        assert starting.cancelled()
        with contextlib.closing(sqlite3.connect(engine.url.database or "", timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.rollback()
    await engine.dispose()


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Let nothing be closed by luck."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Deaf:
    """A store whose first renewal does not end when it is cut off, as one that waits for a dead server may not.

    It ends when it is cut off once more.
    """

    def __init__(self, store: SagaStore) -> None:
        self.store = store
        self.asked, self.cut, self.renewed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def renew(self, *arguments: Any) -> dict[Any, int]:
        if not self.asked.is_set():
            self.asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            self.cut.set()
            await asyncio.Event().wait()
        self.renewed.set()
        return await self.store.renew(*arguments)


def impatient(engine: AsyncEngine, store: Any) -> SagaOrchestrator[FoundSaga]:
    """Return an orchestrator with short leases, whose sagas last until they are cut off."""
    builder = SagaBuilder()
    builder.add_step(step=Blocking("execute"), input_map=number_of)
    orchestrator = SagaOrchestrator[FoundSaga](
        model_class=FoundSaga,
        session_maker=async_sessionmaker(engine),
        execution_lease=timedelta(seconds=0.6),
        store=store,
    )
    orchestrator.register("found", builder.build())
    return orchestrator


async def start_again_and_again(orchestrator: SagaOrchestrator[FoundSaga]) -> None:
    """Start sagas, one whenever the last has lost its lease."""
    for number in range(1_000):
        await orchestrator.start(saga_name="found", initial_data={"number": number}, aggregation_id=f"a-{number}")


async def test_a_renewal_that_does_not_end_is_not_the_last_one(engine: AsyncEngine) -> None:
    """A crash of PostgreSQL leaves one in a driver that waits for the dead server; no later lease was ever renewed."""
    store = Deaf(SagaStore(FoundSaga, engine))
    async with impatient(engine, store) as orchestrator:
        starting = asyncio.ensure_future(start_again_and_again(orchestrator))
        async with asyncio.timeout(60):
            await store.cut.wait()
            await store.renewed.wait()
        starting.cancel()


async def test_closing_does_not_wait_for_a_renewal_that_does_not_end(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off, and left behind if that is of no use."""
    monkeypatch.setattr("saga_orchestrator.runtime.background._PATIENCE", 0.01)
    store = Deaf(SagaStore(FoundSaga, engine))
    orchestrator = impatient(engine, store)
    starting = asyncio.ensure_future(start_again_and_again(orchestrator))
    async with asyncio.timeout(60):
        await store.asked.wait()
        starting.cancel()
        await orchestrator.aclose()
    assert store.cut.is_set()


class Late:
    """A store whose orders are answered when it is opened, although they are carried out."""

    def __init__(self, store: SagaStore) -> None:
        self.store = store
        self.ordered, self.opened = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def advance(self, *arguments: Any) -> Any:
        answer = await self.store.advance(*arguments)
        self.ordered.set()
        await self.opened.wait()
        return answer


async def test_closing_waits_for_what_an_order_in_flight_sets_going(engine: AsyncEngine) -> None:
    """A task that tells an aborted child's parent begins while the engine closes; it once ran on behind its back."""
    parent, child = SagaBuilder(), SagaBuilder()
    parent.add_child("waiting", input_map=lambda ctx: dict(ctx.initial_data))
    child.add_event("never", step_id="never")
    async with orchestrator_on(engine, parent.build()) as first:
        first.register("waiting", child.build())
        await first.start(saga_name="found", initial_data={"number": 1}, aggregation_id="a")
        while not (waiting := await SagaAdmin(first.engine).list_sagas(awaiting="event:never")).items:
            pass
    late = Late(SagaStore(FoundSaga, engine))
    second = orchestrator_on(engine, parent.build(), late)
    second.register("waiting", child.build())
    ordering = asyncio.ensure_future(SagaAdmin(second.engine).abort(waiting.items[0].id, actor="somebody"))
    await late.ordered.wait()
    before = {*asyncio.all_tasks()}
    closing = asyncio.ensure_future(second.aclose())
    await turns()
    late.opened.set()
    await closing
    await ordering
    assert {*asyncio.all_tasks()} <= before
    async with engine.connect() as connection:
        owners = await connection.execute(text("SELECT lease_owner FROM found_saga"))
        assert [*owners.scalars()] == [None, None]


class Tidying(BaseStep[Number, Number]):
    """Takes some turns to close what it has open, when it is cut off."""

    def __init__(self) -> None:
        self.begun, self.is_tidy = asyncio.Event(), False

    async def execute(self, inp: Number) -> Number:
        try:
            self.begun.set()
            await asyncio.Event().wait()
        finally:
            await turns()
            self.is_tidy = True
        return inp


async def test_closing_cuts_a_step_off_once(engine: AsyncEngine) -> None:
    """It has its time to close what it has open; a second cancellation, a turn later, would end that, too."""
    step = Tidying()
    builder = SagaBuilder()
    builder.add_step(step=step, input_map=number_of)
    orchestrator = orchestrator_on(engine, builder.build())
    starting = asyncio.ensure_future(
        orchestrator.start(saga_name="found", initial_data={"number": 1}, aggregation_id="a")
    )
    await step.begun.wait()
    await orchestrator.aclose()
    await starting
    assert step.is_tidy
