"""Databases that go away, refuse, or do not say what became of a write: every saga ends, and each step counts once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_orchestrator import SagaAdmin, SagaOrchestrator, SagaStatus, SagaWorker
from tests.support.postgres import PostgresServer
from tests.support.sagas import NAME, Site, TripSaga, World, site, soon, stopped_at_hotel, trip, until

ORDER = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
ALL_THREE = ["flight", "hotel", "car"]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of these tests' own, for they crash it."""
    with PostgresServer().start() as server:
        yield server


@pytest.fixture
async def crashing(server: PostgresServer) -> AsyncIterator[Site]:
    """A database on that server; what it has committed survives a crash of the server."""
    name = server.create_database()
    async with site(server.url(name)) as opened:
        await opened.sql(f"ALTER DATABASE {name} SET synchronous_commit = on")
        await opened.sql("CHECKPOINT")  # the tables were made before that setting, and are to outlive a crash, too
        await opened.engine.dispose()  # a setting of the database is its new connections'
        yield opened


async def assert_done_once(orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID, world: World) -> None:
    """The saga is over, each step ran once, and the history says so."""
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ALL_THREE
    history = (await orchestrator.engine.store.history([saga_id]))[saga_id]
    assert [(row.seq, row.step_id, row.status) for row in history] == [
        (seq, step_id, "SUCCESS") for seq, step_id in enumerate(ALL_THREE)
    ]


async def test_a_server_that_crashes_in_the_middle_of_a_saga(
    crashing: Site, server: PostgresServer, world: World
) -> None:
    """A step that returns while PostgreSQL is down is committed when it is up again, and nothing runs twice."""
    orchestrator, gate, running = await stopped_at_hotel(crashing, world, **ORDER)

    server.stop("immediate")
    gate.open()
    await until(lambda: orchestrator.engine._commits._leader is not None)
    server.restart()

    await assert_done_once(orchestrator, await soon(running), world)


async def test_a_server_that_crashes_between_two_sagas(crashing: Site, server: PostgresServer, world: World) -> None:
    """Connections that died in the pool while nobody used them spoil neither the next start nor the next look."""
    orchestrator = crashing.joins(trip(World()))
    await asyncio.gather(*(orchestrator.start(**{**ORDER, "aggregation_id": str(number)}) for number in range(5)))
    server.restart("immediate")
    orchestrator.engine.registry._versions.clear()
    orchestrator.register(NAME, trip(world))

    saga_id = await soon(orchestrator.start(**ORDER))

    await assert_done_once(orchestrator, saga_id, world)


async def test_a_start_during_an_outage_waits_for_its_end(crashing: Site, server: PostgresServer, world: World) -> None:
    """A saga that is started while the server is down is durable when `start` says so, once."""
    orchestrator = crashing.joins(trip(world))
    await orchestrator.engine.ready()
    server.stop("immediate")
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await until(lambda: orchestrator.engine._commits._leader is not None)
    assert not starting.done()
    server.restart()

    await assert_done_once(orchestrator, await soon(starting), world)


async def test_a_worker_outlives_an_outage(crashing: Site, server: PostgresServer, world: World) -> None:
    """A worker whose database goes away goes on when it is back: what it had in hand, and what has come since."""
    orchestrator = crashing.joins(trip(world))
    gate = world.gate("hotel")
    running = asyncio.create_task(SagaWorker(orchestrator).run(handle_signals=False))
    async with crashing.sessions() as session, session.begin():
        saga_id = await orchestrator.start(session=session, **ORDER)
    await gate.wait_reached()

    server.stop("immediate")
    gate.open()
    server.restart()

    await until_over(orchestrator, saga_id)
    await assert_done_once(orchestrator, saga_id, world)
    running.cancel()
    await soon(asyncio.wait([running]))


