"""Steps that hold a connection for long: the leases of all sagas are renewed meanwhile, or the step has to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from saga_orchestrator import FixedRetry, SagaAdmin, SagaOrchestrator, SagaStatus
from tests.support.booking import ORDER, saga
from tests.support.sagas import NAME, Site, TripSaga, World, soon

AT_ONCE = FixedRetry(max_attempts=2, delay=timedelta(0))


def joins(site: Site, engine: AsyncEngine, world: World, **options: Any) -> SagaOrchestrator[TripSaga]:
    orchestrator = SagaOrchestrator[TripSaga](
        model_class=TripSaga, session_maker=async_sessionmaker(engine, expire_on_commit=False), **options
    )
    orchestrator.register(NAME, saga(world, retry_policy=AT_ONCE))
    return orchestrator


@pytest.fixture
async def alone(database: Site, world: World) -> AsyncIterator[SagaOrchestrator[TripSaga]]:
    """An orchestrator that can renew no lease while a step is at work: on SQLite, and on a pool of one."""
    is_sqlite = database.url.startswith("sqlite")
    engine = database.engine if is_sqlite else database.another_engine(pool_size=1, max_overflow=0)
    async with joins(database, engine, world, execution_lease=timedelta(seconds=2)) as orchestrator:
        yield orchestrator


async def test_a_step_that_no_lease_could_outlast_fails_its_attempt(
    alone: SagaOrchestrator[TripSaga], world: World, counter: Any
) -> None:
    """It is not done again and again, uncounted: its attempts end, and the saga turns back."""
    world.plan("book", asyncio.Event().wait, asyncio.Event().wait)
    result = await soon(alone.result(await soon(alone.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.FAILED, 0)
    history = (await SagaAdmin(alone).get_saga(result.saga_id)).step_history
    assert [row.status for row in history] == ["ERROR", "ERROR"]
    assert "no lease could be renewed" in (history[-1].error or "")


async def test_a_pool_keeps_a_connection_that_steps_do_not_get(on_postgres: Site, world: World) -> None:
    """So many sagas as the pool has connections are at work in transactions, and the leases of all are renewed."""
    await on_postgres.sql("CREATE TABLE IF NOT EXISTS counter (n INTEGER CHECK (n < 100))")
    engine = on_postgres.another_engine(pool_size=2, max_overflow=0)
    async with joins(on_postgres, engine, world, execution_lease=timedelta(seconds=2)) as orchestrator:
        gate = world.gate("book")
        wanted = [ORDER | {"aggregation_id": f"order-{number}"} for number in range(2)]
        starting = [asyncio.create_task(orchestrator.start(**order)) for order in wanted]
        await gate.wait_reached()
        drivers = tuple(orchestrator.engine.drivers.values())
        renewed = [driver.tenure.lease_until for driver in drivers]
        while any(driver.tenure.lease_until <= was for driver, was in zip(drivers, renewed, strict=True)):  # noqa: ASYNC110 - its keeper tells nobody
            await asyncio.sleep(0.02)
        assert len(world.calls) == 1
        gate.open()
        results = [await soon(orchestrator.result(await soon(each))) for each in starting]
        assert {result.status for result in results} == {SagaStatus.COMPLETED}
    await on_postgres.sql("DROP TABLE counter")
