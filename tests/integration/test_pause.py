"""Pauses on real databases: of one saga, step by step, before a step, and of all sagas of a definition."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from saga_orchestrator import (
    BaseStep,
    Event,
    FixedRetry,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    SignalResult,
    StepContext,
    WaitFor,
)
from saga_orchestrator.testing import ManualClock
from tests.support.sagas import NAME, Deed, Input, Output, Site, TripSaga, World, soon, stopped_at_hotel, trip, until

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
WHO = {"actor": "ann", "reason": "ticket 12"}
HOUR = timedelta(hours=1)
PATIENT = {"hotel": {"retry_policy": FixedRetry(max_attempts=3, delay=HOUR)}}


class Pay(BaseStep[Input, Output]):
    """Asks for a payment, and goes on when it is settled."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def execute(self, inp: Input, ctx: StepContext) -> Output | WaitFor:
        await self.world.call("pay", ctx)
        return WaitFor("payment.settled", timeout=HOUR)

    async def on_event(self, inp: Input, event: Event[Any], ctx: StepContext) -> Output:
        await self.world.call("paid", ctx)
        return Output(ref=f"paid {event.payload['amount']}")

    async def compensate(self, inp: Input, out: Output | None) -> None:
        """Nothing was paid yet."""


def paid(world: World) -> SagaDefinition:
    """Return a saga that is paid, and ships."""
    builder = SagaBuilder()
    builder.add_step(step=Pay(world), input_map=lambda ctx: Input(), step_id="pay")
    builder.add_step(step=Deed(world, "ship"), input_map=lambda ctx: Input(), step_id="ship")
    return builder.build()


def admin_of(orchestrator: SagaOrchestrator[TripSaga]) -> SagaAdmin[TripSaga]:
    return SagaAdmin[TripSaga](engine=orchestrator.engine)


async def stands(orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID) -> tuple[SagaStatus, str | None]:
    """Return where a saga stands, and what it waits for."""
    snapshot = await orchestrator.get_snapshot(saga_id)
    return snapshot.status, snapshot.awaiting


async def paused_at_hotel(site: Site, world: World) -> tuple[SagaOrchestrator[TripSaga], UUID]:
    """Return a saga that was paused while its second of three steps was at work, and that has ended since."""
    orchestrator, gate, running = await stopped_at_hotel(site, world, **ORDER)
    (saga_id,) = orchestrator.engine.drivers
    await soon(admin_of(orchestrator).pause(saga_id, **WHO))
    assert await stands(orchestrator, saga_id) == (SagaStatus.RUNNING, None)
    gate.open()
    await soon(running)
    return orchestrator, saga_id


PAUSED = (SagaStatus.SUSPENDED, "pause")


async def test_a_pause_lets_what_is_in_flight_end_and_begins_nothing(database: Site, world: World) -> None:
    """The step at work is recorded, the next waits for whoever resumes the saga; who held it stands in the history."""
    orchestrator, saga_id = await paused_at_hotel(database, world)
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.awaiting, snapshot.deadline_at) == (*PAUSED, None)
    assert await soon(orchestrator.run_due()) == 0
    assert world.calls == ["flight", "hotel"]
    listed = await admin_of(orchestrator).list_sagas(awaiting="pause")
    assert [saga.id for saga in listed.items] == [saga_id]

    await soon(admin_of(orchestrator).resume(saga_id, **WHO))

    assert await stands(orchestrator, saga_id) == (SagaStatus.COMPLETED, None)
    saga = await admin_of(orchestrator).get_saga(saga_id)
    orders = [(entry.step_id, entry.actor) for entry in saga.step_history if entry.phase == "ORDER"]
    assert orders == [("pause", "ann"), ("resume", "ann")]


async def test_another_process_resumes(database: Site, world: World) -> None:
    """A pause is durable: who gave it need not live."""
    first, saga_id = await paused_at_hotel(database, world)
    await first.aclose()
    second = database.joins(trip(world))
    await soon(admin_of(second).resume(saga_id))
    assert await stands(second, saga_id) == (SagaStatus.COMPLETED, None)
    assert world.calls == ["flight", "hotel", "car"]


async def test_a_crash_in_a_pause_loses_nothing_and_begins_nothing(database: Site, world: World) -> None:
    """What was in flight is set going again by the next owner, and then the saga rests."""
    orchestrator, gate, running = await stopped_at_hotel(database, world, **ORDER)
    (saga_id,) = orchestrator.engine.drivers
    await admin_of(orchestrator).pause(saga_id)
    await database.make_due(saga_id)
    second = database.joins(trip(world))

    assert await soon(second.run_due()) == 1

    assert await stands(second, saga_id) == PAUSED
    assert world.calls == ["flight", "hotel", "hotel"]
    gate.open()
    await soon(running)
    assert world.calls == ["flight", "hotel", "hotel"]


