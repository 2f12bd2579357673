"""Sagas behind a PgBouncer in transaction mode, with the caches of prepared statements off, and left on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from saga_orchestrator import SagaDefinition, SagaOrchestrator
from tests.support import logs
from tests.support.pgbouncer import CACHES_OFF, PROGRAM, PgBouncer
from tests.support.postgres import PostgresServer
from tests.support.sagas import NAME, Site, TripSaga, World, site, trip

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer on this machine (Debian: apt install pgbouncer)")


@pytest.fixture
def pooler(postgres: PostgresServer) -> Iterator[PgBouncer]:
    with PgBouncer(postgres) as started:
        yield started


@pytest.fixture
async def direct(postgres_url: str) -> AsyncIterator[Site]:
    """The same database, reached without the pooler."""
    async with site(postgres_url) as opened:
        yield opened


@pytest.fixture
def told() -> Iterator[list[str]]:
    with logs.logged("ERROR") as lines:
        yield lines


def name_of(direct: Site) -> str:
    return direct.url.rpartition("/")[2]


def joined(engine: AsyncEngine, definition: SagaDefinition) -> SagaOrchestrator[TripSaga]:
    orchestrator = SagaOrchestrator[TripSaga](model_class=TripSaga, session_maker=async_sessionmaker(engine))
    orchestrator.register(NAME, definition)
    return orchestrator


async def started(orchestrator: SagaOrchestrator[Any], number: int) -> bool:
    """Start a trip; return whether the database let us."""
    try:
        await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id=f"trip-{number}")
    except DBAPIError:
        return False
    return True


async def test_with_the_caches_off_all_goes_as_ever(direct: Site, pooler: PgBouncer, world: World) -> None:
    """Many sagas share three server connections, and each of them completes."""
    engine = create_async_engine(pooler.url(name_of(direct)), connect_args=CACHES_OFF, pool_size=10)
    async with joined(engine, trip(world)) as orchestrator:
        done = await asyncio.gather(*(started(orchestrator, number) for number in range(40)))
    await engine.dispose()

    assert all(done)
    assert await direct.sql("SELECT status, count(*) FROM trip_saga GROUP BY status") == [("COMPLETED", 40)]


async def lose_statements(engine: AsyncEngine) -> None:
    """Make every server connection of the pooler forget what its clients have prepared."""
    async with engine.connect() as one, engine.connect() as two, engine.connect() as three:
        for connection in (one, two, three):
            await connection.execute(text("DEALLOCATE ALL"))


async def test_with_the_caches_on_nothing_is_stuck_and_it_is_told_once(
    direct: Site, pooler: PgBouncer, world: World, told: list[str]
) -> None:
    """The first lost statement is explained; the sagas stay due, and an engine that is set right completes them."""
    bare = create_async_engine(pooler.url(name_of(direct)), connect_args=CACHES_OFF)
    engine = create_async_engine(pooler.url(name_of(direct)))
    gate = world.gate("hotel")
    orchestrator = joined(engine, trip(world))
    running = [asyncio.create_task(started(orchestrator, number)) for number in range(5)]
    await gate.wait_reached()
    await lose_statements(bare)
    gate.open()
    await asyncio.gather(*running)
    await orchestrator.aclose()
    await engine.dispose()
    await bare.dispose()

    explained = [line for line in told if "prepared_statement_cache_size=0" in line]
    assert len(explained) == 1
    assert await direct.value("SELECT count(*) FROM trip_saga WHERE status = 'STUCK'") == 0
    await direct.sql(f"UPDATE trip_saga SET deadline_at = {direct.ago} WHERE deadline_at IS NOT NULL")
    async with joined(direct.engine, trip(world)) as healthy:
        await healthy.run_due()
    statuses = await direct.sql("SELECT DISTINCT status FROM trip_saga")
    assert statuses == [("COMPLETED",)]
