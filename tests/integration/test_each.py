"""Fans at work: a step for each item, its key, its retries and its undo, and what a restart changes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic import RootModel

from saga_orchestrator import (
    BaseStep,
    FixedRetry,
    OutcomeUnknown,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaStatus,
    StepContext,
    StepKind,
)
from tests.support.sagas import NAME, Input, Output, Site, World, soon


class Mail(BaseStep[Input, Output]):
    """A step of the world whose calls tell the items apart."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def execute(self, inp: Input, ctx: StepContext) -> Output:
        await self.world.call(f"mail {inp.number}", ctx)
        return Output(ref=f"letter {inp.number}")

    async def compensate(self, inp: Input, out: Output | None, ctx: StepContext) -> None:
        await self.world.call(f"undo mail {inp.number}", ctx)


class Go(BaseStep[Input, Output]):
    """A step of the world that is never undone."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def execute(self, inp: Input, ctx: StepContext) -> Output:
        await self.world.call(f"go {inp.number}", ctx)
        return Output()


class Tell(BaseStep[RootModel[list[str | None]], Output]):
    """A step that is given what all items came to."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def execute(self, inp: RootModel[list[str | None]], ctx: StepContext) -> Output:
        await self.world.call(f"tell {inp.root}", ctx)
        return Output(ref="told")


def mailing(world: World, **options: Any) -> SagaDefinition:
    builder = SagaBuilder()
    letters = builder.add_each(
        items=lambda ctx: [{"number": number} for number in ctx.initial_data],
        step=Mail(world),
        step_id="mail",
        **options,
    )
    builder.add_step(
        step=Tell(world),
        input_map=lambda said: RootModel[list[str | None]]([out and out.ref for out in said.root]),
        depends_on=letters,
        step_id="tell",
    )
    return builder.build()


async def test_m1_each_item_is_a_step_and_the_outputs_come_in_their_order(database: Site, world: World) -> None:
    """However they end: the first item ends last."""
    gate = world.gate("mail 0")
    orchestrator = database.joins(mailing(world))
    starting = asyncio.create_task(orchestrator.start(saga_name=NAME, initial_data=[0, 1, 2], aggregation_id="a"))
    await gate.wait_reached()
    gate.open()
    saga_id = await soon(starting)

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["mail 0", "mail 1", "mail 2", "tell ['letter 0', 'letter 1', 'letter 2']"]
    keys = [ctx.idempotency_key for ctx in world.contexts[:3]]
    assert keys == [f"{saga_id}/mail.{index}/execute" for index in range(3)]


async def test_a_bound_is_kept(database: Site, world: World) -> None:
    """While two are in flight no third begins."""
    gates = [world.gate(f"mail {number}") for number in range(2)]
    orchestrator = database.joins(mailing(world, max_parallel=2))
    starting = asyncio.create_task(orchestrator.start(saga_name=NAME, initial_data=[0, 1, 2], aggregation_id="a"))
    for gate in gates:
        await gate.wait_reached()
    assert world.calls == ["mail 0", "mail 1"]
    for gate in gates:
        gate.open()
    saga_id = await soon(starting)

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls[2] == "mail 2"


async def test_each_item_has_its_own_retries_and_undo(database: Site, world: World) -> None:
    """One that fails for good takes back those that went well, and no others."""
    world.plan("mail 1", ValueError("busy"))
    world.plan("mail 2", PermanentError("no such address"))
    orchestrator = database.joins(mailing(world, retry_policy=FixedRetry(2, timedelta(0)), max_parallel=1))

    saga_id = await orchestrator.start(saga_name=NAME, initial_data=[0, 1, 2, 3], aggregation_id="a")
    snapshot = await orchestrator.get_snapshot(saga_id)

    assert snapshot.status is SagaStatus.COMPENSATED
    assert snapshot.last_error == "PermanentError('no such address')"
    assert world.calls == ["mail 0", "mail 1", "mail 1", "mail 2", "undo mail 1", "undo mail 0"]


