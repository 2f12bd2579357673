"""Defects of rewinds, fans and confirms that a review found, each as it was met."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from saga_orchestrator import (
    FixedRetry,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaStatus,
    StepContext,
)
from tests.support.sagas import NAME, Deed, Input, OneWay, Output, Site, World, soon

LATER = FixedRetry(3, timedelta(hours=1))


class Told(Deed):
    """A step of the world whose undo says what it was called with."""

    async def compensate(self, inp: Input, out: Output | None, ctx: StepContext) -> None:
        await self.world.call(f"undo {self.name} {inp.number}", ctx)


class Confirmed(Deed):
    """A step of the world that is confirmed."""

    async def confirm(self, inp: Input, out: Output, ctx: StepContext) -> None:
        await self.world.call(f"confirm {self.name}", ctx)


async def fine() -> None:
    """The call succeeds."""


def number(ctx: Any) -> Input:
    return Input(number=ctx.initial_data["number"])


def of(orchestrator: Any) -> SagaAdmin[Any]:
    return SagaAdmin(engine=orchestrator.engine)


async def test_a_confirm_of_a_branch_that_was_not_taken_disturbs_nobody(database: Site, world: World) -> None:
    """Its row was refused as nonsense by whoever took the saga next."""

    def branch(name: str) -> SagaDefinition:
        builder = SagaBuilder()
        builder.add_step(step=Confirmed(world, name), input_map=number, step_id=name)
        return builder.build()

    def whole() -> SagaDefinition:
        builder = SagaBuilder()
        parts = {"card": branch("bank"), "cash": branch("till")}
        builder.add_choice(choose=lambda ctx: "card", branches=parts, step_id="how")
        builder.add_step(step=Confirmed(world, "letter"), input_map=number, step_id="letter", retry_policy=LATER)
        return builder.build()

    world.plan("letter", ValueError("later"))
    saga_id = await database.joins(whole()).start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")

    heir = database.joins(whole())
    await of(heir).retry_step(saga_id)

    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls[:3] == ["bank", "letter", "letter"]
    assert sorted(world.calls[3:]) == ["confirm bank", "confirm letter"]


async def test_what_is_lost_after_a_rewind_is_undone_with_its_new_input(database: Site, world: World) -> None:
    """The input of before the rewind was taken for that of the attempt that was lost."""

    def journey() -> SagaDefinition:
        builder = SagaBuilder()
        for name in ("flight", "hotel", "car"):
            builder.add_step(step=Told(world, name), input_map=number, step_id=name, retry_policy=LATER)
        return builder.build()

    world.plan("car", ValueError("none left"))
    first, heir = database.joins(journey()), database.joins(journey())
    saga_id = await first.start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")
    gate = world.gate("car")
    rewinding = asyncio.create_task(of(first).rewind(saga_id, "hotel", patch={"number": 2}))
    await gate.wait_reached()
    await first.aclose()
    await soon(rewinding)
    world.plan("car", PermanentError("no"))

    await soon(heir.run_due())

    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert world.calls[-3:] == ["undo car 2", "undo hotel 2", "undo flight 1"]


async def test_a_list_that_is_made_anew_holds_nothing_of_the_old_one(database: Site, world: World) -> None:
    """An item that was missed had what the old one of its place returned."""
    builder, seen = SagaBuilder(), []
    every = builder.add_each(
        items=lambda ctx: [{"number": n} for n in ctx.initial_data["list"]],
        step=OneWay(world, "mail"),
        step_id="mail",
        compensation=None,
        tolerate=1,
        max_parallel=1,
    )

    def look(said: Any) -> Input:
        seen.append([out and out.ref for out in said.root])
        return Input()

    builder.add_step(step=Deed(world, "tell"), input_map=look, depends_on=every, step_id="tell", retry_policy=LATER)
    orchestrator = database.joins(builder.build())
    world.plan("tell", ValueError("later"))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"list": [0, 1, 2]}, aggregation_id="a")
    world.plan("mail", fine, PermanentError("gone"))

    await of(orchestrator).rewind(saga_id, "mail", patch={"list": [10, 11]})

    assert seen == [["mail-0", "mail-1", "mail-2"], ["mail-10", None]]
    result = await soon(orchestrator.result(saga_id))
    assert (result.status, "mail.2" in result.outputs) == (SagaStatus.COMPLETED, False)


async def test_after_a_choice_is_made_anew_nobody_sees_the_branch_that_was_left(database: Site, world: World) -> None:
    """The outputs of its steps were there beside those of the other."""
    seen: list[set[str]] = []

    def branch(name: str) -> SagaDefinition:
        builder = SagaBuilder()
        builder.add_step(step=OneWay(world, name), input_map=number, step_id=name, compensation=None)
        return builder.build()

    def look(ctx: Any) -> Input:
        seen.append(set(ctx.step_outputs))
        return Input()

    builder = SagaBuilder()
    parts = {"card": branch("bank"), "cash": branch("till")}
    builder.add_choice(choose=lambda ctx: ctx.initial_data["way"], branches=parts, step_id="how")
    builder.add_step(step=Deed(world, "letter"), input_map=look, step_id="letter", retry_policy=LATER)
    orchestrator = database.joins(builder.build())
    world.plan("letter", ValueError("later"))
    data = {"way": "card", "number": 1}
    saga_id = await orchestrator.start(saga_name=NAME, initial_data=data, aggregation_id="a")

    await of(orchestrator).rewind(saga_id, "how", patch={"way": "cash"})

    assert seen == [{"how", "how.card"}, {"how", "how.cash"}]


async def test_a_child_in_a_rewind_is_undone_with_its_parent(database: Site, world: World) -> None:
    """It went forward again, and its parent was STUCK."""
    trip, whole = SagaBuilder(), SagaBuilder()
    for name in ("flight", "hotel", "car"):
        trip.add_step(step=Deed(world, name), input_map=number, step_id=name, retry_policy=LATER)
    whole.add_child("child", input_map=lambda ctx: ctx.initial_data, step_id="trip")
    orchestrator = database.joins(whole.build())
    orchestrator.register("child", trip.build())
    world.plan("car", ValueError("none left"))
    parent = await orchestrator.start(saga_name=NAME, initial_data={"number": 1}, aggregation_id="a")
    (child,) = (await of(orchestrator).list_sagas(saga_name="child")).items
    async for snapshot in orchestrator.watch(child.id):
        if snapshot.status is SagaStatus.SUSPENDED:
            break
    gate = world.gate("undo hotel")
    rewinding = asyncio.create_task(of(orchestrator).rewind(child.id, "hotel"))
    await gate.wait_reached()

    await soon(of(orchestrator).cancel(parent))
    async for progress in orchestrator.watch(parent):
        if "Undo" in str(dict((await of(orchestrator).get_saga(parent)).steps)) or progress.status.is_terminal:
            break
    gate.open()
    await soon(rewinding)

    assert (await soon(orchestrator.result(parent))).status is SagaStatus.COMPENSATED
    assert world.calls[3:] == ["undo hotel", "undo flight"]
