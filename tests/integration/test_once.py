"""D13: parts of a step that are remembered, so that later attempts do not do them again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from saga_orchestrator import (
    BaseStep,
    FixedRetry,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaStatus,
    StepContext,
)
from tests.support.sagas import NAME, Input, Output, Site, World, soon

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
AT_ONCE = FixedRetry(max_attempts=3, delay=timedelta(0))


class Parcel(BaseModel):
    number: Decimal
    packed_at: datetime


class Packing(BaseStep[Input, Output]):
    """A step of several parts. `work` says what it does in an attempt."""

    def __init__(self, world: World, work: Callable[[StepContext, World], Awaitable[Any]]) -> None:
        self.world, self.work = world, work
        self.left: list[Any] = []

    async def execute(self, inp: Input, ctx: StepContext) -> Output:
        return Output(ref=str(await self.work(ctx, self.world)))

    async def compensate(self, inp: Input, out: Output | None, ctx: StepContext) -> None:
        self.left.append((out, dict(ctx.remembered)))
        await ctx.once("unpack", lambda: self.world.call("unpack", ctx))
        await self.world.call("undo", ctx)


def packing(step: BaseStep[Input, Output], *, fails: bool = False, **options: Any) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=step, input_map=lambda ctx: Input(), step_id="pack", retry_policy=AT_ONCE, **options)
    if fails:
        builder.add_step(step=Failing(), input_map=lambda ctx: Input(), step_id="fail")
    return builder.build()


class Failing(BaseStep[Input, Output]):
    async def execute(self, inp: Input) -> Output:
        raise PermanentError("no")


async def parts(ctx: StepContext, world: World) -> str:
    """Do two parts, and then what may go wrong."""
    first = await ctx.once("box", lambda: named(world, "box", ctx))
    second = await ctx.once("label", lambda: named(world, "label", ctx))
    await world.call("rest", ctx)
    return f"{first} {second}"


async def named(world: World, name: str, ctx: StepContext) -> str:
    await world.call(name, ctx)
    return f"{name} of {ctx.attempt}"


async def test_d13_a_part_is_not_done_again_by_a_later_attempt(database: Site, world: World) -> None:
    """What the first attempt did the third is given; what failed meanwhile was done again."""
    orchestrator = database.joins(packing(Packing(world, parts)))
    world.plan("label", ValueError("no ink"))
    world.plan("rest", ValueError("later"))

    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))

    assert (result.status, result.outputs["pack"]["ref"]) == (SagaStatus.COMPLETED, "box of 1 label of 2")
    assert world.calls == ["box", "label", "label", "rest", "rest"]


async def test_d13_a_part_is_remembered_by_the_next_owner(database: Site, world: World) -> None:
    """The worker dies after the parts, and before the step returns: the other one goes on from there."""
    dying, other = database.joins(packing(Packing(world, parts))), database.joins(packing(Packing(world, parts)))
    gate = world.gate("rest")
    starting = asyncio.create_task(dying.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = dying.engine.drivers
    dying.engine.drivers[saga_id].lose()
    await soon(starting)
    await database.make_due(saga_id)

    await soon(other.run_due())

    assert (await soon(other.result(saga_id))).outputs["pack"]["ref"] == "box of 1 label of 1"
    assert world.calls == ["box", "label", "rest", "rest"]
    assert world.contexts[-1].in_doubt


@pytest.mark.parametrize(
    ("value", "seen"), [(None, None), ([1, {"a": None}], [1, {"a": None}]), (Decimal("1.50"), "1.50")]
)
async def test_d13_what_a_part_returned_is_the_same_on_every_attempt(
    database: Site, world: World, value: Any, seen: Any
) -> None:
    """Nothing is remembered as well; what is no plain JSON comes back as such the first time, too."""
    found: list[Any] = []

    async def work(ctx: StepContext, world: World) -> None:
        found.append(await ctx.once("part", lambda: (world.calls.append("part"), value)[1]))
        await world.call("rest", ctx)

    orchestrator = database.joins(packing(Packing(world, work)))
    world.plan("rest", ValueError("later"))
    await soon(orchestrator.start(**ORDER))
    assert (found, world.calls) == ([seen, seen], ["part", "rest", "rest"])


async def test_d13_a_part_may_return_a_model(database: Site, world: World) -> None:
    """It comes back as the model that it was."""
    parcel, found = Parcel(number=Decimal("7.10"), packed_at=datetime(2024, 2, 29, tzinfo=UTC)), []

    async def work(ctx: StepContext, world: World) -> None:
        found.append(await ctx.once("part", lambda: parcel, returns=Parcel))
        await world.call("rest", ctx)

    orchestrator = database.joins(packing(Packing(world, work)))
    world.plan("rest", ValueError("later"))
    await soon(orchestrator.start(**ORDER))
    assert found == [parcel, parcel]


async def test_d13_of_five_callers_at_once_one_does_the_part(database: Site, world: World) -> None:
    """The others wait for it, and are given what it returned; another key's part does not wait."""

    async def work(ctx: StepContext, world: World) -> list[Any]:
        gate = world.gate("box")
        five = [asyncio.ensure_future(ctx.once("box", lambda: named(world, "box", ctx))) for _ in range(5)]
        await gate.wait_reached()
        await ctx.once("label", lambda: named(world, "label", ctx))
        gate.open()
        return sorted(await asyncio.gather(*five))

    orchestrator = database.joins(packing(Packing(world, work)))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert result.outputs["pack"]["ref"] == str(["box of 1"] * 5)
    assert world.calls == ["box", "label"]