async def until_over(orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID) -> None:
    """Wait for the end, also while looking fails."""
    async with asyncio.timeout(20):
        while True:
            try:
                await orchestrator.result(saga_id)
            except Exception:  # noqa: BLE001 - the server is not up yet
                continue
            return


async def test_a_connection_that_dies_in_the_middle_of_a_commit(on_postgres: Site, world: World) -> None:
    """A backend killed in the middle of a statement has written nothing: the commit is made again on another."""
    orchestrator, gate, running = await stopped_at_hotel(on_postgres, world, **ORDER)
    async with on_postgres.engine.begin() as other:
        await other.execute(text("LOCK TABLE trip_saga_history IN SHARE MODE"))
        gate.open()
        await _kill_who_waits(other)

    await assert_done_once(orchestrator, await soon(running), world)


async def _kill_who_waits(connection: AsyncConnection) -> None:
    """Wait until a backend of this database waits for a lock, and kill it."""
    waits = "datname = current_database() AND wait_event_type = 'Lock' AND backend_type = 'client backend'"
    killing = text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {waits}")
    async with asyncio.timeout(20):
        while not (await connection.execute(killing)).all():
            pass


async def test_a_row_that_somebody_holds_delays_its_saga_and_no_renewal(on_postgres: Site, world: World) -> None:
    """While an operator's transaction holds the row, the step's commit waits, and is made when he has finished."""
    orchestrator, gate, running = await stopped_at_hotel(on_postgres, world, **ORDER)
    async with on_postgres.engine.begin() as other:
        await other.execute(text("UPDATE trip_saga SET tenant = 'acme'"))
        gate.open()
        engine = orchestrator.engine
        alive = await soon(engine.store.renew(engine.owner, engine.drivers, engine.now()))
        assert alive == {}
        assert not running.done()

    saga_id = await soon(running)
    await assert_done_once(orchestrator, saga_id, world)
    assert await on_postgres.value("SELECT tenant FROM trip_saga") == "acme"


@pytest.mark.parametrize("lost", ["before", "after"])
async def test_writes_whose_answers_are_lost_count_once(database: Site, world: World, lost: str) -> None:
    """Every write of a saga loses its connection, before or after it was committed; no step runs twice for it."""
    meddling = database.meddling_store()
    orchestrator = database.joins(trip(world), store=meddling)
    failing: set[int] = set()

    async def lose(write: Any, batch: Any) -> Any:
        if id(batch[0]) in failing:
            return await write(batch)
        failing.add(id(batch[0]))
        kept.append(batch)
        if lost == "after":
            await write(batch)
        raise ConnectionResetError("the answer was lost")

    kept: list[Any] = []  # so that no other item can have its id
    meddling.around["write"] = lose

    await assert_done_once(orchestrator, await soon(orchestrator.start(**ORDER)), world)
    assert len(failing) == 4