async def test_a_retry_whose_time_came_in_the_pause_goes_at_once(database: Site, world: World) -> None:
    """Time begins nothing in a pause, and what it would have begun is due at the end."""
    clock = ManualClock()
    orchestrator = database.joins(trip(world, **PATIENT), clock=clock)
    world.plan("hotel", ValueError("full"))
    saga_id = await soon(orchestrator.start(**ORDER))
    await admin_of(orchestrator).pause(saga_id)
    clock.advance(2 * HOUR)
    assert await soon(orchestrator.run_due()) == 0

    await soon(admin_of(orchestrator).resume(saga_id))

    assert await stands(orchestrator, saga_id) == (SagaStatus.COMPLETED, None)
    assert world.calls == ["flight", "hotel", "hotel", "car"]


async def test_an_event_that_comes_in_a_pause_is_there_afterwards(database: Site, world: World) -> None:
    """It is kept, and taken when the saga is resumed, also after the time of the wait, for it came before."""
    clock = ManualClock()
    orchestrator = database.joins(paid(world), clock=clock)
    saga_id = await soon(orchestrator.start(**ORDER))
    token = (await orchestrator.get_snapshot(saga_id)).step_execution_token
    await admin_of(orchestrator).pause(saga_id)

    sent = await soon(orchestrator.signal("payment.settled", saga_id=saga_id, payload={"amount": 5}))
    assert sent is SignalResult.BUFFERED
    assert token is not None
    assert not await soon(orchestrator.notify(saga_id=saga_id, token=token, event={"amount": 9}))
    clock.advance(2 * HOUR)
    assert await soon(orchestrator.run_due()) == 0
    assert await stands(orchestrator, saga_id) == PAUSED

    await soon(admin_of(orchestrator).resume(saga_id))

    result = await soon(orchestrator.result(saga_id))
    assert (result.status, result.outputs["pay"]["ref"]) == (SagaStatus.COMPLETED, "paid 5")


async def test_single_steps_walk_a_saga(database: Site, world: World) -> None:
    """Each order begins the next step, also one that has an event to take, and returns when it has ended."""
    orchestrator = database.joins(paid(world))
    saga_id = await soon(orchestrator.start(**ORDER))
    admin = admin_of(orchestrator)
    await admin.pause(saga_id)
    await soon(orchestrator.signal("payment.settled", saga_id=saga_id, payload={"amount": 5}))

    await soon(admin.step(saga_id, **WHO))
    assert (world.calls, await stands(orchestrator, saga_id)) == (["pay", "paid"], PAUSED)

    await soon(admin.step(saga_id, **WHO))
    assert (world.calls, await stands(orchestrator, saga_id)) == (
        ["pay", "paid", "ship"],
        (SagaStatus.COMPLETED, None),
    )
    with pytest.raises(SagaStateError, match="it is over"):
        await admin.step(saga_id)


async def test_a_saga_stops_before_a_breakpoint(database: Site, world: World) -> None:
    """The step does not begin before somebody says so; history tells what stopped it."""
    orchestrator, gate, running = await stopped_at_hotel(database, world, **ORDER)
    (saga_id,) = orchestrator.engine.drivers
    await admin_of(orchestrator).pause(saga_id, before="car", **WHO)
    gate.open()
    await soon(running)

    assert (world.calls, await stands(orchestrator, saga_id)) == (["flight", "hotel"], PAUSED)
    saga = await admin_of(orchestrator).get_saga(saga_id)
    assert [e.step_id for e in saga.step_history if e.phase == "ORDER"] == ["pause:car", "breakpoint:car"]
    with pytest.raises(SagaStateError, match="step hotel will not begin any more"):
        await admin_of(orchestrator).pause(saga_id, before="hotel")

    await soon(admin_of(orchestrator).resume(saga_id))
    assert await stands(orchestrator, saga_id) == (SagaStatus.COMPLETED, None)


async def test_m9_status_and_awaiting_say_on_which_way_a_saga_was_paused(database: Site, world: World) -> None:
    """On its way back it is COMPENSATING and waits for the end of the pause; the undo at work has ended."""
    orchestrator = database.joins(trip(world))
    world.plan("car", PermanentError("no car"))
    gate = world.gate("undo hotel")
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = orchestrator.engine.drivers
    await admin_of(orchestrator).pause(saga_id)
    gate.open()
    await soon(running)
    assert await stands(orchestrator, saga_id) == (SagaStatus.COMPENSATING, "pause")
    assert world.calls[-1] == "undo hotel"

    await soon(admin_of(orchestrator).resume(saga_id))
    assert await stands(orchestrator, saga_id) == (SagaStatus.COMPENSATED, None)
    assert world.calls[-1] == "undo flight"