async def test_some_may_fail(database: Site, world: World) -> None:
    """Their places in the list are empty; what may have acted all the same is said."""
    world.plan("mail 0", PermanentError("no such address"))
    world.plan("mail 2", OutcomeUnknown("the line went dead"))
    orchestrator = database.joins(mailing(world, tolerate=2))

    saga_id = await orchestrator.start(saga_name=NAME, initial_data=[0, 1, 2], aggregation_id="a")
    snapshot = await orchestrator.get_snapshot(saga_id)

    assert snapshot.status is SagaStatus.COMPLETED
    assert snapshot.residue == ("mail.2",)
    assert world.calls[-1] == "tell [None, 'letter 1', None]"


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ("abc", "items answered str, which is no list"),
        ([{"number": "x"}], "number"),
        (range(10_000), "10,000 items, and a saga takes 1,000"),
    ],
)
async def test_what_is_no_list_of_inputs_fails_a_step_that_did_not_act(
    database: Site, world: World, items: Any, error: str
) -> None:
    """Clearly, and nothing is lost: no item has begun."""
    builder = SagaBuilder()
    builder.add_each(items=lambda _: items, step=Mail(world), step_id="mail")
    orchestrator = database.joins(builder.build())

    saga_id = await orchestrator.start(saga_name=NAME, initial_data=None, aggregation_id="a")
    snapshot = await orchestrator.get_snapshot(saga_id)

    assert (snapshot.status, snapshot.residue) == (SagaStatus.FAILED, ())
    assert error in (snapshot.last_error or "")
    assert world.calls == []


async def test_a_list_of_none_goes_on(database: Site, world: World) -> None:
    """With an empty list."""
    orchestrator = database.joins(mailing(world))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data=[], aggregation_id="a")

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["tell []"]


async def test_the_items_are_those_of_the_first_process(database: Site, world: World) -> None:
    """Who takes the saga over asks nobody again which items there are, and repeats only what was in flight."""

    def asked_again(_: Any) -> Any:
        raise AssertionError("the items are recorded")

    builder = SagaBuilder()
    letters = builder.add_each(items=asked_again, step=Mail(world), step_id="mail", max_parallel=1)
    builder.add_step(
        step=Tell(world),
        input_map=lambda said: RootModel[list[str | None]]([out.ref for out in said.root]),
        depends_on=letters,
        step_id="tell",
    )
    gate = world.gate("mail 1")
    first, heir = database.joins(mailing(world, max_parallel=1)), database.joins(builder.build())
    starting = asyncio.create_task(first.start(saga_name=NAME, initial_data=[0, 1, 2], aggregation_id="a"))
    await gate.wait_reached()
    await first.aclose()
    saga_id = await soon(starting)

    assert await soon(heir.run_due()) == 1

    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls.count("mail 0") == 1
    assert world.calls[-1] == "tell ['letter 0', 'letter 1', 'letter 2']"


async def test_an_operator_may_do_an_item_by_hand(database: Site, world: World) -> None:
    """It counts as done, and what he says that it came to stands in the list."""
    orchestrator = database.joins(mailing(world, retry_policy=FixedRetry(5, timedelta(hours=1))))
    admin = SagaAdmin[Any](engine=orchestrator.engine)
    world.plan("mail 1", ValueError("busy"))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data=[0, 1], aggregation_id="a")

    await admin.skip_step(saga_id, {"ref": "by hand"}, step_id="mail.1")

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls[-1] == "tell ['letter 0', 'by hand']"


async def test_a_hundred_items(database: Site, world: World) -> None:
    """At once, and each is undone when the saga fails at its end."""
    world.plan(f"tell {[f'letter {n}' for n in range(100)]}", PermanentError("nobody there"))
    orchestrator = database.joins(mailing(world))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data=list(range(100)), aggregation_id="a")

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert sorted(world.calls[101:]) == sorted(f"undo mail {number}" for number in range(100))


async def test_an_operator_may_give_the_list(database: Site, world: World) -> None:
    """Where it could not be made: the saga goes on with the items that he names."""
    builder = SagaBuilder(compensate_on_failure=True)
    builder.add_step(step=Go(world), input_map=lambda _: Input(), step_id="go", kind=StepKind.PIVOT)
    builder.add_each(
        items=lambda ctx: ctx.initial_data["nowhere"],
        step=Go(world),
        step_id="mail",
        kind=StepKind.RETRIABLE,
    )
    orchestrator = database.joins(builder.build())
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a")
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.STUCK

    await SagaAdmin[Any](engine=orchestrator.engine).skip_step(saga_id, [{"number": 4}, {"number": 5}])

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["go 0", "go 4", "go 5"]
