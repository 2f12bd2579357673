"""Sessions of callers in which the saga's table is another one, since their search_path is another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from saga_orchestrator import SagaStateError, SagaStatus
from tests.integration.test_sessions_of_callers import DEEDS, Deed, starts
from tests.support.sagas import Base, Site, World, soon, trip


@pytest.fixture
async def tenant(on_postgres: Site) -> AsyncIterator[Site]:
    """A site whose database has the saga's tables also in the schema `tenant`."""
    async with on_postgres.engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA tenant"))
        await connection.execute(text("SET LOCAL search_path TO tenant"))
        await connection.run_sync(Base.metadata.create_all)
    yield on_postgres
    await on_postgres.sql("DROP SCHEMA tenant CASCADE")


async def _written(site: Site) -> int:
    rows = [await site.value(f"SELECT count(*) FROM tenant.{name}") for name in ("trip_saga", "trip_saga_inbox")]
    return sum(rows)


def _on_the_path(site: Site, path: str) -> AsyncEngine:
    site._engines.append(
        create_async_engine(
            site.url, poolclass=NullPool, connect_args={"server_settings": {"search_path": path, "jit": "off"}}
        )
    )
    return site._engines[-1]


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_session_of_an_engine_with_another_search_path_is_refused(
    tenant: Site, world: World, deed: Deed
) -> None:
    """The error names both schemas, and nothing stays of what was wanted."""
    orchestrator = tenant.joins(trip(world))
    async with AsyncSession(_on_the_path(tenant, "tenant")) as session, session.begin():
        with pytest.raises(SagaStateError, match="schema 'tenant', but the sagas are driven in schema 'public'"):
            await deed(orchestrator, session)
    assert await _written(tenant) == 0


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("scope", ["LOCAL", "SESSION"])
async def test_a_search_path_that_was_set_in_the_session_is_refused(
    tenant: Site, world: World, deed: Deed, scope: str
) -> None:
    """Its connection is the engine's own, and was seen before the path was set."""
    orchestrator = tenant.joins(trip(world))
    async with tenant.sessions() as session, session.begin():
        await session.execute(text(f"SET {scope} search_path TO tenant"))
        with pytest.raises(SagaStateError, match="search_path"):
            await deed(orchestrator, session)
        await session.execute(text("SET search_path TO DEFAULT"))
    assert await _written(tenant) == 0


async def test_a_key_that_another_schema_knows_is_refused(tenant: Site, world: World) -> None:
    """The saga of that schema is not the answer."""
    keyed: dict[str, Any] = {"saga_name": "trip", "initial_data": {}, "aggregation_id": "a", "idempotency_key": "k"}
    elsewhere = _on_the_path(tenant, "tenant")
    theirs = tenant.joins(trip(world), session_maker=async_sessionmaker(elsewhere, expire_on_commit=False))
    await soon(theirs.start(**keyed))

    orchestrator = tenant.joins(trip(world))
    async with AsyncSession(elsewhere) as session, session.begin():
        with pytest.raises(SagaStateError, match="search_path"):
            await orchestrator.start(**keyed, session=session)


@pytest.mark.parametrize("path", ["tenant, public", "public"])
async def test_a_path_that_leads_to_the_engines_table_is_accepted(tenant: Site, world: World, path: str) -> None:
    """Another search_path is no reason to refuse where the name means the same table."""
    await tenant.sql("DROP TABLE tenant.trip_saga, tenant.trip_saga_inbox CASCADE")
    orchestrator = tenant.joins(trip(world))
    async with AsyncSession(_on_the_path(tenant, path)) as session, session.begin():
        saga_id = await starts(orchestrator, session)
    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED


async def test_an_engine_may_have_a_search_path_of_its_own(tenant: Site, world: World) -> None:
    """Sagas of that path are driven, and sessions of the usual path are the ones that are refused."""
    own = _on_the_path(tenant, "tenant")
    tenant.sessions.configure(bind=own)
    orchestrator = tenant.joins(trip(world))
    async with AsyncSession(own) as session, session.begin():
        saga_id = await starts(orchestrator, session)
    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    async with AsyncSession(tenant.engine) as session, session.begin():
        with pytest.raises(SagaStateError, match="schema 'public', but the sagas are driven in schema 'tenant'"):
            await starts(orchestrator, session)


async def test_tables_that_were_made_again_are_the_same(tenant: Site, world: World) -> None:
    """The schema tells a place apart, so that no orchestrator outlives its knowledge of it."""
    own = _on_the_path(tenant, "tenant")
    tenant.sessions.configure(bind=own)
    orchestrator = tenant.joins(trip(world))
    async with AsyncSession(own) as session, session.begin():
        await soon(orchestrator.start(saga_name="trip", initial_data={}, aggregation_id="order-0", session=session))
    await soon(orchestrator.engine.background.join())
    async with own.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(own) as session, session.begin():
        saga_id = await starts(orchestrator, session)
    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED


async def test_a_pool_of_one_is_enough_for_the_check(tenant: Site, world: World) -> None:
    """The engine's own path is asked on the caller's connection, before the caller has it."""
    own = tenant.another_engine(pool_size=1, max_overflow=0, pool_timeout=1)
    tenant.sessions.configure(bind=own)
    orchestrator = tenant.joins(trip(world))
    async with AsyncSession(own) as session, session.begin():
        saga_id = await starts(orchestrator, session)
    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
