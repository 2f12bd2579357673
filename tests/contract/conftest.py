"""Failures inside the published contract are shown as readably as those of any test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from saga_orchestrator.storage.store import SagaStore
from tests.support.sagas import Site, TripSaga, site

pytest.register_assert_rewrite("saga_orchestrator.testing.contract")


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """A database with empty saga tables; the test runs once on each kind."""
    name = {"sqlite": "sqlite_url", "postgresql": "shared_postgres_url"}[request.param]
    async with site(request.getfixturevalue(name)) as opened:
        yield opened


@pytest.fixture
async def store(database: Site) -> AsyncIterator[SagaStore]:
    """The store of that database."""
    store = SagaStore(TripSaga, database.engine)
    yield store
    await store.aclose()
