"""What the author's code and operators are shown of a saga's past."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from saga_orchestrator import (
    FixedRetry,
    InputContext,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
)
from tests.support.sagas import NAME, Deed, Input, Site, TripSaga, World, soon, trip

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {"number": 7}, "aggregation_id": "order-1"}


def admin_of(orchestrator: SagaOrchestrator[TripSaga]) -> SagaAdmin[TripSaga]:
    return SagaAdmin[TripSaga](engine=orchestrator.engine)


async def test_beside_an_undo_stands_the_output_that_was_undone(database: Site, world: World) -> None:
    """Also beside an attempt that failed; it is read from the row of the step, and stored once."""
    world.plan("hotel", PermanentError("full"))
    world.plan("undo flight", ValueError("away"))
    retried = {"flight": {"compensation_retry": FixedRetry(max_attempts=2, delay=timedelta(0))}}
    orchestrator = database.joins(trip(world, **retried))
    saga_id = await soon(orchestrator.start(**ORDER))

    history = (await admin_of(orchestrator).get_saga(saga_id)).step_history
    undone = [(row["status"], row["step_id"], row["undone_output"]) for row in history if row["phase"] == "COMPENSATE"]
    assert undone == [("ERROR", "flight", {"ref": "flight-7"}), ("SUCCESS", "flight", {"ref": "flight-7"})]
    sql = "SELECT count(*) FROM trip_saga_history WHERE phase = 'COMPENSATE' AND output IS NOT NULL"
    assert await database.value(sql) == 0


async def test_an_input_context_stays_as_it_was(on_sqlite: Site, world: World) -> None:
    """A function that keeps it sees later what it would have seen at the call."""
    kept: list[InputContext] = []

    def keep(ctx: InputContext) -> Input:
        kept.append(ctx)
        return Input(number=7)

    builder = SagaBuilder()
    for name in ("flight", "hotel", "car"):
        builder.add_step(step=Deed(world, name), input_map=keep, step_id=name)
    orchestrator = on_sqlite.joins(builder.build())
    saga_id = await soon(orchestrator.start(**ORDER))

    assert [list(ctx.step_outputs) for ctx in kept] == [[], ["flight"], ["flight", "hotel"]]
    assert [list(ctx.context["step_outputs"]) for ctx in kept] == [[], ["flight"], ["flight", "hotel"]]
    assert {ctx.saga_id for ctx in kept} == {saga_id}
    assert {(ctx.latest_event, ctx.latest_event_type, ctx.latest_event_payload) for ctx in kept} == {(None, None, None)}


async def test_an_input_context_tells_the_latest_event(on_sqlite: Site, world: World) -> None:
    """Its type and what it says; a notification that makes a retry now has no type."""
    kept: list[InputContext] = []

    def keep(ctx: InputContext) -> Input:
        kept.append(ctx)
        return Input(number=7)

    hourly = FixedRetry(max_attempts=3, delay=timedelta(hours=1))
    builder = SagaBuilder()
    builder.add_step(step=Deed(world, "flight"), input_map=keep, step_id="flight", retry_policy=hourly)
    orchestrator = on_sqlite.joins(builder.build())
    world.plan("flight", ValueError("full"))
    saga_id = await soon(orchestrator.start(**ORDER))
    token = (await orchestrator.get_snapshot(saga_id)).step_execution_token
    assert token is not None
    await soon(orchestrator.notify(saga_id=saga_id, token=token, event={"type": "no type", "seat": 3}))

    assert (kept[-1].latest_event_type, kept[-1].latest_event_payload) == (None, {"type": "no type", "seat": 3})
    assert kept[-1].latest_event == {"type": "no type", "seat": 3}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("order", ["abort", "cancel"])
async def test_an_ended_saga_keeps_the_reason(database: Site, world: World, order: str, fails: bool) -> None:
    """In `last_error`, which every snapshot shows; a saga that had an error shows that."""
    if fails:
        world.plan("hotel", ValueError("full"))
    hourly = FixedRetry(max_attempts=3, delay=timedelta(hours=1))
    builder = SagaBuilder()
    for name in ("flight", "hotel"):
        step = Deed(world, name)
        builder.add_step(step=step, input_map=lambda ctx: Input(number=7), step_id=name, retry_policy=hourly)
    builder.add_event("paid", step_id="paid")
    orchestrator = database.joins(builder.build())
    saga_id = await soon(orchestrator.start(**ORDER))

    await soon(getattr(admin_of(orchestrator), order)(saga_id, actor="ann", reason="fraud"))

    snapshot = await orchestrator.get_snapshot(saga_id)
    assert snapshot.status is {"abort": SagaStatus.FAILED, "cancel": SagaStatus.COMPENSATED}[order]
    word = {"abort": "aborted", "cancel": "cancelled"}[order]
    assert snapshot.last_error == ("ValueError('full')" if fails else f"{word} by ann: fraud")


async def test_a_failed_child_whose_parent_is_over_is_not_tried_again(database: Site, world: World) -> None:
    """Nothing would be done with its result; while its parent is active it may be."""
    child = SagaBuilder(compensate_on_failure=False)
    for name in ("flight", "hotel"):
        child.add_step(step=Deed(world, name), input_map=lambda ctx: Input(number=7), step_id=name)
    builder = SagaBuilder()
    builder.add_step(step=Deed(world, "car"), input_map=lambda ctx: Input(number=7), step_id="car")
    builder.add_child("child", input_map=lambda ctx: {}, step_id="child", compensation=None)
    orchestrator = database.joins(builder.build())
    orchestrator.register("child", child.build())
    world.plan("hotel", PermanentError("full"))
    parent = await soon(orchestrator.start(**ORDER))
    await soon(orchestrator.result(parent))
    admin = admin_of(orchestrator)
    (failed,) = (await admin.list_sagas(saga_name="child")).items
    assert failed.status is SagaStatus.FAILED

    with pytest.raises(SagaStateError, match=f"its parent {parent} is COMPENSATED"):
        await admin.retry_step(failed.id)
    assert world.calls == ["car", "flight", "hotel", "undo car"]
