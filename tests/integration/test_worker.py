"""`SagaWorker`: it takes what is due, and when it is told to stop it leaves everything to others at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from saga_orchestrator import SagaDefinitionError, SagaOrchestrator, SagaStatus, SagaWorker
from tests.support.sagas import NAME, Site, TripSaga, World, soon, trip

ALL_THREE = ["flight", "hotel", "car"]
POLL = timedelta(milliseconds=5)


async def left_due(site: Site, count: int = 1) -> list[Any]:
    """Leave sagas that are committed, and that the process which started them never began."""
    absent = site.joins(trip(World()))
    ids = []
    async with site.sessions() as session:
        for aggregation_id in (str(uuid4()) for _ in range(count)):
            saga_id = await absent.start(
                session=session, saga_name=NAME, initial_data={}, aggregation_id=aggregation_id
            )
            ids.append(saga_id)
        await absent.aclose()
        await session.commit()
    return ids


def working(orchestrator: SagaOrchestrator[TripSaga], **options: Any) -> tuple[SagaWorker, asyncio.Task[None]]:
    worker = SagaWorker(orchestrator, **{"poll_interval": POLL, **options})
    return worker, asyncio.create_task(worker.run(handle_signals=False))


async def assert_handed_back(site: Site, saga_id: Any) -> None:
    """Nobody owns the saga, and it is due."""
    due = f"deadline_at > {site.ago}"
    row = await site.sql(f"SELECT lease_owner, status, {due} FROM trip_saga WHERE id = :id", id=site.key(saga_id))
    assert row[0] == (None, "RUNNING", True)


async def test_a_worker_drives_what_is_due_until_it_is_stopped(database: Site, world: World) -> None:
    """More sagas than it has hands, one after the other, and then it rests; a new one is found by its polling."""
    ids = await left_due(database, 5)
    orchestrator = database.joins(trip(world))
    worker, running = working(orchestrator, concurrency=2)
    for saga_id in ids:
        await soon(orchestrator.result(saga_id))
    gate = world.gate("flight")
    [late] = await left_due(database)
    await gate.wait_reached()
    gate.open()
    assert (await soon(orchestrator.result(late))).status is SagaStatus.COMPLETED

    worker.stop()
    await soon(running)

    assert sorted(world.calls) == sorted(ALL_THREE * 6)


async def test_a_worker_never_has_more_in_hand_than_it_may(on_sqlite: Site, world: World) -> None:
    """With one hand it takes one saga, however many are due, and the next when that one is done."""
    ids = await left_due(on_sqlite, 3)
    gates = [world.gate("hotel") for _ in ids]
    orchestrator = on_sqlite.joins(trip(world))
    worker, running = working(orchestrator, concurrency=1)

    for gate in gates:
        await gate.wait_reached()
        assert len(orchestrator.engine.drivers) == 1
        gate.open()
    for saga_id in ids:
        await soon(orchestrator.result(saga_id))

    worker.stop()
    await soon(running)


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_n18_a_stopped_worker_hands_its_sagas_over_at_once(database: Site, world: World, how: str) -> None:
    """The step in flight is cut off, the lease is nobody's, and another worker makes the same attempt again."""
    [saga_id] = await left_due(database)
    gate = world.gate("hotel")
    worker, running = working(database.joins(trip(world)))
    await gate.wait_reached()

    worker.stop() if how == "stop" else running.cancel()
    await soon(asyncio.wait([running]))

    assert gate.cut.is_set()
    await assert_handed_back(database, saga_id)
    heir = database.joins(trip(world))
    assert await soon(heir.run_due()) == 1
    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert [ctx.attempt for ctx in world.contexts] == [1] * 4
    first, second = [ctx for ctx in world.contexts if ctx.step_id == "hotel"]
    assert first.idempotency_key == second.idempotency_key


