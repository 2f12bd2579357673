"""Limits on what a step's transaction may hold, and on waiting for the only writer of SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from saga_orchestrator import SagaStatus
from saga_orchestrator.errors import DatabaseTimeoutError
from tests.support import booking
from tests.support.booking import saga
from tests.support.sagas import NAME, Site, World, soon, trip

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
SHOW = text("SELECT setting::int FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'")
CASES = {
    "a timeout": ({"timeout": timedelta(seconds=7)}, 8_000),
    "no timeout": ({}, 40_000),
}

CALLS: dict[str, Any] = {
    "start": lambda o: o.start(**ORDER),
    "signal": lambda o: o.signal("paid", aggregation_id="order-1", payload={}),
}


@pytest.fixture
async def counted(on_postgres: Site) -> AsyncIterator[Site]:
    """A database on PostgreSQL with the counter that steps count on."""
    await on_postgres.sql("CREATE TABLE IF NOT EXISTS counter (n INTEGER CHECK (n < 100))")
    await on_postgres.sql("DELETE FROM counter")
    await on_postgres.sql("INSERT INTO counter VALUES (0)")
    yield on_postgres
    await on_postgres.sql("DROP TABLE counter")


@pytest.mark.parametrize(("said", "limit"), CASES.values(), ids=CASES)
async def test_a_step_that_is_idle_is_ended_by_the_engine_before_the_server(
    counted: Site, world: World, said: Any, limit: int
) -> None:
    """The server waits a second longer than the step's timeout; without one, for ten leases, which are renewed."""
    orchestrator = counted.joins(saga(world, **said), execution_lease=timedelta(seconds=4))
    found: list[Any] = []

    async def look() -> None:
        found.append((await world.contexts[-1].session.execute(SHOW)).scalar())

    world.plan("book", look)
    await soon(orchestrator.start(**booking.ORDER))

    assert found == [limit]


@pytest.mark.parametrize("call", ["signal", "start"])
async def test_waiting_for_the_only_writer_has_a_limit(on_sqlite: Site, world: World, call: str) -> None:
    """A transaction of this process that does not end keeps no other call waiting for ever."""
    limits = {"database_timeout": timedelta(seconds=0.2), "execution_lease": timedelta(seconds=1)}
    orchestrator = on_sqlite.joins(trip(world), **limits)
    await orchestrator.engine.ready()
    store: Any = orchestrator.engine.store
    async with store.dialect.writers:
        with pytest.raises(DatabaseTimeoutError):
            await soon(CALLS[call](orchestrator))

    saga_id = await soon(orchestrator.start(**{**ORDER, "aggregation_id": "order-2"}))

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED


async def test_a_caller_that_is_cancelled_while_it_waits_for_the_writer_leaves_no_lock(
    on_sqlite: Site, world: World
) -> None:
    """The next one gets its turn."""
    orchestrator = on_sqlite.joins(trip(world))
    await orchestrator.engine.ready()
    store: Any = orchestrator.engine.store

    async def write() -> None:
        async with store.dialect.writing(store.engine):
            pass

    async with store.dialect.writers:
        waiting = asyncio.create_task(write())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

    await soon(write())
