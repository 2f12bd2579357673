"""A database that says nothing any more: every call ends, and no saga is held hostage or done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from saga_orchestrator import SagaAdmin, SagaOrchestrator, SagaStatus, SagaWorker
from saga_orchestrator.errors import DatabaseTimeoutError, SagaError, SagaStateError
from tests.support.proxy import Proxy, proxy
from tests.support.sagas import NAME, Gate, Site, TripSaga, World, stopped_at_hotel, trip

LIMIT = timedelta(seconds=0.5)
NOBODY = UUID(int=7)
ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}


@pytest.fixture
async def line(on_postgres: Site) -> AsyncIterator[Proxy]:
    """The line to the database, which can fall silent."""
    url = make_url(on_postgres.url)
    async with proxy(url.host or "127.0.0.1", url.port or 5432) as opened:
        yield opened


@pytest.fixture
async def behind(line: Proxy, on_postgres: Site, world: World) -> AsyncIterator[SagaOrchestrator[TripSaga]]:
    """An orchestrator that speaks to the database by that line."""
    engine = create_async_engine(make_url(on_postgres.url).set(host="127.0.0.1", port=line.port))
    orchestrator = SagaOrchestrator[TripSaga](
        model_class=TripSaga,
        session_maker=async_sessionmaker(engine, expire_on_commit=False),
        database_timeout=LIMIT,
        execution_lease=timedelta(seconds=3),
    )
    orchestrator.register(NAME, trip(world))
    yield orchestrator
    await orchestrator.aclose()
    await engine.dispose(close=False)


CALLS = {
    "start": lambda o: o.start(**ORDER),
    "signal": lambda o: o.signal("paid", aggregation_id="order-1", payload={}),
    "run_due": lambda o: o.run_due(),
    "list": lambda o: o.engine.store.next_due(o.engine.registry.claimable),
    "snapshot": lambda o: o.get_snapshot(NOBODY),
    "order": lambda o: SagaAdmin(o).abort(NOBODY),
    "page": lambda o: SagaAdmin(o).list_sagas(),
    "page in its own time": lambda o: SagaAdmin(o).list_sagas(timeout=LIMIT),
    "dirty": lambda o: SagaAdmin(o).dirty_sagas(timeout=LIMIT),
    "purge": lambda o: SagaAdmin(o).purge(older_than=timedelta(days=1), timeout=LIMIT),
}


@pytest.mark.parametrize("warm", [True, False], ids=["with connections", "without connections"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_call_into_silence_ends(behind: SagaOrchestrator[TripSaga], line: Proxy, call: Any, warm: bool) -> None:
    """It raises an error of the database's; nothing waits for an answer that does not come."""
    await behind.engine.ready()
    if warm:
        await behind.run_due()
    else:
        await behind.engine.store.engine.dispose()
    line.fall_silent()

    async with asyncio.timeout(40):
        with pytest.raises((SagaError, OSError)):
            await call(behind)


async def test_closing_into_silence_ends(behind: SagaOrchestrator[TripSaga], line: Proxy, world: World) -> None:
    """What cannot be handed back runs out."""
    gate = world.gate("hotel")
    starting = asyncio.create_task(behind.start(**ORDER))
    await gate.wait_reached()
    line.fall_silent()

    async with asyncio.timeout(45):
        await behind.aclose()

    starting.cancel()


async def test_a_worker_in_silence_stops(behind: SagaOrchestrator[TripSaga], line: Proxy) -> None:
    """A stop is heard while a look at the database hangs."""
    await behind.engine.ready()
    line.fall_silent()
    worker = SagaWorker(behind, poll_interval=timedelta(seconds=0.05))
    running = asyncio.create_task(worker.run(handle_signals=False))
    await asyncio.sleep(0)
    worker.stop()

    async with asyncio.timeout(40):
        await running


