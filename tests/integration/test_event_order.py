"""Events reach a saga in the order in which they were sent, whoever sends and however fast."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from saga_orchestrator import BaseStep, Event, SagaBuilder, SagaDefinition, SagaOrchestrator, StepContext, WaitFor
from saga_orchestrator.testing import MemoryStore
from tests.support.sagas import NAME, Input, Output, Site, TripSaga, soon

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
COUNT = 30


class Item(BaseModel):
    n: int


class Collect(BaseStep[Input, Output]):
    """Waits for items until the last has come."""

    def __init__(self, correlation_id: str | None = None) -> None:
        self.got: list[int] = []
        self.wait = WaitFor("item", correlation_id=correlation_id)

    async def execute(self, inp: Input, ctx: StepContext) -> Output | WaitFor:
        return self.wait

    async def on_event(self, inp: Input, event: Event[Item], ctx: StepContext) -> Output | WaitFor:
        self.got.append(event.payload.n)
        return self.wait if len(self.got) < COUNT else Output(ref="all")


def collecting(collect: Collect) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=collect, input_map=lambda ctx: Input(number=7), step_id="collect")
    return builder.build()


@pytest.mark.parametrize("first", ["the saga", "the events"])
@pytest.mark.parametrize("by", ["aggregation_id", "correlation_id"])
@pytest.mark.parametrize("sending", ["in one transaction", "one by one", "by two processes"])
async def test_events_come_in_the_order_of_their_sending(database: Site, first: str, by: str, sending: str) -> None:
    """Also within one millisecond, and whether the saga waits already or begins later."""
    collect = Collect("c-1" if by == "correlation_id" else None)
    senders: list[SagaOrchestrator[TripSaga]] = [database.joins(collecting(collect)) for _ in range(2)]
    to = {by: "order-1" if by == "aggregation_id" else "c-1"}

    async def send() -> None:
        if sending == "in one transaction":
            async with database.sessions() as session, session.begin():
                for n in range(COUNT):
                    await senders[0].signal("item", payload={"n": n}, session=session, **to)
            return
        for n in range(COUNT):
            sender = senders[n % 2 if sending == "by two processes" else 0]
            await sender.signal("item", payload={"n": n}, **to)

    if first == "the events":
        await send()
    saga_id = await senders[0].start(**ORDER)
    if first == "the saga":
        await send()
    await soon(senders[0].result(saga_id))

    assert collect.got == list(range(COUNT))


async def test_events_in_memory_come_in_the_order_of_their_sending() -> None:
    """The store without a database keeps the order, too."""
    collect = Collect()
    orchestrator = SagaOrchestrator[TripSaga](store=MemoryStore())
    orchestrator.register(NAME, collecting(collect))
    for n in range(COUNT):
        await orchestrator.signal("item", aggregation_id="order-1", payload={"n": n})
    saga_id = await orchestrator.start(**ORDER)
    await soon(orchestrator.result(saga_id))
    await orchestrator.aclose()

    assert collect.got == list(range(COUNT))


async def test_a_notification_for_another_correlation_ends_no_wait(on_sqlite: Site) -> None:
    """The token says which wait; an envelope that names another correlation does not fit, and is answered False."""
    collect = Collect("c-1")
    orchestrator = on_sqlite.joins(collecting(collect))
    saga_id = await orchestrator.start(**ORDER)
    token = (await orchestrator.get_snapshot(saga_id)).waits[0].token

    other = Event(type="item", payload={"n": 0}, correlation_id="c-2")
    assert await orchestrator.notify(saga_id=saga_id, token=token, event=other) is False
    assert collect.got == []
    mine = Event(type="item", payload={"n": 1}, correlation_id="c-1")
    assert await orchestrator.notify(saga_id=saga_id, token=token, event=mine) is True
    token = (await orchestrator.get_snapshot(saga_id)).waits[0].token
    assert await orchestrator.notify(saga_id=saga_id, token=token, event=Event(type="item", payload={"n": 2})) is True
    assert collect.got == [1, 2]
