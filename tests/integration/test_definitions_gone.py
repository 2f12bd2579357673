"""Sagas whose definition is gone from this process, or is another one under the same version."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from saga_orchestrator import (
    FixedRetry,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    SignalResult,
)
from saga_orchestrator.testing import ManualClock
from tests.support import logs
from tests.support.sagas import NAME, Deed, Gate, Input, Site, TripSaga, World, soon, trip

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {"number": 7}, "aggregation_id": "order-1"}
WHO = {"actor": "ann", "reason": "its code is gone"}


def admin_of(orchestrator: SagaOrchestrator[TripSaga]) -> SagaAdmin[TripSaga]:
    return SagaAdmin[TripSaga](engine=orchestrator.engine)


def waits(world: World) -> SagaDefinition:
    """Return a saga of a flight, and then a wait for its payment."""
    builder = SagaBuilder()
    builder.add_step(step=Deed(world, "flight"), input_map=lambda ctx: Input(number=7), step_id="flight")
    builder.add_event("paid", step_id="paid")
    return builder.build()


async def stranger(database: Site, world: World) -> tuple[SagaOrchestrator[TripSaga], UUID]:
    """Return an orchestrator that does not know the definition of a saga, and that saga, which waits."""
    old = database.joins(waits(world))
    saga_id = await soon(old.start(**ORDER))
    await old.aclose()
    new = database.joins(None)
    new.register("new", trip(world))
    return new, saga_id


async def test_a_saga_without_a_definition_can_be_aborted(database: Site, world: World) -> None:
    """Its aggregate is free again, and its residue is what has acted, or may have."""
    orchestrator, saga_id = await stranger(database, world)

    await admin_of(orchestrator).abort(saga_id, **WHO)

    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.last_error) == (SagaStatus.FAILED, "aborted by ann: its code is gone")
    assert "flight" in snapshot.residue
    await soon(orchestrator.start(**{**ORDER, "saga_name": "new"}))


async def test_what_such_a_saga_has_left_is_waived_step_by_step(database: Site, world: World) -> None:
    """By step id; when nothing is left it is out of the operators' queue."""
    orchestrator, saga_id = await stranger(database, world)
    admin = admin_of(orchestrator)
    with pytest.raises(SagaStateError, match="does not know"):
        await admin.waive_step(saga_id, "flight", actor="ann")
    await admin.abort(saga_id, **WHO)
    with pytest.raises(SagaStateError, match="hotel is not part of its residue"):
        await admin.waive_step(saga_id, "hotel", actor="ann")

    assert await admin.dirty_sagas() == [saga_id]
    for step_id in (await orchestrator.get_snapshot(saga_id)).residue:
        await admin.waive_step(saga_id, step_id, actor="ann")

    assert (await orchestrator.get_snapshot(saga_id)).residue == ()
    assert await admin.dirty_sagas() == []


async def test_a_saga_in_flight_elsewhere_is_aborted_with_what_is_in_flight(database: Site, world: World) -> None:
    """The process that drives it is fenced off; the step in flight may have acted, and is residue."""
    old, new = database.joins(trip(world)), database.joins(None)
    gate = world.gate("hotel")
    running = asyncio.create_task(old.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[0].saga_id

    await admin_of(new).abort(saga_id, **WHO)
    gate.open()
    await soon(running)

    snapshot = await new.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.residue) == (SagaStatus.FAILED, ("flight", "hotel"))
    assert world.calls == ["flight", "hotel"]


async def test_every_other_order_still_needs_the_definition(on_sqlite: Site, world: World) -> None:
    """Which steps there are, and what can be undone, says only the definition."""
    orchestrator, saga_id = await stranger(on_sqlite, world)
    admin = admin_of(orchestrator)

    for order in (admin.cancel(saga_id), admin.compensate_step(saga_id), admin.retry_step(saga_id)):
        with pytest.raises(SagaStateError, match="register that definition"):
            await order
    await on_sqlite.edit(saga_id, state="{}")
    with pytest.raises(SagaStateError, match="Only a change of the row itself can mend this"):
        await admin.abort(saga_id)


async def test_a_stranger_that_waives_leaves_the_hook_to_who_has_it(on_sqlite: Site, world: World) -> None:
    """A saga whose failure is still to be acted upon stays due."""
    calls: list[UUID] = []

    async def close_all(saga_id: UUID) -> bool:
        calls.append(saga_id)
        return len(calls) > 1

    def closing() -> SagaDefinition:
        builder = SagaBuilder(on_failure="CLOSE_ALL", close_all=close_all)
        for name in ("flight", "hotel", "car"):
            builder.add_step(step=Deed(world, name), input_map=lambda ctx: Input(number=7), step_id=name)
        return builder.build()

    clock = ManualClock()
    orchestrator, other = on_sqlite.joins(closing(), clock=clock), on_sqlite.joins(None, clock=clock)
    world.plan("car", PermanentError("full"))
    saga_id = await soon(orchestrator.start(**ORDER))
    await admin_of(other).waive_step(saga_id, "hotel", actor="ann")
    clock.advance(timedelta(hours=2))
    await soon(orchestrator.run_due())

    assert calls == [saga_id, saga_id]
    assert await admin_of(orchestrator).dirty_sagas() == []


