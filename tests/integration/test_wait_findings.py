"""What a hostile review of the waits has found: each defect by its name, so that it does not come back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from saga_orchestrator import (
    BaseStep,
    Event,
    PayloadError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
    SagaStateError,
    SagaStatus,
    SignalResult,
    StepContext,
    WaitFor,
)
from saga_orchestrator.testing import ManualClock
from tests.support.sagas import NAME, Deed, Input, Output, Site, World, soon

HOUR = timedelta(hours=1)


def order(number: int = 1) -> dict[str, Any]:
    return {"saga_name": NAME, "initial_data": {}, "aggregation_id": f"order-{number}"}


class Picky(BaseModel):
    amount: int = 0

    @field_validator("amount")
    @classmethod
    def known(cls, amount: int) -> int:
        return {7: 7}[amount]


class Wait(BaseStep[Input, Output]):
    """Waits as it is told to, and returns what the event says."""

    def __init__(self, *waits: WaitFor) -> None:
        self.waits = waits

    async def execute(self, inp: Input, ctx: StepContext) -> Output | WaitFor:
        return self.waits[0]

    async def on_event(self, inp: Input, event: Event[Any], ctx: StepContext) -> Output | WaitFor:
        heard = int(ctx.idempotency_key.rpartition("/")[2])
        if heard < len(self.waits):
            return self.waits[heard]
        return Output(ref="late" if event.timed_out else str(event.payload))


class PickyWait(Wait):
    async def on_event(self, inp: Input, event: Event[Picky], ctx: StepContext) -> Output:
        return Output(ref=str(event.payload.amount))


def saga(*steps: BaseStep[Input, Output], **settings: Any) -> SagaDefinition:
    """Return a saga of these steps side by side, called `a`, `b` and so on."""
    builder = SagaBuilder(**settings)
    with builder.parallel():
        for name, step in zip("abcdefgh", steps, strict=False):
            builder.add_step(step=step, input_map=lambda ctx: Input(), step_id=name, compensation=None)
    return builder.build()


async def outputs(orchestrator: Any, saga_id: Any) -> dict[str, str]:
    """Return what the steps of a saga have returned, once it has completed."""
    result = await soon(orchestrator.result(saga_id))
    assert result.status is SagaStatus.COMPLETED, result.error
    return {name: output["ref"] for name, output in result.outputs.items()}


async def test_a_letter_that_somebody_holds_is_waited_for_and_not_passed_over(on_postgres: Site) -> None:
    """To pass over it was to say that nothing had come, and the saga waited for ever."""
    orchestrator = on_postgres.joins(saga(Wait(WaitFor("go"))))
    await orchestrator.signal("go", aggregation_id="order-1", payload=1)
    async with on_postgres.engine.begin() as holder:
        await holder.exec_driver_sql("SELECT id FROM trip_saga_inbox FOR UPDATE")
        starting = asyncio.create_task(orchestrator.start(**order()))
        blocked = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while not await on_postgres.value(blocked):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0)

    assert await outputs(orchestrator, await soon(starting)) == {"a": "1"}


async def test_waits_that_begin_side_by_side_leave_no_transaction_behind(database: Site) -> None:
    """One delivery answers them all; the others were cut off in the middle of theirs, and kept SQLite's write lock."""
    names = "abcdefgh"
    orchestrator = database.joins(saga(*(Wait(WaitFor(name)) for name in names)))
    for number in range(15):
        saga_id = await soon(orchestrator.start(**order(number)))
        for name in names:
            await soon(orchestrator.signal(name, saga_id=saga_id, payload=number))
        assert set((await outputs(orchestrator, saga_id)).values()) == {str(number)}


async def test_a_validator_that_stumbles_refuses_the_event(database: Site) -> None:
    """It wedged its saga, and everybody's due events."""
    orchestrator = database.joins(saga(PickyWait(WaitFor("go"))))
    await orchestrator.signal("go", aggregation_id="order-1", payload={"amount": 1})
    saga_id = await soon(orchestrator.start(**order()))
    assert await orchestrator.signal("go", saga_id=saga_id, payload={"amount": 2}) is SignalResult.REFUSED
    assert await orchestrator.signal("go", saga_id=saga_id, payload={"amount": 7}) is SignalResult.APPLIED
    assert await outputs(orchestrator, saga_id) == {"a": "7"}