@pytest.mark.parametrize("how", ["trap", "deaf"])
async def test_a_batch_whose_answer_does_not_come_is_looked_up_and_counts_once(
    behind: SagaOrchestrator[TripSaga], line: Proxy, world: World, how: str
) -> None:
    """Whether it arrived or not: its connection is given up, the row says what became of it, each step ran once."""
    gate = world.gate("hotel")
    starting = asyncio.create_task(behind.start(**ORDER))
    await gate.wait_reached()
    setattr(line, how, b"SUCCESS")
    gate.open()
    async with asyncio.timeout(40):
        saga_id = await starting

    assert line.caught.is_set()
    assert (await behind.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "car"]


async def test_a_lost_claim_frees_its_rows(
    behind: SagaOrchestrator[TripSaga], line: Proxy, on_postgres: Site, world: World
) -> None:
    """A host that falls silent with row locks in hand loses its transaction; another one takes the saga."""
    async with on_postgres.sessions() as session, session.begin():
        writer = on_postgres.joins(trip(world))
        saga_id = await writer.start(session=session, **ORDER)
        await writer.aclose()
    await behind.engine.ready()
    line.deaf = b"FOR NO KEY UPDATE"
    claiming = asyncio.create_task(behind.run_due())
    await line.caught.wait()
    line.fall_silent()
    heir = on_postgres.joins(trip(world))

    async with asyncio.timeout(40):
        while (await heir.get_snapshot(saga_id)).status is not SagaStatus.COMPLETED:
            await heir.run_due()

    claiming.cancel()


async def test_the_limits_end_with_their_transaction(on_postgres: Site, world: World) -> None:
    """Nothing is set for the session, for the connection is the application's."""
    orchestrator, gate, running = await stopped_at_hotel(on_postgres, world, **ORDER)
    store = orchestrator.engine.store
    async with store.dialect.writing(store.engine) as connection:  # type: ignore[attr-defined]
        inside = (await connection.exec_driver_sql("SHOW statement_timeout")).scalar()
    outside = await on_postgres.value("SHOW statement_timeout")
    gate.open()
    await running

    assert (inside, outside) == ("10s", "0")


INSIDE: dict[str, Any] = {
    "start": lambda o, session: o.start(session=session, **ORDER),
    "signal": lambda o, session: o.signal("paid", aggregation_id="order-1", payload={}, session=session),
}


@pytest.mark.parametrize("call", INSIDE)
async def test_a_call_in_a_callers_session_ends(behind: SagaOrchestrator[TripSaga], line: Proxy, call: str) -> None:
    """The connection is the caller's, and the call has a limit all the same."""
    await behind.engine.ready()
    engine: Any = behind.engine.store
    session = async_sessionmaker(engine.engine)()
    await session.connection()
    line.fall_silent()

    async with asyncio.timeout(40):
        with pytest.raises((SagaError, OSError)):
            await INSIDE[call](behind, session)
        await session.close()


@pytest.mark.parametrize("how", ["trap", "deaf"])
@pytest.mark.parametrize("word", [b"BEGIN", b"COMMIT"])
async def test_an_order_whose_transaction_falls_silent_ends_and_says_so(
    behind: SagaOrchestrator[TripSaga], line: Proxy, world: World, word: bytes, how: str
) -> None:
    """The error says that it may or may not stand; the row says which, and the order can be given again."""
    world.plan("hotel", gate := Gate())
    starting = asyncio.create_task(behind.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[-1].saga_id
    setattr(line, how, word)

    async with asyncio.timeout(40):
        with pytest.raises(DatabaseTimeoutError):
            await SagaAdmin(behind).pause(saga_id)
        assert line.caught.is_set()
        assert await is_paused(behind, saga_id) == ((word, how) == (b"COMMIT", "deaf"))
        gate.open()
        await starting
        while (await behind.get_snapshot(saga_id)).status is not SagaStatus.COMPLETED:
            with suppress(SagaStateError):
                await SagaAdmin(behind).resume(saga_id)
            await behind.run_due()

    assert world.calls == ["flight", "hotel", "car"]


async def is_paused(orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID) -> bool:
    """Return whether an order to pause stands in the history of a saga."""
    history = (await orchestrator.engine.store.history([saga_id]))[saga_id]
    return any(row.step_id == "pause" for row in history)