async def test_a_step_that_has_done_a_part_is_undone_although_it_raised(database: Site, world: World) -> None:
    """It has acted, so it takes part in the rollback, and its undo sees what was done."""
    step = Packing(world, parts)
    orchestrator = database.joins(packing(step))
    world.plan("rest", PermanentError("full"))

    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))

    assert (result.status, result.error) == (SagaStatus.COMPENSATED, "PermanentError('full')")
    assert step.left == [(None, {"box": "box of 1", "label": "label of 1"})]
    history = (await SagaAdmin(engine=orchestrator.engine).get_saga(result.saga_id)).step_history
    assert [(row.step_id, row.status) for row in history] == [
        ("once:pack", "SUCCESS"),
        ("once:pack", "SUCCESS"),
        ("pack", "IN_DOUBT"),
        ("once-undo:pack", "SUCCESS"),
        ("pack", "SUCCESS"),
    ]


async def test_an_undo_remembers_its_own_parts(database: Site, world: World) -> None:
    """A part of an undo that failed afterwards is not done again."""
    options = {"compensation_retry": AT_ONCE}
    orchestrator = database.joins(packing(Packing(world, parts), fails=True, **options))
    world.plan("undo", ValueError("later"))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, world.calls[-3:]) == (SagaStatus.COMPENSATED, ["unpack", "undo", "undo"])


async def test_what_cannot_be_remembered_leaves_the_step_in_doubt(database: Site, world: World) -> None:
    """It is done, and nobody will know of it: so it is no clean failure."""

    async def work(ctx: StepContext, world: World) -> Any:
        return await ctx.once("part", object)

    orchestrator = database.joins(packing(Packing(world, work)))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert result.status is SagaStatus.COMPENSATED
    assert "OutcomeUnknown" in str(result.error)
    assert "pack" in str(result.error)


async def test_a_transactional_step_has_no_parts(database: Site, world: World) -> None:
    """It would wait for its own transaction; the error says why, and nothing is lost."""

    class Exact(Packing):
        transactional = True

    orchestrator = database.joins(packing(Exact(world, parts)))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, world.calls) == (SagaStatus.FAILED, [])
    assert "Step 'pack' is transactional" in str(result.error)


@pytest.mark.parametrize("key", ["", "k" * 256, 7, "a\x00"])
async def test_a_key_is_a_name(on_sqlite: Site, world: World, key: Any) -> None:
    """What is none is refused before anything is done."""

    async def work(ctx: StepContext, world: World) -> Any:
        return await ctx.once(key, lambda: world.calls.append("part"))

    orchestrator = on_sqlite.joins(packing(Packing(world, work)))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, world.calls) == (SagaStatus.FAILED, [])


async def test_a_step_that_was_rewound_does_its_parts_again(database: Site, world: World) -> None:
    """It is another generation: what the undone one has done is undone."""
    builder = SagaBuilder(undo_window=timedelta(days=1))
    builder.add_step(step=Packing(world, parts), input_map=lambda ctx: Input(), step_id="pack")
    orchestrator = database.joins(builder.build())
    admin = SagaAdmin(engine=orchestrator.engine)
    saga_id = await soon(orchestrator.start(**ORDER))
    await soon(admin.rewind(saga_id, "pack"))
    result = await soon(orchestrator.result(saga_id))
    assert (result.status, result.outputs["pack"]["ref"]) == (SagaStatus.COMPLETED, "box of 2 label of 2")


async def test_without_an_engine_a_part_is_simply_done(world: World) -> None:
    """So that a step can be tested by itself; its errors are those of the part."""
    facts = {"saga_name": NAME, "step_id": "pack", "aggregation_id": "a", "trace_id": "t", "idempotency_key": "k"}
    ctx = StepContext(saga_id=uuid4(), attempt=1, **facts)
    assert await ctx.once("a", lambda: 7) == 7
    assert await ctx.once("a", lambda: named(world, "box", ctx)) == "box of 1"
    ctx.progress(1, 2, "half")
    assert (ctx.remembered, ctx.heartbeat_deadline) == ({}, None)


async def test_a_step_knows_until_when_its_saga_is_its_owners(database: Site, world: World) -> None:
    """The deadline lies within the lease, by the database's clock."""
    seen: list[datetime] = []

    async def work(ctx: StepContext, world: World) -> None:
        assert ctx.heartbeat_deadline is not None
        seen.extend((orchestrator.engine.now(), ctx.heartbeat_deadline))

    orchestrator = database.joins(packing(Packing(world, work)), execution_lease=timedelta(minutes=10))
    await soon(orchestrator.start(**ORDER))
    assert timedelta(minutes=5) < seen[1] - seen[0] < timedelta(minutes=10)
