"""Events for sagas whose rows another transaction holds: they wait, and nothing else waits for them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from saga_orchestrator import SagaOrchestrator, SagaStatus, SagaWorker
from saga_orchestrator.testing import ManualClock
from tests.integration.test_waits import ORDER, SETTLED, order, ref_of, waiting
from tests.support.sagas import Gate, Site, TripSaga, World, soon, until

LATER = timedelta(seconds=6)


async def _post(
    site: Site, orchestrator: SagaOrchestrator[TripSaga], clock: ManualClock, *saga_ids: UUID, **event: Any
) -> None:
    """Send events by a process that ends before it delivers them, and let them be due."""
    for saga_id in saga_ids:
        async with site.sessions() as session, session.begin():
            await orchestrator.signal(
                SETTLED, saga_id=saga_id, payload={"amount": 4}, event_id="evt-1", session=session
            )
            session.sync_session.info["saga_orchestrator.after_commit"] = []
    clock.advance(LATER)


async def _three_waiting(orchestrator: SagaOrchestrator[TripSaga]) -> list[UUID]:
    return [(await waiting(orchestrator, aggregation_id=f"order-{number}")).id for number in range(3)]


async def test_a_delivery_that_waits_holds_up_no_claim(
    database: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sagas that are due are claimed, and driven to their ends, while a delivery waits for the database."""
    clock = ManualClock()
    orchestrator = database.joins(order(world), clock=clock)
    saga_id = (await waiting(orchestrator)).id
    await _post(database, orchestrator, clock, saga_id)
    gate, deliver = Gate(), orchestrator.engine.store.inbox.deliver

    async def held(*arguments: Any) -> Any:
        await gate()
        return await deliver(*arguments)

    monkeypatch.setattr(orchestrator.engine.store.inbox, "deliver", held)
    assert await soon(orchestrator.engine.claim_due(10)) == []
    await gate.wait_reached()
    async with database.sessions() as session, session.begin():
        healthy = await orchestrator.start(**{**ORDER, "aggregation_id": "healthy"}, session=session)
        session.sync_session.info["saga_orchestrator.after_commit"] = []

    [driving] = await soon(orchestrator.engine.claim_due(10))
    await until(lambda: world.calls.count("reserve") == 2)
    gate.open()
    await soon(driving)
    assert (await orchestrator.get_snapshot(healthy)).status is SagaStatus.SUSPENDED


async def test_letters_of_held_sagas_hold_up_neither_the_healthy_nor_the_stop(on_postgres: Site, world: World) -> None:
    """A stuck report holds the rows: other sagas go on, the worker stops, and the letters come when it is gone."""
    clock = ManualClock()
    orchestrator = on_postgres.joins(order(world), clock=clock)
    ids = await _three_waiting(orchestrator)
    await _post(on_postgres, orchestrator, clock, *ids)
    async with on_postgres.engine.begin() as report:
        await report.execute(text("SELECT id FROM trip_saga FOR UPDATE"))
        worker = SagaWorker(orchestrator, poll_interval=timedelta(milliseconds=20))
        working = asyncio.create_task(worker.run(handle_signals=False))
        async with on_postgres.sessions() as session, session.begin():
            healthy = await orchestrator.start(**{**ORDER, "aggregation_id": "healthy"}, session=session)
            session.sync_session.info["saga_orchestrator.after_commit"] = []

        async for snapshot in orchestrator.watch(healthy):
            if snapshot.status is SagaStatus.SUSPENDED:
                break
        worker.stop()
        await soon(working)

    clock.advance(LATER)
    await soon(orchestrator.run_due())
    assert [await ref_of(orchestrator, each) for each in ids] == ["paid 4"] * 3


async def test_run_due_passes_over_the_letters_of_held_sagas(on_postgres: Site, world: World) -> None:
    """It delivers the others before it returns, and tries those that were held at a later look."""
    clock = ManualClock()
    orchestrator = on_postgres.joins(order(world), clock=clock)
    *ids, free = await _three_waiting(orchestrator)
    await _post(on_postgres, orchestrator, clock, *ids, free)
    async with on_postgres.engine.begin() as report:
        await report.execute(text("SELECT id FROM trip_saga WHERE id != :free FOR UPDATE"), {"free": free})
        await soon(orchestrator.run_due())
        assert await ref_of(orchestrator, free) == "paid 4"

    clock.advance(LATER)
    await soon(orchestrator.run_due())
    assert [await ref_of(orchestrator, each) for each in ids] == ["paid 4"] * 2


async def test_letters_that_are_held_themselves_stand_in_no_others_way(on_postgres: Site, world: World) -> None:
    """They cannot even be deferred; the round goes on with others in their place."""
    clock = ManualClock()
    orchestrator = on_postgres.joins(order(world), clock=clock)
    first, second, free = await _three_waiting(orchestrator)
    await _post(on_postgres, orchestrator, clock, first, second, free)
    async with on_postgres.engine.begin() as report:
        held = text("SELECT id FROM trip_saga_inbox WHERE address != :free FOR UPDATE")
        await report.execute(held, {"free": f"saga:{free}"})
        for _ in range(3):
            await soon(orchestrator.run_due(1))
        assert await ref_of(orchestrator, free) == "paid 4"

    await soon(orchestrator.run_due())
    assert [await ref_of(orchestrator, each) for each in (first, second)] == ["paid 4"] * 2


async def test_deliveries_after_a_callers_commit_give_up_soon(on_postgres: Site, world: World) -> None:
    """While the rows are held they do not hold the pool's connections, which the claims need."""
    clock = ManualClock()
    orchestrator = on_postgres.joins(order(world), clock=clock)
    ids = await _three_waiting(orchestrator)
    async with on_postgres.engine.begin() as report:
        await report.execute(text("SELECT id FROM trip_saga FOR UPDATE"))
        for saga_id in ids:
            async with on_postgres.sessions() as session, session.begin():
                await orchestrator.signal(
                    SETTLED, saga_id=saga_id, payload={"amount": 4}, event_id="evt-1", session=session
                )
        await soon(orchestrator.engine.background.join())

    clock.advance(LATER)
    await soon(orchestrator.run_due())
    assert [await ref_of(orchestrator, each) for each in ids] == ["paid 4"] * 3
