"""A worker says once at its start that PostgreSQL would notice a lost host late."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from saga_orchestrator import SagaWorker
from saga_orchestrator.storage import keepalive
from tests.support import logs
from tests.support.sagas import Site, World, soon, trip


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged."""
    with logs.logged("WARNING") as lines:
        yield lines


async def ask(site: Site, idle: str) -> None:
    """Ask on a connection for which the application has set how long the server waits."""
    engine = create_async_engine(site.url, connect_args={"server_settings": {"tcp_keepalives_idle": idle}})
    async with engine.connect() as connection:
        await keepalive.warn_of_keepalive(connection)
    await engine.dispose()


@pytest.mark.parametrize(("idle", "warns"), [("7200", 1), ("30", 0)])
async def test_a_late_look_is_said(
    on_postgres: Site, said: list[str], monkeypatch: pytest.MonkeyPatch, idle: str, warns: int
) -> None:
    """The server of the tests is on this host, and is asked as if it were not."""
    asked = text("SELECT setting::int, false FROM pg_settings WHERE name = 'tcp_keepalives_idle'")
    monkeypatch.setattr(keepalive, "_ASK", asked)

    await ask(on_postgres, idle)

    assert len([line for line in said if "tcp_keepalives_idle" in line]) == warns


async def test_nothing_is_said_of_a_server_on_this_host(on_postgres: Site, said: list[str]) -> None:
    """A connection within one host is not lost without its host."""
    await ask(on_postgres, "7200")

    assert said == []


async def test_a_worker_asks_at_its_start(
    on_postgres: Site, world: World, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = text("SELECT 7200, false")
    monkeypatch.setattr(keepalive, "_ASK", late)
    orchestrator = on_postgres.joins(trip(world))
    worker = SagaWorker(orchestrator)
    worker.stop()

    await soon(worker.run(handle_signals=False))
    await soon(orchestrator.engine.background.join())

    assert len([line for line in said if "tcp_keepalives_idle" in line]) == 1


async def test_sqlite_is_not_asked(on_sqlite: Site, world: World, said: list[str]) -> None:
    worker = SagaWorker(orchestrator := on_sqlite.joins(trip(world)))
    worker.stop()

    await soon(worker.run(handle_signals=False))
    await soon(orchestrator.engine.background.join())

    assert said == []