async def test_m9_a_failure_in_a_pause_is_seen_before_anything_is_undone(database: Site, world: World) -> None:
    """The saga is SUSPENDED in its pause with the error on it, and turns when it is resumed."""
    orchestrator, saga_id = await paused_at_hotel(database, world)
    world.plan("car", PermanentError("no car"))
    await soon(admin_of(orchestrator).step(saga_id))
    assert await stands(orchestrator, saga_id) == PAUSED
    assert "no car" in ((await orchestrator.get_snapshot(saga_id)).last_error or "")
    assert world.calls == ["flight", "hotel", "car"]

    await soon(admin_of(orchestrator).resume(saga_id))
    assert await stands(orchestrator, saga_id) == (SagaStatus.COMPENSATED, None)


async def test_an_abort_ends_a_saga_in_a_pause(database: Site, world: World) -> None:
    """It is over, with what stands as its residue, and there is nothing to resume."""
    orchestrator, saga_id = await paused_at_hotel(database, world)
    await soon(admin_of(orchestrator).abort(saga_id, **WHO))
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.residue) == (SagaStatus.FAILED, ("flight", "hotel"))
    with pytest.raises(SagaStateError, match="it is over"):
        await admin_of(orchestrator).resume(saga_id)


async def test_a_definition_that_is_paused_begins_nothing_here(database: Site, world: World) -> None:
    """New sagas are written and due: another process takes them, or this one, when it is resumed."""
    orchestrator, other = database.joins(trip(world)), database.joins(trip(world))
    await orchestrator.pause_definition(NAME)
    first = await soon(orchestrator.start(**ORDER))
    second = await soon(orchestrator.start(**{**ORDER, "aggregation_id": "order-2"}, priority=-1))
    assert await soon(orchestrator.run_due()) == 0
    await soon(orchestrator.resume(first))
    assert world.calls == []

    assert await soon(other.run_due(limit=1)) == 1
    assert await stands(other, first) == (SagaStatus.COMPLETED, None)

    await orchestrator.resume_definition(NAME)
    assert await soon(orchestrator.run_due()) == 1
    assert await stands(orchestrator, second) == (SagaStatus.COMPLETED, None)


async def test_a_definition_that_is_paused_lets_what_is_in_flight_finish(database: Site, world: World) -> None:
    """Unless it is held, too: then each saga is paused, and resumed with its definition."""
    orchestrator, gate, running = await stopped_at_hotel(database, world, **ORDER)
    (saga_id,) = orchestrator.engine.drivers
    await orchestrator.pause_definition(NAME)
    gate.open()
    await soon(running)
    assert await stands(orchestrator, saga_id) == (SagaStatus.COMPLETED, None)

    await orchestrator.resume_definition(NAME)
    gate = world.gate("hotel")
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = orchestrator.engine.drivers
    await orchestrator.pause_definition(NAME, hold=True, **WHO)
    gate.open()
    await soon(running)
    assert await stands(orchestrator, saga_id) == PAUSED

    await soon(orchestrator.resume_definition(NAME, **WHO))
    assert await stands(orchestrator, saga_id) == (SagaStatus.COMPLETED, None)


async def test_a_held_saga_that_is_over_meanwhile_needs_no_resuming(on_sqlite: Site, world: World) -> None:
    """An operator may have ended it."""
    orchestrator, gate, running = await stopped_at_hotel(on_sqlite, world, **ORDER)
    (saga_id,) = orchestrator.engine.drivers
    await orchestrator.pause_definition(NAME, hold=True)
    gate.open()
    await soon(running)
    await soon(admin_of(orchestrator).abort(saga_id))
    await soon(orchestrator.resume_definition(NAME))
    assert await stands(orchestrator, saga_id) == (SagaStatus.FAILED, None)


async def test_only_a_known_definition_can_be_paused(on_sqlite: Site) -> None:
    """A name that nobody has registered is a mistake."""
    with pytest.raises(SagaDefinitionError, match="not registered"):
        await on_sqlite.joins(None).pause_definition("nobody")


async def test_a_deadline_that_has_passed_leaves_a_driver_in_a_pause_alone(database: Site, world: World) -> None:
    """While a step is at work in a pause nothing else is due, however late it is, and nothing turns the saga."""
    clock = ManualClock()
    builder = SagaBuilder(deadline=HOUR)
    for name in ("flight", "hotel"):
        builder.add_step(step=Deed(world, name), input_map=lambda ctx: Input(), step_id=name)
    orchestrator = database.joins(builder.build(), clock=clock)
    gate = world.gate("flight")
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    ((saga_id, driver),) = orchestrator.engine.drivers.items()
    await admin_of(orchestrator).pause(saga_id)
    await until(lambda: driver.tenure.state.paused)
    clock.advance(2 * HOUR)
    gate.open()
    await soon(running)
    assert await stands(orchestrator, saga_id) == PAUSED

    await soon(admin_of(orchestrator).resume(saga_id))
    assert await stands(orchestrator, saga_id) == (SagaStatus.COMPENSATED, None)
