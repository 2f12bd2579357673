"""The databases that whole engines run on, and the world that their steps act in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.support.sagas import Site, World, site


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """A database with empty saga tables; the test runs once on each kind."""
    name = {"sqlite": "sqlite_url", "postgresql": "shared_postgres_url"}[request.param]
    async with site(request.getfixturevalue(name)) as opened:
        yield opened


@pytest.fixture
async def on_sqlite(sqlite_url: str) -> AsyncIterator[Site]:
    """A SQLite database with empty saga tables, for what depends on no database."""
    async with site(sqlite_url) as opened:
        yield opened


@pytest.fixture
async def on_postgres(shared_postgres_url: str) -> AsyncIterator[Site]:
    """A PostgreSQL database with empty saga tables, for what SQLite cannot do."""
    async with site(shared_postgres_url) as opened:
        yield opened


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def counter(database: Site) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Return a function that reads the counter."""
    await database.sql("CREATE TABLE IF NOT EXISTS counter (n INTEGER CHECK (n < 100))")
    await database.sql("DELETE FROM counter")
    await database.sql("INSERT INTO counter VALUES (0)")

    async def read() -> int:
        return int(await database.value("SELECT n FROM counter"))

    yield read
    await database.sql("DROP TABLE counter")