async def test_an_order_that_was_written_and_not_answered_is_not_lost(database: Site, world: World) -> None:
    """Whoever gives it is told that something went wrong; the cancel stands, and the saga is undone."""
    meddling = database.meddling_store()
    owner, operator = database.joins(trip(world)), database.joins(trip(world), store=meddling)
    gate = world.gate("hotel")
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()

    async def lose(advance: Any, *args: Any) -> Any:
        await advance(*args)
        raise ConnectionResetError("the answer was lost")

    meddling.around["advance"] = lose
    saga_id = world.contexts[0].saga_id
    with pytest.raises(ConnectionResetError):
        await SagaAdmin[TripSaga](engine=operator.engine).cancel(saga_id)
    gate.open()
    await soon(running)

    assert (await owner.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


async def test_a_claim_that_was_written_and_not_answered_is_found_again(database: Site, world: World) -> None:
    """The sagas of such a claim are nobody's until their lease has run out; then they are driven like any other."""
    meddling = database.meddling_store()
    worker = database.joins(trip(world), store=meddling)
    async with database.sessions() as session:
        absent = database.joins(trip(world))
        saga_id = await absent.start(session=session, **ORDER)
        await absent.aclose()
        await session.commit()

    async def lose(claim: Any, *args: Any) -> Any:
        await claim(*args)
        raise ConnectionResetError("the answer was lost")

    meddling.around["claim"] = lose
    with pytest.raises(ConnectionResetError):
        await worker.run_due()
    del meddling.around["claim"]
    assert await worker.run_due() == 0
    await database.make_due(saga_id)

    assert await soon(worker.run_due()) == 1

    assert (await worker.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls.count("car") == 1


async def test_a_saga_waits_for_a_sqlite_file_that_is_locked(sqlite_url: str, world: World) -> None:
    """While another connection writes, every write of ours is refused, and is made when that one has finished."""
    async with site(f"{sqlite_url}?timeout=0.01") as locked:
        orchestrator, gate, running = await stopped_at_hotel(locked, world, **ORDER)
        async with locked.engine.connect() as other:
            await other.exec_driver_sql("BEGIN IMMEDIATE")
            gate.open()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(running), 0.05)
            await other.rollback()

        await assert_done_once(orchestrator, await soon(running), world)


async def test_an_order_waits_for_a_sqlite_file_that_is_locked(sqlite_url: str, world: World) -> None:
    """So does an operator's order: contention leaves nothing behind, and is no error of his."""
    async with site(f"{sqlite_url}?timeout=0.01") as locked:
        owner, operator = locked.joins(trip(world)), locked.joins(trip(world))
        gate = world.gate("hotel")
        running = asyncio.create_task(owner.start(**ORDER))
        await gate.wait_reached()
        saga_id = world.contexts[0].saga_id
        await operator.engine.ready()
        async with locked.engine.connect() as other:
            await other.exec_driver_sql("BEGIN IMMEDIATE")
            ordering = asyncio.create_task(SagaAdmin[TripSaga](engine=operator.engine).cancel(saga_id))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ordering), 0.02)
            await other.rollback()
        await soon(ordering)
        gate.open()
        await soon(running)

        assert (await owner.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


async def test_transactions_that_clash_are_made_again(shared_postgres_url: str, world: World) -> None:
    """On a database whose default is SERIALIZABLE, sagas that meet each other's writes all end, each step once."""
    async with site(shared_postgres_url) as strict:
        setting = f"ALTER DATABASE {strict.engine.url.database}" + " {} default_transaction_isolation{}"
        await strict.sql(setting.format("SET", " = serializable"))
        try:
            everywhere = [strict.joins(trip(world)) for _ in range(3)]
            starts = [
                everywhere[number % 3].start(**{**ORDER, "aggregation_id": f"order-{number}"}) for number in range(12)
            ]
            ids = await soon(asyncio.gather(*starts))
            assert {(await everywhere[0].get_snapshot(saga_id)).status for saga_id in ids} == {SagaStatus.COMPLETED}
            assert sorted(world.calls) == sorted(ALL_THREE * 12)
        finally:
            await strict.sql(setting.format("RESET", ""))


async def test_an_owner_that_cannot_look_at_his_row_at_once_looks_again(database: Site, world: World) -> None:
    """An operator has moved the saga, and the owner's look at what he did fails twice: no reason to leave the saga."""
    meddling = database.meddling_store()
    owner, operator = database.joins(trip(world), store=meddling), database.joins(trip(world))
    gate, failures = world.gate("hotel"), iter([ConnectionResetError(), ConnectionRefusedError()])

    async def fail(head: Any, *args: Any) -> Any:
        if (error := next(failures, None)) is not None:
            raise error
        return await head(*args)

    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[0].saga_id
    await SagaAdmin[TripSaga](engine=operator.engine).cancel(saga_id)
    meddling.around["head"] = fail
    gate.open()
    await soon(running)

    assert next(failures, None) is None
    assert (await operator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert world.calls == ["flight", "hotel", "undo hotel", "undo flight"]