async def cut_off_in_its_hook(
    site: Site, world: World, clock: ManualClock, *, is_stuck: bool
) -> tuple[SagaOrchestrator[TripSaga], UUID]:
    """Return a process that has a hook under way for a dirty saga, FAILED or STUCK, and that saga."""
    gate = Gate()

    async def close_all(saga_id: UUID) -> None:
        await gate()

    builder = SagaBuilder(close_all=close_all)
    for name in ("flight", "hotel"):
        builder.add_step(step=Deed(world, name), input_map=lambda ctx: Input(number=7), step_id=name)
    orchestrator = site.joins(builder.build(), clock=clock)
    if is_stuck:
        world.plan("hotel", PermanentError("full"))
        world.plan("undo flight", PermanentError("closed"))
        saga_id = await soon(orchestrator.start(**ORDER))
    else:
        held = world.gate("hotel")
        running = asyncio.create_task(orchestrator.start(**ORDER))
        await held.wait_reached()
        saga_id = world.contexts[0].saga_id
        await admin_of(orchestrator).abort(saga_id, actor="bob")
        await soon(running)
    closing = admin_of(orchestrator).execute_compensation(saga_id, "CLOSE_ALL", actor="bob")
    _ = orchestrator.engine.background.begin(closing)
    await gate.wait_reached()
    return orchestrator, saga_id


async def test_an_action_whose_owner_is_gone_lets_an_abort_through(database: Site, world: World) -> None:
    """The action is in doubt, the steps still stand, and they can be waived; while its owner lives it is refused."""
    clock = ManualClock()
    owner, saga_id = await cut_off_in_its_hook(database, world, clock, is_stuck=True)
    orchestrator = database.joins(None, clock=clock)
    admin = admin_of(orchestrator)
    with pytest.raises(SagaStateError, match="CLOSE_ALL, ordered by bob, is under way"):
        await admin.abort(saga_id, **WHO)
    await owner.aclose()

    await admin.abort(saga_id, **WHO)

    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.residue) == (SagaStatus.FAILED, ("flight",))
    past = (await admin.get_saga(saga_id)).step_history
    assert [(row.actor, row.reason) for row in past if row.step_id == "abort"] == [("ann", "its code is gone")]
    ended = [row.status for row in past if row.step_id == "failure:CLOSE_ALL"]
    assert ended == ["WAITING", "IN_DOUBT"]
    await admin.waive_step(saga_id, "flight", actor="ann")
    assert await admin.dirty_sagas() == []


async def test_an_action_whose_owner_is_gone_lets_a_waiver_through(database: Site, world: World) -> None:
    """Of a saga that has failed; a waiver that is refused leaves the action under way."""
    clock = ManualClock()
    owner, saga_id = await cut_off_in_its_hook(database, world, clock, is_stuck=False)
    orchestrator = database.joins(None, clock=clock)
    admin = admin_of(orchestrator)
    with pytest.raises(SagaStateError, match="is under way"):
        await admin.waive_step(saga_id, "flight", actor="ann")
    await owner.aclose()
    with pytest.raises(SagaStateError, match="car is not part of its residue"):
        await admin.waive_step(saga_id, "car", actor="ann")
    assert [row.status for row in (await admin.get_saga(saga_id)).step_history][-1] == "WAITING"

    for step_id in (await orchestrator.get_snapshot(saga_id)).residue:
        await admin.waive_step(saga_id, step_id, actor="ann")

    assert (await orchestrator.get_snapshot(saga_id)).residue == ()
    assert await admin.dirty_sagas() == []


async def test_a_definition_that_changed_under_its_version_is_said_aloud(database: Site, world: World) -> None:
    """Once in the log; in the row, where a filter finds it; and in the answers of orders and of signals."""
    patient = {"hotel": {"retry_policy": FixedRetry(max_attempts=3, delay=timedelta(hours=1))}}
    clock = ManualClock()
    old = database.joins(trip(world, **patient), clock=clock)
    ids = []
    for number in range(2):
        world.plan("hotel", ValueError("full"))
        ids.append(await soon(old.start(**{**ORDER, "aggregation_id": f"order-{number}"})))
    clock.advance(timedelta(hours=2))
    new = database.joins(waits(world), clock=clock)
    admin = admin_of(new)
    with logs.logged("WARNING") as said:
        assert await soon(new.run_due()) == 0
        clock.advance(timedelta(minutes=2))
        assert await soon(new.run_due()) == 0
        sent = await new.signal("paid", aggregation_id="order-0", payload={})

    assert sent is SignalResult.DEFERRED
    assert [line for line in said if "other steps" in line] == said
    assert len(said) == 1
    assert f"version 1 of '{NAME}'" in said[0]
    found = (await admin.list_sagas(awaiting="definition")).items
    assert [item.id for item in found] == [*reversed(ids)]
    assert {item.status for item in found} == {SagaStatus.SUSPENDED}
    with pytest.raises(SagaStateError, match="has other steps in this process"):
        await admin.cancel(ids[0])

    clock.advance(timedelta(minutes=2))
    await soon(old.run_due())
    assert (await old.get_snapshot(ids[0])).status is SagaStatus.COMPLETED
    assert (await admin.list_sagas(awaiting="definition")).items == []
