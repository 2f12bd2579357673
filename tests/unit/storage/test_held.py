"""A connection kept between batches: taken once, given back when nobody needs it, thrown away when it failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from saga_orchestrator.storage.held import HeldConnection


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'held.db'}")
    yield engine
    await engine.dispose()


def taken(engine: AsyncEngine) -> int:
    """Return how many connections are out of the pool."""
    assert isinstance(engine.pool, AsyncAdaptedQueuePool)
    return engine.pool.checkedout()


async def as_it_is(connection: AsyncConnection) -> AsyncConnection:
    return connection


async def test_one_connection_serves_batch_after_batch(engine: AsyncEngine) -> None:
    """It is taken from the pool once."""
    held = HeldConnection(engine, as_it_is)
    async with held as first:
        pass
    async with held as second:
        assert second is first
        assert taken(engine) == 1

    await held.aclose()
    assert taken(engine) == 0


async def test_an_idle_connection_goes_back_to_the_pool(engine: AsyncEngine) -> None:
    """The application does without it no longer than it is used; the next batch takes one again."""
    held = HeldConnection(engine, as_it_is)
    async with held:
        held._look_again()
    held._look_again()
    assert taken(engine) == 1, "it has been used since one looked last"

    held._look_again()
    await asyncio.gather(*held._closing)
    assert taken(engine) == 0

    async with held:
        assert taken(engine) == 1
    await held.aclose()


async def test_a_connection_on_which_something_failed_is_thrown_away(engine: AsyncEngine) -> None:
    """Nobody knows what state it is in, so the next user gets another."""
    held = HeldConnection(engine, as_it_is)
    with pytest.raises(KeyError):
        async with held as failed:
            raise KeyError("lost")

    async with held as other:
        assert other is not failed
    await held.aclose()


async def test_a_connection_that_cannot_be_made_ready_blocks_nobody(engine: AsyncEngine) -> None:
    """The error is the user's who met it; the next one tries again."""
    refused = True

    async def prepare(connection: AsyncConnection) -> AsyncConnection:
        if refused:
            raise ConnectionError("away")
        return connection

    held = HeldConnection(engine, prepare)
    with pytest.raises(ConnectionError):
        async with held:
            pass

    refused = False
    assert taken(engine) == 0
    async with asyncio.timeout(10), held:
        assert taken(engine) == 1
    await held.aclose()
