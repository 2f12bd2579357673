"""`make bench` measures against floors, which are only floors as long as they write what the library has to write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from benches import floor_schema
from benches.audit import same_shape
from benches.ours import Base
from tests.support.postgres import PostgresServer


def test_the_floors_have_tables_of_the_librarys_shape(postgres: PostgresServer) -> None:
    """A column of another type, or an index less, would make a floor cheaper or dearer than what it stands for."""
    ours, floor = postgres.create_database(), postgres.create_database()
    tables = Base.metadata.sorted_tables
    made = [*map(CreateTable, tables), *(CreateIndex(index) for table in tables for index in table.indexes)]
    asyncio.run(execute(postgres.url(ours), made))
    asyncio.run(execute(postgres.url(floor), map(sa.text, floor_schema.postgresql())))

    same_shape(postgres.dsn(ours), postgres.dsn(floor))


async def execute(url: str, statements: Iterable[sa.Executable]) -> None:
    """Run statements in one transaction of a connection of their own."""
    engine = create_async_engine(url, poolclass=sa.NullPool)
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(statement)
    await engine.dispose()
