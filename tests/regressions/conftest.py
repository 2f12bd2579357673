"""The scenes on which these tests play."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.regressions.scene import Scene, scene_on
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def shared_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """One PostgreSQL database for all scenes, whose tables are made anew for each: far cheaper than a database."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """A scene on each kind of database, where time stands still until it is told to pass."""
    url = request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "shared_postgres_url"}[request.param])
    async with scene_on(url) as opened:
        yield opened


@pytest.fixture
async def timeless(sqlite_url: str) -> AsyncIterator[Scene]:
    """A scene on SQLite alone, for what does not depend on the database."""
    async with scene_on(sqlite_url) as opened:
        yield opened


@pytest.fixture
def ledger() -> list[str]:
    """What the steps of a test have done, in order."""
    return []
