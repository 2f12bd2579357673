"""The databases that tests run on, all real: SQLite in a file, and PostgreSQL with a database for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from saga_orchestrator.runtime import lease
from tests.support.postgres import PostgresServer

# No deadline: no test judges how long something takes. A failure prints what reproduces it.
hypothesis.settings.register_profile("saga", deadline=None, print_blob=True)
hypothesis.settings.load_profile("saga")


if os.environ.get("SAGA_TEST_LOOP") == "uvloop":  # `make matrix` runs the tests on this event loop too

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], Any]]:
        import uvloop

        return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for each test process. Tests that stop it start one of their own."""
    with PostgresServer().start() as server:
        yield server


@pytest.fixture(scope="session")
def shared_postgres_url(postgres: PostgresServer) -> str:
    """One PostgreSQL database for all tests that empty its tables themselves: a new one takes a quarter of a second."""
    return postgres.url(postgres.create_database())


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A new, empty PostgreSQL database."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A new, empty SQLite database in a file, as workers in several processes would share it."""
    return f"sqlite+aiosqlite:///{tmp_path / 'saga.db'}"


@pytest.fixture
def renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are renewed a hundred times while they last: soon, and not so that a busy machine loses one."""
    monkeypatch.setattr(lease, "_BEATS_PER_LEASE", 100)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A new, empty database; the test runs once on each kind."""
    name = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(name)
    return url
