"""The watch over a call: it never takes a cancellation for its own."""

from __future__ import annotations

import asyncio

import pytest

from saga_orchestrator.errors import DatabaseTimeoutError
from saga_orchestrator.storage.limits import limited

LONG = 60.0


async def test_a_cancellation_that_another_error_hides_is_raised_all_the_same() -> None:
    async def call() -> None:
        async with limited(LONG):
            try:
                await asyncio.Event().wait()
            finally:
                raise ConnectionError("the connection could not be given back")

    calling = asyncio.create_task(call())
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()


async def test_a_limit_that_is_passed_is_an_error_and_not_a_cancellation() -> None:
    with pytest.raises(DatabaseTimeoutError):
        async with limited(0.0):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_cancellation_at_the_limit_is_a_cancellation() -> None:
    async def call() -> None:
        async with limited(0.0):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                calling.cancel()
                raise

    calling = asyncio.create_task(call())
    await asyncio.wait([calling])
    assert calling.cancelled()


async def test_an_error_of_its_own_passes_through() -> None:
    with pytest.raises(ConnectionError):
        async with limited(LONG):
            raise ConnectionError("refused")
