"""Choices at work: one branch runs, the answer is recorded, and a restart does not ask again."""

from __future__ import annotations

import asyncio
from typing import Any

from saga_orchestrator import PermanentError, SagaAdmin, SagaBuilder, SagaDefinition, SagaStatus
from tests.support.sagas import NAME, Deed, Input, Site, World, soon, trip


def refund(world: World, answers: list[Any], **settings: Any) -> SagaDefinition:
    """Return a saga of a flight, a choice between a card and a voucher, and a letter."""

    def choose(ctx: Any) -> Any:
        world.calls.append("choose")
        return answers.pop(0) if answers else ctx.initial_data["way"]

    builder = SagaBuilder()
    builder.add_step(step=Deed(world, "flight"), input_map=lambda ctx: Input(), step_id="flight")
    branches = {"card": trip(world, "bank"), "voucher": trip(world, "print", "post")}
    builder.add_choice(choose=choose, branches=branches, step_id="how", **settings)
    builder.add_step(step=Deed(world, "letter"), input_map=lambda ctx: Input(), step_id="letter")
    return builder.build()


def order(way: str) -> dict[str, Any]:
    return {"saga_name": NAME, "initial_data": {"way": way, "number": 7}, "aggregation_id": "a"}


async def test_m15_one_branch_runs(database: Site, world: World) -> None:
    """Its steps see what the saga was started with; the others are shown as omitted."""
    orchestrator = database.joins(refund(world, []))

    result = await soon(orchestrator.run(**order("voucher")))

    assert world.calls == ["flight", "choose", "print", "post", "letter"]
    assert result.outputs["how"] == "voucher"
    assert result.outputs["how.voucher.post"] == {"ref": "post-7"}
    shown = await SagaAdmin(engine=orchestrator.engine).get_saga(result.saga_id)
    assert shown.steps["how.card.bank"] == "Omitted"


async def test_m15_the_branch_that_ran_is_undone(database: Site, world: World) -> None:
    """What comes after it, it, and what comes before it, in that order."""
    world.plan("letter", PermanentError("no stamps"))
    orchestrator = database.joins(refund(world, []))

    result = await soon(orchestrator.run(raise_on_error=False, **order("voucher")))

    assert result.status is SagaStatus.COMPENSATED
    assert world.calls[5:] == ["undo post", "undo print", "undo flight"]


async def test_m15_an_answer_is_not_asked_for_again(database: Site, world: World) -> None:
    """A process that takes the saga over, with code that would answer otherwise, goes on in the branch taken."""
    gate = world.gate("bank")
    first, heir = database.joins(refund(world, ["card"])), database.joins(refund(world, ["voucher"]))
    starting = asyncio.create_task(first.start(**order("card")))
    await gate.wait_reached()
    await first.aclose()
    saga_id = await soon(starting)

    assert await soon(heir.run_due()) == 1

    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "choose", "bank", "bank", "letter"]


async def test_an_unknown_answer_fails_the_step_and_nothing_is_lost(database: Site, world: World) -> None:
    """The saga turns back, and its error names the branches."""
    orchestrator = database.joins(refund(world, ["gold"]))

    result = await soon(orchestrator.run(raise_on_error=False, **order("card")))

    assert result.status is SagaStatus.COMPENSATED
    assert result.error is not None
    assert "choose answered 'gold', and the branches are 'card', 'voucher'" in result.error
    assert world.calls == ["flight", "choose", "undo flight"]


async def test_an_answer_that_is_declared_to_be_none_goes_on(database: Site, world: World) -> None:
    """With nothing of the branches."""
    orchestrator = database.joins(refund(world, ["gold"], otherwise=None))

    result = await soon(orchestrator.run(**order("card")))

    assert world.calls == ["flight", "choose", "letter"]
    assert result.outputs["how"] == "otherwise"
