"""A connection of SQLite that is closed and stopped by force: the task that closes it ends all the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiosqlite
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from saga_orchestrator.storage.sqlite_stop import stop_once

pytestmark = pytest.mark.skipif(
    not hasattr(aiosqlite.Connection, "stop"), reason="this aiosqlite cannot stop a connection by force"
)


@pytest.mark.parametrize("cancelled_at_the_end", [False, True], ids=["one cancellation", "and that of asyncio.run"])
async def test_a_close_that_is_cancelled_leaves_no_task_that_cannot_end(
    tmp_path: Path, cancelled_at_the_end: bool
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'sagas.db'}")
    stop_once(engine)
    others = asyncio.all_tasks()
    connection = await engine.connect()
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    with _busy(driver) as busy:
        closing = asyncio.create_task(connection.invalidate())
        while not (graceful := asyncio.all_tasks() - others - {closing, busy}):  # noqa: ASYNC110 - SQLAlchemy tells nobody
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        for task in graceful if cancelled_at_the_end else ():
            task.cancel()
    _, pending = await asyncio.wait(graceful, timeout=20)
    assert not pending
    await engine.dispose()


async def test_a_connection_that_is_stopped_once_is_as_before(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'sagas.db'}")
    stop_once(engine)
    stop_once(engine)
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT 1")).scalar_one() == 1
        driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, aiosqlite.Connection)
    await engine.dispose()
    assert driver.stop() is driver.stop()


@contextmanager
def _busy(driver: aiosqlite.Connection) -> Iterator[asyncio.Task[object]]:
    """Keep the thread of a connection busy until the block ends; yield the task that waits for it."""
    freed = threading.Event()
    try:
        yield asyncio.create_task(driver._execute(freed.wait))
    finally:
        freed.set()
