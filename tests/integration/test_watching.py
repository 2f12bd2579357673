"""Running a saga to its end in one call, and watching it on its way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from saga_orchestrator import (
    PermanentError,
    SagaFailedError,
    SagaNotFoundError,
    SagaSnapshot,
    SagaStatus,
)
from saga_orchestrator.storage.rows import SagaFilter
from tests.support.sagas import NAME, Site, World, soon, trip

ORDER: Any = {"saga_name": NAME, "initial_data": {"number": 7}, "aggregation_id": "order-1"}


async def test_m16_run_returns_what_has_come_of_it(database: Site, world: World) -> None:
    """The outputs of all the steps, once the saga is over."""
    orchestrator = database.joins(trip(world))

    result = await soon(orchestrator.run(**ORDER))

    assert result.status is SagaStatus.COMPLETED
    assert result.outputs["car"] == {"ref": "car-7"}


async def test_m16_run_raises_what_went_wrong(database: Site, world: World) -> None:
    """The error of the step, and where the saga stands, unless the caller would rather read it in the result."""
    world.plan("hotel", PermanentError("full"), PermanentError("full"))
    orchestrator = database.joins(trip(world))

    with pytest.raises(SagaFailedError, match=r"is COMPENSATED: PermanentError\('full'\)") as raised:
        await soon(orchestrator.run(**ORDER))
    quiet = await soon(orchestrator.run(raise_on_error=False, **ORDER))

    assert raised.value.status == "COMPENSATED"
    assert raised.value.error == "PermanentError('full')"
    assert raised.value.residue == ()
    assert quiet.status is SagaStatus.COMPENSATED


async def test_m16_an_error_says_what_stands(database: Site, world: World) -> None:
    """A saga whose undo has failed is STUCK, and the error names the step whose effect stands."""
    world.plan("hotel", PermanentError("full"))
    world.plan("undo flight", PermanentError("no refund"))
    orchestrator = database.joins(trip(world))

    with pytest.raises(SagaFailedError, match=r"is STUCK: .* What stands: flight\.") as raised:
        await soon(orchestrator.run(**ORDER))

    assert raised.value.residue == ("flight",)


async def test_m16_a_caller_whose_patience_ends_leaves_the_saga_running(database: Site, world: World) -> None:
    """The saga goes on, and another can wait for it."""
    gate = world.gate("hotel")
    orchestrator = database.joins(trip(world))
    running = asyncio.create_task(orchestrator.run(**ORDER))
    await gate.wait_reached()
    running.cancel()
    await asyncio.wait([running])
    gate.open()
    (saga,) = await orchestrator.engine.store.heads(SagaFilter(), 10, None)

    assert (await soon(orchestrator.result(saga.id, timedelta(seconds=20)))).status is SagaStatus.COMPLETED


async def test_a_saga_is_watched_on_its_way(database: Site, world: World) -> None:
    """Each time it has moved, and a last time when it is over; by a process that does not drive it, too."""
    gate = world.gate("hotel")
    orchestrator, other = database.joins(trip(world)), database.joins(trip(world))
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (saga,) = await other.engine.store.heads(SagaFilter(), 10, None)
    seen: list[SagaSnapshot] = []
    async for snapshot in other.watch(saga.id):
        seen.append(snapshot)
        gate.open()
    await soon(running)

    assert (seen[0].status, seen[0].current_step_index) == (SagaStatus.RUNNING, 1)
    assert seen[-1].status is SagaStatus.COMPLETED
    assert len(seen) == len({snapshot.revision for snapshot in seen})


async def test_a_saga_that_there_is_not_cannot_be_watched(database: Site, world: World) -> None:
    """The error says so at the first look."""
    orchestrator = database.joins(trip(world))

    with pytest.raises(SagaNotFoundError):
        await anext(orchestrator.watch(uuid4()))