async def test_a_draining_worker_lets_its_sagas_finish(database: Site, world: World) -> None:
    """With `drain` what is in hand goes on after the stop, and nothing new is taken."""
    [saga_id] = await left_due(database)
    gate = world.gate("hotel")
    orchestrator = database.joins(trip(world))
    worker, running = working(orchestrator, drain=timedelta(seconds=20))
    await gate.wait_reached()

    worker.stop()
    await left_due(database)
    gate.open()
    await soon(running)

    assert not gate.cut.is_set()
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ALL_THREE


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_worker_stopped_in_the_middle_of_a_claim_keeps_nothing(database: Site, world: World, how: str) -> None:
    """What the claim in flight brings in is handed back too: no lease is left behind, and no step runs afterwards."""
    [saga_id] = await left_due(database)
    meddling, claim = database.meddling_store(), world.gate("claim")

    async def hold(real: Any, *args: Any) -> Any:
        claimed = await real(*args)
        await claim()
        return claimed

    meddling.around["claim"] = hold
    step = world.gate("flight")
    worker, running = working(database.joins(trip(world), store=meddling), concurrency=1)
    await claim.wait_reached()

    worker.stop() if how == "stop" else running.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    claim.open()
    await soon(asyncio.wait([running]))

    assert not step.reached.is_set() or step.cut.is_set()
    await assert_handed_back(database, saga_id)


async def test_a_worker_waits_for_a_database_that_is_away(on_sqlite: Site, world: World) -> None:
    """Looks that fail are no reason to end; when the database is back, so is the worker."""
    [saga_id] = await left_due(on_sqlite)
    meddling = on_sqlite.meddling_store()
    failures = iter([ConnectionRefusedError(), OSError("away"), RuntimeError("odd")])

    async def fail(real: Any, *args: Any) -> Any:
        if (error := next(failures, None)) is not None:
            raise error
        return await real(*args)

    meddling.around["claim"] = meddling.around["next_due"] = fail
    orchestrator = on_sqlite.joins(trip(world), store=meddling)
    worker, running = working(orchestrator)

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED

    worker.stop()
    await soon(running)


async def test_a_stopped_worker_does_not_begin_again(on_sqlite: Site, world: World) -> None:
    """`run` after `stop` returns at once, and takes nothing."""
    await left_due(on_sqlite)
    worker = SagaWorker(on_sqlite.joins(trip(world)), poll_interval=POLL)
    worker.stop()

    await soon(worker.run())

    assert world.calls == []


def test_a_worker_without_hands_is_refused(on_sqlite: Site, world: World) -> None:
    """A worker that could take nothing, or would never rest, is a mistake."""
    orchestrator = on_sqlite.joins(trip(world))

    for wrong in ({"concurrency": 0}, {"poll_interval": timedelta(0)}):
        with pytest.raises(SagaDefinitionError):
            SagaWorker(orchestrator, **wrong)  # type: ignore[arg-type]


PROGRAM = """
import asyncio, sys
from datetime import timedelta
from saga_orchestrator import SagaWorker
from tests.support.sagas import Site, World, trip

async def forever():
    print("reached", flush=True)
    await asyncio.Event().wait()

async def main():
    site, world = Site(sys.argv[1]), World()
    world.plan("hotel", forever)
    orchestrator = site.joins(trip(world))
    await SagaWorker(orchestrator, poll_interval=timedelta(seconds=1)).run()
    print("stopped", flush=True)
    await site.aclose()

asyncio.run(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX sends them")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_n18_a_signal_stops_a_worker_gracefully(on_sqlite: Site, world: World, number: signal.Signals) -> None:
    """A worker process that is told to end hands its saga back and exits with 0; the next makes the same attempt."""
    [saga_id] = await left_due(on_sqlite)
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, on_sqlite.url, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert await soon(process.stdout.readline()) == b"reached\n"

    process.send_signal(number)
    said, _ = await soon(process.communicate())

    assert (said, process.returncode) == (b"stopped\n", 0)
    await assert_handed_back(on_sqlite, saga_id)
    heir = on_sqlite.joins(trip(world))
    assert await soon(heir.run_due()) == 1
    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    made = [(ctx.step_id, ctx.attempt, ctx.in_doubt) for ctx in world.contexts]
    assert made == [("hotel", 1, True), ("car", 1, False)]
