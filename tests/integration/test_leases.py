"""Leases: who lives keeps his sagas, who vanishes loses them, and who cannot tell stops in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from saga_orchestrator import SagaStatus
from tests.support.sagas import NAME, Gate, MeddlingStore, Site, World, soon, trip, until

ORDER = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
SHORT = timedelta(seconds=2)


async def renews_nothing(renew: Any, *args: Any) -> dict[Any, int]:
    """Every row is locked by somebody else, again and again."""
    return {}


async def refuses(renew: Any, *args: Any) -> dict[Any, int]:
    raise ConnectionError("the database is away")


async def hangs(renew: Any, *args: Any) -> dict[Any, int]:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


@pytest.mark.usefixtures("renewed_often")
async def test_h_a_step_longer_than_its_lease_keeps_it(database: Site, world: World) -> None:
    """While a step takes its time the lease is moved on, so the saga never becomes due, and the step runs once."""
    meddling, gate = database.meddling_store(), world.gate("hotel")
    renewed = asyncio.Event()
    owner = database.joins(trip(world), store=meddling)

    async def note(renew: Any, *args: Any) -> Any:
        alive = await renew(*args)
        if alive:
            renewed.set()
        return alive

    meddling.around["renew"] = note
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    [(began_with,)] = await database.sql("SELECT deadline_at FROM trip_saga")

    await soon(renewed.wait())

    [(renewed_to,)] = await database.sql("SELECT deadline_at FROM trip_saga")
    assert renewed_to > began_with
    assert await database.joins(trip(world)).run_due() == 0
    gate.open()
    await soon(running)
    assert world.calls == ["flight", "hotel", "car"]


async def test_a_vanished_owner_is_followed_by_another(database: Site, world: World) -> None:
    """When a lease has run out another process finishes the saga: the lost attempt is in doubt, and is made again."""
    owner, gate = _cut_off(database, world)
    heir = database.joins(trip(world))
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[-1].saga_id
    await database.make_due(saga_id)

    assert await soon(heir.run_due()) == 1

    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    lost, made_again = [ctx for ctx in world.contexts if ctx.step_id == "hotel"]
    assert (lost.in_doubt, made_again.in_doubt) == (False, True)
    assert (lost.attempt, lost.idempotency_key) == (made_again.attempt, made_again.idempotency_key)
    gate.open()
    await soon(running)


async def test_p13_a_zombie_has_no_say(database: Site, world: World) -> None:
    """The result of an owner that has lost the saga is dropped: nothing of it is in the row or in the history."""
    owner, gate = _cut_off(database, world)
    heir = database.joins(trip(world))
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[-1].saga_id
    await database.make_due(saga_id)
    second = world.gate("hotel")
    following = asyncio.create_task(heir.run_due())
    await second.wait_reached()
    before = await heir.engine.store.head(saga_id), await heir.engine.store.history([saga_id])

    gate.open()
    await soon(running)

    assert (await heir.engine.store.head(saga_id), await heir.engine.store.history([saga_id])) == before
    second.open()
    await soon(following)
    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "hotel", "car"]


def _cut_off(database: Site, world: World) -> tuple[Any, Gate]:
    """Return an owner that cannot renew, in the middle of a step by the time somebody has waited for the gate."""
    meddling = database.meddling_store()
    meddling.around["renew"] = renews_nothing
    return database.joins(trip(world), store=meddling), world.gate("hotel")


@pytest.mark.parametrize("trouble", [renews_nothing, refuses, hangs], ids=lambda trouble: trouble.__name__)
async def test_n18_an_owner_that_cannot_renew_stops_before_its_lease_ends(
    on_sqlite: Site, world: World, trouble: Callable[..., Awaitable[Any]]
) -> None:
    """Whatever keeps it from renewing, the owner cuts its own step off while the lease is still its own."""
    meddling, gate = on_sqlite.meddling_store(), Gate()
    owner = on_sqlite.joins(trip(world), store=meddling, execution_lease=SHORT)
    meddling.around |= {"renew": trouble, "disown": refuses}  # the row shows whose it was when the step was cut off
    stopped_at: list[Any] = []

    async def long_step() -> None:
        try:
            await gate()
        except asyncio.CancelledError:
            stopped_at.append(owner.engine.now())
            raise

    world.plan("hotel", long_step)
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_cut()
    saga_id = await soon(running)

    head = await owner.engine.store.head(saga_id)
    assert head is not None
    assert head.lease_owner == owner.engine.owner
    assert head.deadline_at is not None
    assert stopped_at[0] < head.deadline_at
    await on_sqlite.make_due(saga_id)
    assert await soon(on_sqlite.joins(trip(world)).run_due()) == 1
    assert world.calls == ["flight", "hotel", "hotel", "car"]


async def test_an_engine_that_takes_its_own_saga_again_stops_its_old_driver(database: Site, world: World) -> None:
    """The lease of a saga ran out, and the same process claims it: the old step is cut off, the new one counts."""
    owner, gate = _cut_off(database, world)
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[-1].saga_id
    await database.make_due(saga_id)

    assert await soon(owner.run_due()) == 1

    await gate.wait_cut()
    await soon(running)
    assert (await owner.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "hotel", "car"]
    history = (await owner.engine.store.history([saga_id]))[saga_id]
    assert [(row.step_id, row.status) for row in history] == [
        ("flight", "SUCCESS"),
        ("hotel", "IN_DOUBT"),
        ("hotel", "SUCCESS"),
        ("car", "SUCCESS"),
    ]


async def test_n18_closing_hands_the_lease_back_at_once_and_burns_no_attempt(database: Site, world: World) -> None:
    """A shutdown in the middle of a step: another process takes over without waiting, under the same attempt."""
    leaving, staying = database.joins(trip(world)), database.joins(trip(world))
    gate = world.gate("hotel")
    running = asyncio.create_task(leaving.start(**ORDER))
    await gate.wait_reached()

    await soon(leaving.aclose())
    assert await soon(staying.run_due()) == 1

    saga_id = await soon(running)
    assert (await staying.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert [ctx.attempt for ctx in world.contexts] == [1, 1, 1, 1]
    assert gate.cut.is_set()
    head = await staying.engine.store.head(saga_id)
    assert head is not None
    assert '"r"' not in head.state  # no recovery is counted


async def test_a_result_that_is_on_its_way_when_the_engine_closes_is_kept(database: Site, world: World) -> None:
    """A step that has returned is not done again because its commit, queued behind another, met the shutdown."""
    meddling = database.meddling_store()
    leaving, heir = database.joins(trip(world), store=meddling), database.joins(trip(world))
    gates = [world.gate("flight"), world.gate("flight")]
    runs = [asyncio.create_task(leaving.start(**{**ORDER, "aggregation_id": f"order-{n}"})) for n in range(2)]
    for gate in gates:
        await gate.wait_reached()
    writing = Gate()
    _hold_next_write(meddling, writing)
    gates[0].open()
    await writing.wait_reached()  # the first saga's commit is under way
    gates[1].open()
    await until(lambda: leaving.engine._commits._queue)  # and the second's waits behind it
    closing = asyncio.create_task(leaving.aclose())
    for _ in range(20):
        await asyncio.sleep(0)

    writing.open()
    await soon(asyncio.gather(closing, *runs))
    assert await soon(heir.run_due()) == 2

    assert world.calls.count("flight") == 2
    statuses = [(await heir.get_snapshot(run.result())).status for run in runs]
    assert statuses == [SagaStatus.COMPLETED] * 2


def _hold_next_write(meddling: MeddlingStore, gate: Gate) -> None:
    async def hold(write: Any, batch: Any) -> Any:
        if not gate.opened.is_set():
            await gate()
        return await write(batch)

    meddling.around["write"] = hold


async def test_a_step_that_cancels_its_own_task_does_not_hold_its_saga_for_ever(database: Site, world: World) -> None:
    """The attempt is given up as lost with its worker, and the saga goes on when its lease has ended."""
    orchestrator = database.joins(trip(world))

    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    world.plan("hotel", cancel_itself)
    saga_id = await soon(orchestrator.start(**ORDER))
    await database.make_due(saga_id)

    assert await soon(orchestrator.run_due()) == 1

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "hotel", "car"]


async def test_a_claim_whose_answer_is_late_is_taken_anew(database: Site, world: World) -> None:
    """Who learns that a saga is his only when the lease is nearly over runs no step of it under that lease."""
    orchestrator = database.joins(trip(world))
    leases = orchestrator.engine._leases
    lasts, asked = leases.lasts, []

    def late_once(lease_until: float) -> bool:
        asked.append(lease_until)
        return len(asked) > 1 and lasts(lease_until)

    leases.lasts = late_once  # type: ignore[method-assign]

    saga_id = await soon(orchestrator.start(**ORDER))

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "car"]
    assert len(asked) > 1


async def test_a_claim_that_is_answered_after_a_later_one_stops_nobody(on_sqlite: Site, world: World) -> None:
    """Of two claims by one process the later one counts, whichever answer comes first."""
    orchestrator, gate = on_sqlite.joins(trip(world)), world.gate("hotel")
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (driver,) = orchestrator.engine.drivers.values()
    earlier = replace(driver.tenure, revision=driver.tenure.revision - 1, token=uuid4())

    late = asyncio.create_task(orchestrator.engine._drive(earlier))
    await asyncio.sleep(0)
    gate.open()
    saga_id = await soon(running)
    await soon(late)

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "car"]
