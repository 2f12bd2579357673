"""Going back to a step and forward again, and undoing what has completed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from saga_orchestrator import (
    FixedRetry,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaStateError,
    SagaStatus,
    StepKind,
)
from tests.support.sagas import NAME, Deed, Input, OneWay, Site, World, soon

LATER = FixedRetry(3, timedelta(hours=1))


def journey(world: World, **settings: Any) -> SagaDefinition:
    """Return a saga of three steps, the last of which waits an hour before it is tried again."""
    builder = SagaBuilder(**settings)
    for name in ("flight", "hotel", "car"):
        builder.add_step(
            step=Deed(world, name),
            input_map=lambda ctx: Input(number=ctx.initial_data["number"]),
            step_id=name,
            retry_policy=LATER,
        )
    return builder.build()


def of(orchestrator: Any) -> SagaAdmin[Any]:
    return SagaAdmin(engine=orchestrator.engine)


async def test_n10_what_comes_after_a_step_is_undone_and_done_again(database: Site, world: World) -> None:
    """With what the operator has changed, and under keys of its own; what comes before the step stays."""
    world.plan("car", ValueError("none left"))
    orchestrator = database.joins(journey(world))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")

    await of(orchestrator).rewind(saga_id, "hotel", patch={"number": 2}, actor="ann", reason="another car")

    snapshot = await of(orchestrator).get_saga(saga_id)
    assert snapshot.status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "car", "undo hotel", "hotel", "car"]
    keys = [ctx.idempotency_key.removeprefix(f"{saga_id}/") for ctx in world.contexts[1:]]
    assert keys == ["hotel/execute", "car/execute", "hotel/compensate", "hotel/execute~1", "car/execute~1"]
    assert snapshot.context["step_outputs"]["car"] == {"ref": "car-2"}
    assert [(entry.step_id, entry.actor) for entry in snapshot.step_history if entry.actor] == [("rewind:hotel", "ann")]


async def test_a_rewind_outlives_its_process(database: Site, world: World) -> None:
    """Another process undoes the rest, and goes forward with what was changed."""
    world.plan("car", ValueError("none left"))
    gate = world.gate("undo hotel")
    first, heir = database.joins(journey(world)), database.joins(journey(world))
    saga_id = await first.start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")
    rewinding = asyncio.create_task(of(first).rewind(saga_id, "hotel", patch={"number": 2}))
    await gate.wait_reached()
    await first.aclose()
    await soon(rewinding)

    assert await soon(heir.run_due()) == 1

    result = await soon(heir.result(saga_id))
    assert (result.status, result.outputs["hotel"]) == (SagaStatus.COMPLETED, {"ref": "hotel-2"})


async def test_what_fails_after_a_rewind_undoes_it_all(database: Site, world: World) -> None:
    """Each effect once: those of before the rewind are undone already."""
    world.plan("car", ValueError("none left"), PermanentError("never"))
    orchestrator = database.joins(journey(world))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")

    await of(orchestrator).rewind(saga_id, "hotel")

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert world.calls[3:] == ["undo hotel", "hotel", "car", "undo hotel", "undo flight"]
    undone = [ctx.idempotency_key for ctx in world.contexts if ctx.phase == "compensate" and ctx.step_id == "hotel"]
    assert len(set(undone)) == 2


async def test_an_undo_that_fails_stops_the_rewind(database: Site, world: World) -> None:
    """It is STUCK with that in its residue, until somebody takes it on himself; then it goes forward."""
    world.plan("car", ValueError("none left"))
    world.plan("undo hotel", PermanentError("no refund"))
    orchestrator = database.joins(journey(world))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")

    await of(orchestrator).rewind(saga_id, "hotel")
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.residue) == (SagaStatus.STUCK, ("hotel",))

    await of(orchestrator).waive_step(saga_id, "hotel", actor="ann")
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls[3:] == ["undo hotel", "hotel", "car"]


async def test_a_rewind_may_become_a_rollback(database: Site, world: World) -> None:
    """An operator who cancels wants it all undone."""
    world.plan("car", ValueError("none left"))
    gate = world.gate("undo hotel")
    orchestrator = database.joins(journey(world))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")
    rewinding = asyncio.create_task(of(orchestrator).rewind(saga_id, "hotel"))
    await gate.wait_reached()

    await soon(of(orchestrator).cancel(saga_id))
    gate.open()
    await soon(rewinding)

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPENSATED
    assert world.calls[3:] == ["undo hotel", "undo flight"]


@pytest.mark.parametrize(
    ("step_id", "reason"),
    [
        ("nowhere", "it has not come to a step 'nowhere'"),
        ("train", "it has not come to a step 'train'"),
        ("flight", "it is past its pivot"),
    ],
)
async def test_where_it_cannot_go_back_to(database: Site, world: World, step_id: str, reason: str) -> None:
    """The error says why, and nothing has changed."""
    builder = SagaBuilder()
    for name, kind in (("flight", StepKind.COMPENSATABLE), ("pay", StepKind.PIVOT), ("train", StepKind.RETRIABLE)):
        step = Deed(world, name) if kind is StepKind.COMPENSATABLE else OneWay(world, name)
        builder.add_step(step=step, input_map=lambda _: Input(), step_id=name, kind=kind, retry_policy=LATER)
    orchestrator = database.joins(builder.build())
    world.plan("pay" if step_id != "flight" else "train", ValueError("later"))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a")

    with pytest.raises(SagaStateError, match=reason):
        await of(orchestrator).rewind(saga_id, step_id)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.SUSPENDED


async def test_a_patch_is_for_a_dict(database: Site, world: World) -> None:
    """What has no names has none that could be another."""
    orchestrator = database.joins(journey(world))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data=[1], aggregation_id="a")
    with pytest.raises(SagaStateError, match="initial data that is a dict"):
        await of(orchestrator).rewind(saga_id, "flight", patch={"number": 2})


async def test_n10_what_has_completed_can_be_undone_within_its_window(database: Site, world: World) -> None:
    """Also from another process, and in the same order as if it had failed."""
    first = database.joins(journey(world, undo_window=timedelta(hours=1)))
    other = database.joins(journey(world, undo_window=timedelta(hours=1)))
    saga_id = await first.start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")

    await of(other).compensate_step(saga_id, actor="ann")

    assert (await other.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert world.calls[3:] == ["undo car", "undo hotel", "undo flight"]


async def test_n10_what_has_completed_can_be_rewound(database: Site, world: World) -> None:
    """To a savepoint, for example."""
    builder = SagaBuilder(undo_window=timedelta(hours=1))
    builder.add_step(step=Deed(world, "flight"), input_map=lambda _: Input(), step_id="flight")
    builder.add_savepoint("paid")
    builder.add_step(step=Deed(world, "hotel"), input_map=lambda _: Input(), step_id="hotel")
    orchestrator = database.joins(builder.build())
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a")

    await of(orchestrator).rewind(saga_id, "paid")

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "undo hotel", "hotel"]


async def test_n10_after_the_window_nothing_is_undone(database: Site, world: World) -> None:
    """Nor without one; the errors say which."""
    for settings, reason in (({}, "opens no undo_window"), ({"undo_window": timedelta(minutes=1)}, "has closed")):
        orchestrator = database.joins(journey(world, **settings, version=1 + bool(settings)))
        saga_id = await orchestrator.start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")
        await database.edit(saga_id, finished_at=f"={database.ago}")
        for order in (of(orchestrator).compensate_step(saga_id), of(orchestrator).rewind(saga_id, "car")):
            with pytest.raises(SagaStateError, match=reason):
                await order
    assert len(world.calls) == 6