async def test_an_event_that_could_not_be_read_again_is_refused_before_it_is_kept(database: Site) -> None:
    """A wrong time, or a wrong id: each stood in the way of every later delivery."""
    orchestrator = database.joins(saga(Wait(WaitFor("go"))))
    saga_id = await soon(orchestrator.start(**order()))
    yesterday: Any = "yesterday"
    nobody: Any = "order-17"
    with pytest.raises(SagaDefinitionError, match="occurred_at"):
        await orchestrator.signal("go", saga_id=saga_id, occurred_at=yesterday)
    async with database.sessions() as session:
        with pytest.raises(SagaStateError, match="saga_id"):
            await orchestrator.signal("go", saga_id=nobody, session=session)
    as_text: Any = saga_id.hex
    assert await orchestrator.signal("go", saga_id=as_text, payload=1) is SignalResult.APPLIED
    assert await outputs(orchestrator, saga_id) == {"a": "1"}


async def test_an_event_for_a_saga_in_quarantine_is_there_when_it_is_let_out(database: Site, world: World) -> None:
    """It was said to be applied, and was gone."""
    builder = SagaBuilder(max_recoveries=0)
    with builder.parallel():
        builder.add_step(step=Wait(WaitFor("go")), input_map=lambda ctx: Input(), step_id="a", compensation=None)
        builder.add_step(step=Deed(world, "ship"), input_map=lambda ctx: Input(), step_id="ship")
    definition = builder.build()
    dying, other = database.joins(definition), database.joins(definition)
    gate = world.gate("ship")
    starting = asyncio.create_task(dying.start(**order()))
    await gate.wait_reached()
    (saga_id,) = dying.engine.drivers
    await soon(_waits(dying, saga_id))
    await database.make_due(saga_id)
    await soon(other.run_due())
    assert (await other.get_snapshot(saga_id)).status is SagaStatus.STUCK

    sent = await soon(other.signal("go", saga_id=saga_id, payload=1))
    await soon(SagaAdmin(engine=other.engine).retry_step(saga_id))

    assert sent is SignalResult.BUFFERED
    assert (await outputs(other, saga_id))["a"] == "1"
    gate.open()
    await soon(starting)


async def _waits(orchestrator: Any, saga_id: Any) -> None:
    """Return when the saga's first step waits, and has been told that nothing had come before."""
    async for _ in orchestrator.watch(saga_id):
        if (await SagaAdmin(engine=orchestrator.engine).get_saga(saga_id)).steps.get("a") == "Waiting":
            return


