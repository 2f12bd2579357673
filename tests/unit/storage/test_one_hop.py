"""What SQLite's form of a batch does in the driver's thread, and how the event loop's thread lets it begin."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from saga_orchestrator.storage.one_hop import _AtOnce, _Schema, _transact

SCHEMA = _Schema(("some", "past"))


@pytest.fixture
def begun() -> Lock:
    lock = Lock()
    lock.acquire()
    return lock


@pytest.fixture
def connect(tmp_path: Path) -> Callable[[], sqlite3.Connection]:
    with sqlite3.connect(tmp_path / "some.db") as connection:
        connection.execute("CREATE TABLE some (number INTEGER UNIQUE)")
    return lambda: sqlite3.connect(tmp_path / "some.db")


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT number FROM some")]


def test_a_connection_that_is_in_a_transaction_is_refused(
    connect: Callable[[], sqlite3.Connection], begun: Lock
) -> None:
    """Nothing is written that its owner might take back; who waits for the thread to begin is let go."""
    connection = connect()
    connection.execute("BEGIN")

    with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
        _transact(connection, SCHEMA, "INSERT INTO some VALUES (?)", (1,), begun)

    assert not begun.locked()


def test_what_does_not_fit_leaves_nothing(connect: Callable[[], sqlite3.Connection], begun: Lock) -> None:
    """A row that clashes is an answer; none of the statement's rows is written."""
    connection = connect()

    assert not _transact(connection, SCHEMA, "INSERT INTO some VALUES (?), (?), (?)", (1, 2, 1), begun)

    assert numbers(connect()) == []
    assert not connection.in_transaction


def test_any_other_error_is_the_callers(connect: Callable[[], sqlite3.Connection], begun: Lock) -> None:
    """It passes through, and the write lock is let go of."""
    connection = connect()

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        _transact(connection, SCHEMA, "INSERT INTO other VALUES (?)", (1,), begun)

    assert not connection.in_transaction


async def test_a_waiter_that_is_cancelled_leaves_the_work_to_its_thread(begun: Lock) -> None:
    """Nobody waits for the answer any more, so that one that comes later disturbs nobody."""
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def hand() -> bool:
        begun.release()
        return await answer

    handing = hand()

    async def wait() -> Any:
        return await _AtOnce(handing, begun)

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])

    assert waiter.cancelled()
    assert answer.cancelled()
    assert inspect.getcoroutinestate(handing) == inspect.CORO_CLOSED
