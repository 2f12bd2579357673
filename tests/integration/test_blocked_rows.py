"""Somebody else's long transaction: it delays the saga whose row it holds, and no other."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from saga_orchestrator import ActiveSagaAlreadyExistsError, SagaStatus
from tests.support.sagas import NAME, Site, World, soon, stopped_at_hotel, trip

ORDER = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
OTHER = {**ORDER, "aggregation_id": "order-2"}


async def test_a_row_that_is_held_delays_no_other_saga(on_postgres: Site, world: World) -> None:
    """While an operator's transaction holds one saga's row, the other sagas of the process go on to their ends."""
    orchestrator, gate, held = await stopped_at_hotel(on_postgres, world, **ORDER)
    async with on_postgres.engine.begin() as operator:
        await operator.execute(text("UPDATE trip_saga SET tenant = 'acme'"))
        gate.open()

        for number in range(3):
            saga_id = await soon(orchestrator.start(**{**OTHER, "aggregation_id": f"other-{number}"}))
            assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
        assert not held.done()

    saga_id = await soon(held)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls.count("hotel") == 4


async def test_a_start_that_waits_for_a_transaction_delays_no_other_saga(on_postgres: Site, world: World) -> None:
    """A start whose aggregate another transaction is about to take waits for that one; the others do not."""
    orchestrator = on_postgres.joins(trip(world))
    async with on_postgres.sessions() as session, session.begin():
        first = await orchestrator.start(session=session, **ORDER)
        second = asyncio.create_task(orchestrator.start(**ORDER))

        other = await soon(orchestrator.start(**OTHER))
        assert (await orchestrator.get_snapshot(other)).status is SagaStatus.COMPLETED
        assert not second.done()
        gate = world.gate("flight")

    with pytest.raises(ActiveSagaAlreadyExistsError) as refused:
        await soon(second)
    assert refused.value.saga_id == first
    gate.open()
    assert (await soon(orchestrator.result(first))).status is SagaStatus.COMPLETED


async def test_a_start_that_waits_for_its_own_caller_delays_no_other_saga(on_postgres: Site, world: World) -> None:
    """Who starts a saga, in a transaction, and then the same outside of it, waits for himself, but stops nobody."""
    orchestrator = on_postgres.joins(trip(world))
    orchestrator.engine._commits._patience = 0.2
    async with on_postgres.sessions() as session, session.begin():
        await orchestrator.start(session=session, **ORDER)
        with pytest.raises(DBAPIError, match="lock timeout"):
            await soon(orchestrator.start(**ORDER))

        other = await soon(orchestrator.start(**OTHER))

    assert (await orchestrator.get_snapshot(other)).status is SagaStatus.COMPLETED
