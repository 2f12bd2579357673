"""Sagas inside of sagas at work: what their steps are given, how they are undone, and what a restart changes."""

from __future__ import annotations

import asyncio
from typing import Any

from saga_orchestrator import PermanentError, SagaBuilder, SagaDefinition, SagaStatus
from tests.support.sagas import NAME, Deed, Input, Site, World, soon

SEEN = dict[str, Any]


def journey(world: World, seen: SEEN) -> SagaDefinition:
    """Return a saga of a flight, a part of two steps (a hotel and a car), and a letter."""

    def look(name: str) -> Any:
        def input_map(ctx: Any) -> Input:
            seen[name] = (ctx.initial_data, dict(ctx.step_outputs))
            return Input(number=(ctx.initial_data or {}).get("number", 0))

        return input_map

    stay = SagaBuilder()
    stay.add_step(step=Deed(world, "hotel"), input_map=look("hotel"), step_id="hotel")
    stay.add_step(step=Deed(world, "car"), input_map=look("car"), step_id="car")
    whole = SagaBuilder()
    flight = whole.add_step(step=Deed(world, "flight"), input_map=look("flight"), step_id="flight")
    whole.add_saga(stay.build(), input_map=lambda out: {"number": len(out.ref)}, depends_on=flight, namespace="stay")
    whole.add_step(step=Deed(world, "letter"), input_map=look("letter"), step_id="letter")
    return whole.build()


async def test_f4_a_part_sees_what_it_was_given_and_shows_its_output(database: Site, world: World) -> None:
    """Inside, `initial_data` is what the part was given, and outputs are the part's own; outside, only its last one."""
    seen: SEEN = {}
    orchestrator = database.joins(journey(world, seen))

    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"number": 7}, aggregation_id="a")
    result = await soon(orchestrator.result(saga_id))

    assert result.status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "car", "letter"]
    assert seen == {
        "flight": ({"number": 7}, {}),
        "hotel": ({"number": 8}, {}),
        "car": ({"number": 8}, {"hotel": {"ref": "hotel-8"}}),
        "letter": ({"number": 7}, {"flight": {"ref": "flight-7"}, "stay": {"ref": "car-8"}}),
    }
    assert [ctx.initial_data for ctx in world.contexts] == [{"number": 7}, {"number": 8}, {"number": 8}, {"number": 7}]
    assert [ctx.step_id for ctx in world.contexts] == ["flight", "stay.hotel", "stay.car", "letter"]


async def test_f4_a_part_is_undone_with_the_whole(database: Site, world: World) -> None:
    """What fails after a part undoes it in reverse order; each undo has the key of its own step."""
    world.plan("letter", PermanentError("no stamps"))
    orchestrator = database.joins(journey(world, {}))

    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"number": 7}, aggregation_id="a")
    result = await soon(orchestrator.result(saga_id))

    assert result.status is SagaStatus.COMPENSATED
    assert world.calls[4:] == ["undo car", "undo hotel", "undo flight"]
    assert world.contexts[4].idempotency_key == f"{saga_id}/stay.car/compensate"


async def test_f4_a_part_is_the_same_after_a_restart(database: Site, world: World) -> None:
    """A process that takes the saga over in the middle of the part gives its steps what the first would have."""
    seen: SEEN = {}
    gate = world.gate("hotel")
    first, heir = database.joins(journey(world, {})), database.joins(journey(world, seen))
    starting = asyncio.create_task(first.start(saga_name=NAME, initial_data={"number": 7}, aggregation_id="a"))
    await gate.wait_reached()
    await first.aclose()
    saga_id = await soon(starting)

    assert await soon(heir.run_due()) == 1

    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "hotel", "car", "letter"]
    assert seen["hotel"] == ({"number": 8}, {})
    assert seen["car"] == ({"number": 8}, {"hotel": {"ref": "hotel-8"}})
