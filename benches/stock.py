"""Filling this library's table with many sagas at once: copies of rows that the library itself has written."""

from __future__ import annotations

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from saga_orchestrator import SagaOrchestrator

from .cases import order
from .ours import BenchSaga

NAME = "trivial_3"
_READ = "SELECT row_to_json(s)::text FROM bench_saga AS s WHERE id = :id"
_COPY = """
INSERT INTO bench_saga
SELECT copy.* FROM generate_series(1, $2::int) AS number, LATERAL jsonb_populate_record(
    NULL::bench_saga,
    $1::jsonb || jsonb_build_object(
        'id', lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
              || substr(replace(gen_random_uuid()::text, '-', ''), 13),
        'aggregation_id', $3::text || number
    )
) AS copy"""


async def due_row(engine: AsyncEngine, orchestrator: SagaOrchestrator[BenchSaga]) -> str:
    """Return the row of a saga that has been started but never driven; it is rolled back."""
    async with async_sessionmaker(engine)() as session:
        saga_id = await orchestrator.start(
            saga_name=NAME, initial_data=order(0), aggregation_id="template", session=session
        )
        row: str = (await session.execute(text(_READ), {"id": saga_id})).scalar_one()
        await session.rollback()
    return row


async def finished_row(engine: AsyncEngine, orchestrator: SagaOrchestrator[BenchSaga]) -> str:
    """Return the row of a saga that has completed."""
    saga_id = await orchestrator.start(saga_name=NAME, initial_data=order(0), aggregation_id="template")
    async with engine.connect() as connection:
        row: str = (await connection.execute(text(_READ), {"id": saga_id})).scalar_one()
    return row


async def copies(connection: asyncpg.Connection, row: str, count: int, prefix: str) -> None:
    """Insert so many copies of a row, each with an id and an aggregate of its own."""
    await connection.execute(_COPY, row, count, prefix)
