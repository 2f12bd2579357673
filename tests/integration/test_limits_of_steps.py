"""Limits on what a step's transaction may hold, and on waiting for the only writer of SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

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


LONG = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 40000000) SELECT max(n) FROM c"
"""A statement of SQLite that works for a long time."""
BRIEF = {"database_timeout": timedelta(seconds=1), "execution_lease": timedelta(seconds=4)}


async def test_what_a_step_leaves_to_be_written_has_a_limit(counted: Site, world: World) -> None:
    """The engine writes it when the step has returned. Nothing is committed by then, so the step is done again."""
    orchestrator = counted.joins(saga(world), **BRIEF)
    given_up = asyncio.Event()
    event.listen(counted.engine.sync_engine, "invalidate", lambda *_: given_up.set())
    world.plan("book", lambda: leave(world, "SELECT pg_advisory_xact_lock(77)"))
    async with counted.engine.connect() as other:
        await other.execute(text("SELECT pg_advisory_lock(77)"))
        starting = asyncio.create_task(orchestrator.start(**booking.ORDER))
        await soon(given_up.wait())
        await other.execute(text("SELECT pg_advisory_unlock(77)"))
    saga_id = await soon(starting)

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["book", "book", "ship"]
    assert await counted.value("SELECT n FROM counter") == 1


async def test_what_a_step_leaves_to_be_written_has_a_limit_on_sqlite(on_sqlite: Site, world: World) -> None:
    """The statement is interrupted, and the step's transaction rolled back."""
    await on_sqlite.sql("CREATE TABLE counter (n INTEGER)")
    await on_sqlite.sql("INSERT INTO counter VALUES (0)")
    orchestrator = on_sqlite.joins(saga(world, timeout=timedelta(seconds=0.9)), **BRIEF)
    world.plan("book", lambda: leave(world, LONG))

    saga_id = await soon(orchestrator.start(**booking.ORDER))

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.FAILED
    assert (world.calls, await on_sqlite.value("SELECT n FROM counter")) == (["book"], 0)


async def leave(world: World, statement: str) -> None:
    """Have a statement run when the engine flushes the session of the step that is at work."""
    session = world.contexts[-1].session.sync_session
    event.listen(session, "before_commit", lambda sync: sync.execute(text(statement)))


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
