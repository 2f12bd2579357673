"""A step that works in the sagas' own database, and a saga of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from saga_orchestrator import BaseStep, Event, SagaBuilder, SagaDefinition, StepContext, WaitFor
from tests.support.sagas import NAME, Deed, Input, Output, World

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}


class Book(BaseStep[Input, Output]):
    """Adds one to a counter, in the saga's own database, and takes it away again."""

    transactional = True

    def __init__(self, world: World) -> None:
        self.world = world

    async def execute(self, inp: Input, ctx: StepContext) -> Output | WaitFor:
        await ctx.session.execute(text("UPDATE counter SET n = n + 1"))
        done = await self.world.call("book", ctx)
        return done or Output(ref="booked")

    async def on_event(self, inp: Input, event: Event[Any], ctx: StepContext) -> Output:
        await ctx.session.execute(text("UPDATE counter SET n = n + 10"))
        return Output(ref="heard")

    async def compensate(self, inp: Input, out: Output, ctx: StepContext) -> None:
        await ctx.session.execute(text("UPDATE counter SET n = n - 1"))
        await self.world.call("undo book", ctx)


def saga(world: World, *, fails: bool = False, **said: Any) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=Book(world), input_map=lambda ctx: Input(), step_id="book", **said)
    builder.add_step(step=Deed(world, "ship"), input_map=lambda ctx: Input(), step_id="ship")
    if fails:
        world.plan("ship", ValueError("no lorry"))
    return builder.build()
