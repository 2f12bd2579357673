"""What a hostile review of the transactional steps has found: each defect by its name, not to come back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from saga_orchestrator import BaseStep, Event, FixedRetry, SagaAdmin, SagaBuilder, SagaStatus, StepContext, WaitFor
from saga_orchestrator.storage.store import SagaStore
from tests.support.booking import ORDER, Book, saga
from tests.support.sagas import Deed, Input, MeddlingStore, Output, PlainSaga, Site, TripSaga, World, soon


class Waits(BaseStep[Input, Output]):
    async def execute(self, inp: Input, ctx: StepContext) -> Output | WaitFor:
        return WaitFor("go")

    async def on_event(self, inp: Input, event: Event[Any], ctx: StepContext) -> Output:
        return Output()


class ProbedBook(Book):
    async def on_event(self, inp: Input, event: Event[Any], ctx: StepContext) -> Output:
        await self.world.call("hear", ctx)
        return await super().on_event(inp, event, ctx)

    async def probe(self, inp: Input, ctx: StepContext) -> Output | None:
        self.world.calls.append("probe")
        return Output(ref="probed")


async def test_a_flush_that_fails_and_is_caught_does_not_leave_the_record_alone(
    database: Site, world: World, counter: Any
) -> None:
    """It rolls everything back unasked; on SQLite the record was then committed without the effect."""
    orchestrator = database.joins(saga(world))

    async def clashes() -> None:
        session = world.contexts[-1].session
        session.add(PlainSaga())  # half empty: the database refuses it
        with pytest.raises(IntegrityError):
            await session.flush()

    world.plan("book", clashes)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.FAILED, 0)


async def test_a_step_that_is_cut_off_in_a_query_lets_go_of_the_database(
    database: Site, world: World, counter: Any
) -> None:
    """Its connection, closed in the middle of a statement, kept SQLite's write lock."""
    endless = {
        "sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 3000000) SELECT max(x) FROM c",
        "postgresql": "SELECT pg_sleep(1)",
    }[database.engine.dialect.name]
    retry = FixedRetry(max_attempts=100, delay=timedelta(0))  # a busy machine may need more than the second
    orchestrator = database.joins(saga(world, timeout=timedelta(milliseconds=100), retry_policy=retry))

    async def lingers() -> None:
        await world.contexts[-1].session.execute(text(endless))

    world.plan("book", lingers)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.COMPLETED, 1)


class TransactingStore(MeddlingStore):
    def transaction(self, seconds: float | None = None) -> Any:
        return self.real.transaction(seconds)


async def test_a_row_that_was_read_before_does_not_overwrite_what_was_committed_since(
    database: Site, world: World, counter: Any
) -> None:
    """The saga went back in time, and its next step was cut off and run again."""
    store = TransactingStore(SagaStore(TripSaga, database.engine))
    orchestrator = database.joins(saga(world), store=store)
    hold, read, heads = asyncio.Event(), asyncio.Event(), []

    async def late(real: Any, saga_id: Any) -> Any:
        heads.append(await real(saga_id))
        if len(heads) == 1:
            read.set()
            await hold.wait()
        return heads[-1]

    store.around["head"] = late
    gate = world.gate("book")
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (driver,) = orchestrator.engine.drivers.values()
    driver.refresh()
    if (
        database.engine.dialect.name == "postgresql"
    ):  # on SQLite nobody reads the row while the step's transaction lasts
        await soon(read.wait())
    gate.open()
    hold.set()
    await soon(starting)
    assert world.calls == ["book", "ship"]


async def test_what_a_step_sends_and_starts_in_its_transaction_is_woken_by_its_commit(
    database: Site, world: World, counter: Any
) -> None:
    """The session's own commit never comes, and so nobody was told."""
    orchestrator = database.joins(saga(world))
    for name, step in (("waits", Waits()), ("child", Deed(world, "child"))):
        builder = SagaBuilder()
        builder.add_step(step=step, input_map=lambda ctx: Input(), step_id="only")
        orchestrator.register(name, builder.build())
    waits = await soon(orchestrator.start(saga_name="waits", initial_data={}, aggregation_id="waits"))
    born: list[Any] = []

    async def sends() -> None:
        session = world.contexts[-1].session
        await orchestrator.signal("go", saga_id=waits, session=session)
        born.append(
            await orchestrator.start(saga_name="child", initial_data={}, aggregation_id="child", session=session)
        )

    world.plan("book", sends)
    await soon(orchestrator.start(**ORDER))
    for saga_id in (waits, *born):
        assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED


async def test_a_transactional_step_that_has_waited_is_not_probed(database: Site, world: World, counter: Any) -> None:
    """The probe's yes was taken for the rest of the step, which was never done."""
    builder = SagaBuilder()
    builder.add_step(step=ProbedBook(world), input_map=lambda ctx: Input(), step_id="book")
    dying, other = database.joins(builder.build()), database.joins(builder.build())

    async def asks() -> WaitFor:
        return WaitFor("go")

    world.plan("book", asks)
    gate = world.gate("hear")
    saga_id = await soon(dying.start(**ORDER))
    await soon(dying.signal("go", saga_id=saga_id))
    await gate.wait_reached()
    for driver in tuple(dying.engine.drivers.values()):
        driver.lose()
    await gate.wait_cut()
    await database.make_due(saga_id)
    await soon(other.run_due())
    assert (await soon(other.result(saga_id))).status is SagaStatus.COMPLETED
    assert (world.calls, await counter()) == (["book", "hear", "hear"], 11)


async def test_a_connection_that_is_lost_costs_the_step_no_attempt(on_postgres: Site, world: World) -> None:
    """It has not failed, and its saga did."""
    await on_postgres.sql("CREATE TABLE IF NOT EXISTS counter (n INTEGER)")
    await on_postgres.sql("INSERT INTO counter VALUES (0)")
    orchestrator = on_postgres.joins(saga(world))

    async def is_cut_off() -> None:
        session = world.contexts[-1].session
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar()
        await on_postgres.sql("SELECT pg_terminate_backend(:pid)", pid=pid)

    world.plan("book", is_cut_off)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await on_postgres.value("SELECT n FROM counter")) == (SagaStatus.COMPLETED, 1)
    await on_postgres.sql("DROP TABLE counter")


async def test_a_cancelled_step_that_was_lost_is_not_done_only_to_be_undone(on_postgres: Site, world: World) -> None:
    """It has not acted, that is certain."""
    await on_postgres.sql("CREATE TABLE IF NOT EXISTS counter (n INTEGER)")
    dying, other = on_postgres.joins(saga(world)), on_postgres.joins(saga(world))
    gate = world.gate("book")
    starting = asyncio.create_task(dying.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = dying.engine.drivers
    await SagaAdmin(engine=other.engine).cancel(saga_id)
    for driver in tuple(dying.engine.drivers.values()):
        driver.lose()
    await soon(starting)
    await on_postgres.make_due(saga_id)
    await soon(other.run_due())
    assert (await soon(other.result(saga_id))).status is SagaStatus.FAILED
    assert world.calls == ["book"]
    await on_postgres.sql("DROP TABLE counter")