async def test_a_question_is_looked_up_only_when_its_correlation_leads_here(
    database: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another's delivery answered it before it was routed; then its own process died, and no event found it."""
    definition = saga(Wait(WaitFor("go", correlation_id="c1")))
    dying, other = database.joins(definition), database.joins(definition)
    with monkeypatch.context() as patch:
        patch.setattr(dying.engine.store.inbox, "route", _cut_off)
        starting = asyncio.create_task(dying.start(**order()))
        while not dying.engine.drivers:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        (saga_id,) = dying.engine.drivers
        await soon(other.signal("something else", saga_id=saga_id))
        await soon(starting)
    await database.make_due(saga_id)
    await soon(other.run_due())

    assert await soon(other.signal("go", correlation_id="c1", payload=1)) is SignalResult.APPLIED
    assert await outputs(other, saga_id) == {"a": "1"}


async def _cut_off(*_: Any) -> None:
    raise RuntimeError("this process has died")


async def test_an_event_for_a_correlation_is_turned_away_by_no_saga_for_all(database: Site) -> None:
    """An earlier saga of the correlation, over or with another wait, said that it was stale, or took it."""
    orchestrator = database.joins(saga(Wait(WaitFor("go", correlation_id="c1"), WaitFor("go"))))
    first = await soon(orchestrator.start(**order(1)))
    await orchestrator.signal("go", correlation_id="c1", payload=1)
    await soon(_waits(orchestrator, first))
    second = await soon(orchestrator.start(**order(2)))

    assert await soon(orchestrator.signal("go", correlation_id="c1", payload=2)) is SignalResult.APPLIED
    await soon(_waits(orchestrator, second))
    assert await soon(orchestrator.signal("go", saga_id=second, payload=3)) is SignalResult.APPLIED
    assert await outputs(orchestrator, second) == {"a": "3"}
    await orchestrator.signal("go", saga_id=first, payload=4)
    assert await outputs(orchestrator, first) == {"a": "4"}
    assert await soon(orchestrator.signal("go", correlation_id="c1", payload=5)) is SignalResult.BUFFERED
    third = await soon(orchestrator.start(**order(3)))
    await orchestrator.signal("go", saga_id=third, payload=6)
    assert await outputs(orchestrator, third) == {"a": "6"}


async def test_an_event_sent_again_starts_no_second_saga(database: Site, world: World) -> None:
    """The first one was over without having asked for it."""
    orchestrator = database.joins(_deed(world))
    gate = world.gate("ship")
    starting = asyncio.create_task(orchestrator.start(**order()))
    await gate.wait_reached()
    start: Any = order()
    told = await soon(orchestrator.start_or_signal("go", start=start, event_id="e1"))
    gate.open()
    first = await soon(starting)
    assert told == (first, SignalResult.BUFFERED)

    assert await soon(orchestrator.start_or_signal("go", start=start, event_id="e1")) == (first, "DUPLICATE")
    assert await database.value("SELECT count(*) FROM trip_saga") == 1


def _deed(world: World) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=Deed(world, "ship"), input_map=lambda ctx: Input(), step_id="ship")
    return builder.build()


async def test_a_hundred_events_of_one_type_do_not_hide_one_of_another(database: Site) -> None:
    """As many as are looked through at once were all of the one type, and the other wait was said to have nothing."""
    orchestrator = database.joins(saga(Wait(WaitFor("x")), Wait(WaitFor("y"))))
    for number in range(101):
        await orchestrator.signal("x", aggregation_id="order-1", payload=number)
    await orchestrator.signal("y", aggregation_id="order-1", payload="why")

    saga_id = await soon(orchestrator.start(**order()))

    assert await outputs(orchestrator, saga_id) == {"a": "0", "b": "why"}


async def test_an_event_between_the_end_of_a_wait_and_the_next_one_is_kept(database: Site) -> None:
    """A step that resumes when its time is up may wait again; the event came a moment too early to be taken."""
    clock = ManualClock()
    again = WaitFor("go", timeout=HOUR, on_timeout="resume")
    orchestrator = database.joins(saga(Wait(again, again)), clock=clock)
    saga_id = await soon(orchestrator.start(**order()))
    clock.advance(HOUR)

    assert await orchestrator.signal("go", saga_id=saga_id, payload=1) is SignalResult.BUFFERED
    await soon(orchestrator.run_due())

    assert await outputs(orchestrator, saga_id) == {"a": "1"}


class Flaky:
    """A codec whose key service is away for a moment."""

    def __init__(self) -> None:
        self.is_away = False

    def encode(self, text: str, /) -> str:
        return text[::-1]

    def decode(self, text: str, /) -> str:
        if self.is_away:
            raise ConnectionError("the key service is away")
        return text[::-1]


async def test_an_event_that_cannot_be_decoded_for_a_moment_is_not_refused(database: Site) -> None:
    """That says nothing of the event: it is kept, and delivered later."""
    codec, clock = Flaky(), ManualClock()
    orchestrator = database.joins(saga(PickyWait(WaitFor("go"))), payload_codec=codec, clock=clock)
    saga_id = await soon(orchestrator.start(**order()))
    codec.is_away = True
    with pytest.raises(PayloadError, match="raised ConnectionError"):
        await orchestrator.signal("go", saga_id=saga_id, payload={"amount": 7}, event_id="e1")
    clock.advance(timedelta(seconds=5))
    await soon(orchestrator.run_due())
    codec.is_away = False
    clock.advance(timedelta(seconds=5))
    await soon(orchestrator.run_due())

    assert await outputs(orchestrator, saga_id) == {"a": "7"}
