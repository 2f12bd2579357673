"""Waits for events: durable, each ended once, by the event that it is for or by time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from saga_orchestrator import (
    BaseStep,
    Event,
    FixedRetry,
    PayloadError,
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
    SagaOrchestrator,
    SagaSnapshot,
    SagaStateError,
    SagaStatus,
    SignalResult,
    StepContext,
    WaitFor,
)
from saga_orchestrator.testing import ManualClock
from tests.support.sagas import NAME, Deed, Gate, Input, Output, Site, TripSaga, World, soon

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
SETTLED = "payment.settled"
HOUR = timedelta(hours=1)


class Payment(BaseModel):
    amount: int
    at: datetime | None = None


class Pay(BaseStep[Input, Output]):
    """Asks for a payment, and goes on when it is settled; its undo asks for a refund in the same way."""

    def __init__(self, world: World, wait: WaitFor | None = None, undo_wait: WaitFor | None = None) -> None:
        self.world, self.wait, self.undo_wait = world, wait or WaitFor(SETTLED), undo_wait

    async def execute(self, inp: Input, ctx: StepContext) -> Output | WaitFor:
        await self.world.call("pay", ctx)
        return self.wait

    async def on_event(self, inp: Input, event: Event[Payment], ctx: StepContext) -> Output | WaitFor | None:
        answer = await self.world.call("refunded" if ctx.phase == "compensate" else "paid", ctx)
        if ctx.phase == "compensate":
            return None
        return answer or Output(ref="late" if event.timed_out else f"paid {event.payload.amount}")

    async def compensate(self, inp: Input, out: Output | None, ctx: StepContext) -> WaitFor | None:
        await self.world.call("undo pay", ctx)
        return self.undo_wait


def order(
    world: World, wait: WaitFor | None = None, *, undo_wait: WaitFor | None = None, **said: Any
) -> SagaDefinition:
    """Return a saga that reserves, is paid, and ships."""
    builder = SagaBuilder()
    builder.add_step(step=Deed(world, "reserve"), input_map=lambda ctx: Input(), step_id="reserve")
    pay = Pay(world, wait, undo_wait)
    builder.add_step(step=pay, input_map=lambda ctx: Input(number=7), step_id="pay", **said)
    builder.add_step(step=Deed(world, "ship"), input_map=lambda ctx: Input(), step_id="ship")
    return builder.build()


async def waiting(orchestrator: SagaOrchestrator[TripSaga], **start: Any) -> SagaSnapshot:
    """Return the snapshot of a saga that waits for its payment."""
    saga_id = await soon(orchestrator.start(**{**ORDER, **start}))
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.awaiting) == (SagaStatus.SUSPENDED, f"event:{SETTLED}")
    return snapshot


async def ref_of(orchestrator: SagaOrchestrator[TripSaga], saga_id: Any) -> Any:
    """Return what the saga's payment has come to, once the saga is over."""
    result = await soon(orchestrator.result(saga_id))
    assert result.status is SagaStatus.COMPLETED, result.error
    return result.outputs["pay"]["ref"]


async def test_q3_a_step_waits_and_goes_on_with_the_event(database: Site, world: World) -> None:
    """The wait holds nothing, and the event reaches the step in whatever process it is sent."""
    first, second = database.joins(order(world)), database.joins(order(world))
    snapshot = await waiting(first)
    assert [(wait.step_id, wait.event_types) for wait in snapshot.waits] == [("pay", (SETTLED,))]

    sent = await soon(second.signal(SETTLED, saga_id=snapshot.id, payload={"amount": 5}))

    assert sent is SignalResult.APPLIED
    assert await ref_of(first, snapshot.id) == "paid 5"
    assert world.calls == ["reserve", "pay", "paid", "ship"]


async def test_n13_an_event_that_comes_before_its_wait_is_there_when_the_step_asks(
    database: Site, world: World
) -> None:
    """It was kept while an earlier step was at work."""
    orchestrator = database.joins(order(world))
    gate = world.gate("reserve")
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()

    sent = await soon(orchestrator.signal(SETTLED, aggregation_id="order-1", payload={"amount": 6}))
    gate.open()

    assert sent is SignalResult.BUFFERED
    assert await ref_of(orchestrator, await soon(running)) == "paid 6"


async def test_n13_an_event_that_comes_before_its_saga_is_there_when_the_step_asks(
    database: Site, world: World
) -> None:
    """It was kept for whatever saga the aggregate would have."""
    orchestrator = database.joins(order(world))

    sent = await soon(orchestrator.signal(SETTLED, aggregation_id="order-1", payload={"amount": 8}))

    assert sent is SignalResult.BUFFERED
    assert await ref_of(orchestrator, await soon(orchestrator.start(**ORDER))) == "paid 8"


@pytest.mark.parametrize("early", [True, False])
async def test_q6_an_event_finds_its_wait_by_correlation(database: Site, world: World, early: bool) -> None:
    """Its sender need not know of any saga; one of another correlation is not for this wait."""
    orchestrator = database.joins(order(world, WaitFor(SETTLED, correlation_id="invoice-7")))
    if early:
        assert await orchestrator.signal(SETTLED, correlation_id="invoice-7", payload={"amount": 1}) == "BUFFERED"
        saga_id = await soon(orchestrator.start(**ORDER))
    else:
        saga_id = (await waiting(orchestrator)).id
        assert await orchestrator.signal(SETTLED, correlation_id="invoice-8", payload={"amount": 2}) == "BUFFERED"
        assert await orchestrator.signal(SETTLED, saga_id=saga_id, payload={"amount": 2}) == "BUFFERED"
        assert await orchestrator.signal(SETTLED, correlation_id="invoice-7", payload={"amount": 1}) == "APPLIED"

    assert await ref_of(orchestrator, saga_id) == "paid 1"


async def test_q5_an_event_counts_once(database: Site, world: World) -> None:
    """The same id again, in whatever process and however often, is a duplicate; also after the saga is over."""
    first, second = database.joins(order(world)), database.joins(order(world))
    snapshot = await waiting(first)
    event: dict[str, Any] = {"saga_id": snapshot.id, "payload": {"amount": 5}, "event_id": "evt-1"}

    answers = await soon(asyncio.gather(*(each.signal(SETTLED, **event) for each in (first, second, first))))

    assert sorted(answers) == ["APPLIED", "DUPLICATE", "DUPLICATE"]
    assert await ref_of(first, snapshot.id) == "paid 5"
    assert await second.signal(SETTLED, **event) is SignalResult.DUPLICATE
    assert world.calls.count("paid") == 1


async def test_an_event_whose_payload_does_not_fit_is_refused_and_the_wait_goes_on(
    database: Site, world: World
) -> None:
    """It is kept, with the reason; the next one that fits ends the wait."""
    orchestrator = database.joins(order(world))
    snapshot = await waiting(orchestrator)

    refused = await soon(orchestrator.signal(SETTLED, saga_id=snapshot.id, payload={"amount": "much"}))

    assert refused is SignalResult.REFUSED
    assert (await orchestrator.get_snapshot(snapshot.id)).waits == snapshot.waits
    assert "amount" in await database.value("SELECT reason FROM trip_saga_inbox WHERE status = 'REFUSED'")
    assert await orchestrator.signal(SETTLED, saga_id=snapshot.id, payload={"amount": 3}) is SignalResult.APPLIED
    assert await ref_of(orchestrator, snapshot.id) == "paid 3"


async def test_an_event_for_a_saga_that_is_over_is_stale(database: Site, world: World) -> None:
    """And one for a saga that never was is unmatched."""
    orchestrator = database.joins(order(world))
    snapshot = await waiting(orchestrator)
    await orchestrator.signal(SETTLED, saga_id=snapshot.id, payload={"amount": 3})
    await soon(orchestrator.result(snapshot.id))

    assert await orchestrator.signal(SETTLED, saga_id=snapshot.id, payload={}) is SignalResult.STALE
    assert await orchestrator.signal(SETTLED, saga_id=uuid4(), payload={}) is SignalResult.UNMATCHED


async def test_a_wait_that_runs_out_fails_its_step(database: Site, world: World) -> None:
    """The saga is undone, the step that asked as well; the event that comes after it is stale."""
    clock = ManualClock()
    orchestrator = database.joins(order(world, WaitFor(SETTLED, timeout=HOUR)), clock=clock)
    snapshot = await waiting(orchestrator)
    assert snapshot.deadline_at == clock.now() + HOUR

    clock.advance(HOUR)
    late = await orchestrator.signal(SETTLED, saga_id=snapshot.id, payload={"amount": 3})
    assert await soon(orchestrator.run_due()) == 1

    assert late is SignalResult.EXPIRED
    after = await orchestrator.get_snapshot(snapshot.id)
    assert (after.status, after.last_error) == (SagaStatus.COMPENSATED, f"no {SETTLED} in time")
    assert world.calls == ["reserve", "pay", "undo pay", "undo reserve"]
    assert await orchestrator.signal(SETTLED, saga_id=snapshot.id, payload={"amount": 3}) is SignalResult.STALE


async def test_a_wait_that_resumes_goes_on_without_an_event(database: Site, world: World) -> None:
    """`on_event` is told that the time is up, and may wait again."""
    clock = ManualClock()
    wait = WaitFor(SETTLED, timeout=HOUR, on_timeout="resume")
    orchestrator = database.joins(order(world, wait), clock=clock)
    snapshot = await waiting(orchestrator)

    async def again() -> WaitFor:
        return wait

    world.plan("paid", again)
    for _ in range(2):
        clock.advance(HOUR)
        assert await soon(orchestrator.run_due()) == 1

    assert await ref_of(orchestrator, snapshot.id) == "late"
    assert [ctx.idempotency_key.rpartition("/")[2] for ctx in world.contexts[1:4]] == ["execute", "1", "2"]


async def test_event_and_timeout_have_one_winner(database: Site, world: World) -> None:
    """Sent at the very moment when the time is up, the event either ends the wait or comes too late."""
    clock = ManualClock()
    wait = WaitFor(SETTLED, timeout=HOUR, on_timeout="resume")
    first = database.joins(order(world, wait), clock=clock)
    second = database.joins(order(world, wait), clock=clock)
    snapshot = await waiting(first)
    clock.advance(HOUR - timedelta(microseconds=1))
    racing = asyncio.gather(second.signal(SETTLED, saga_id=snapshot.id, payload={"amount": 1}), first.run_due())
    clock.advance(timedelta(microseconds=1))

    sent, _ = await soon(racing)
    await soon(first.run_due())

    assert await ref_of(first, snapshot.id) == ("paid 1" if sent is SignalResult.APPLIED else "late")
    assert world.calls.count("paid") == 1


async def test_p19_each_wait_has_a_token_of_its_own(database: Site, world: World) -> None:
    """`notify` ends the wait whose token it brings, and no other; used up, the token is stale."""
    builder = SagaBuilder()
    with builder.parallel():
        for name in ("left", "right"):
            builder.add_step(step=Pay(world), input_map=lambda ctx: Input(), step_id=name)
    orchestrator = database.joins(builder.build())
    saga_id = await soon(orchestrator.start(**ORDER))
    waits = {wait.step_id: wait for wait in (await orchestrator.get_snapshot(saga_id)).waits}
    assert len({wait.token for wait in waits.values()}) == 2

    right = {"saga_id": saga_id, "token": waits["right"].token, "event": {"amount": 2}}
    assert await soon(orchestrator.notify(**right)) is True
    assert await soon(orchestrator.notify(**right)) is False
    left = await orchestrator.get_snapshot(saga_id)
    assert [wait.step_id for wait in left.waits] == ["left"]
    assert left.step_execution_token == waits["left"].token
    assert await soon(orchestrator.notify(saga_id=saga_id, token=waits["left"].token, event={"amount": 1})) is True

    outputs = (await soon(orchestrator.result(saga_id))).outputs
    assert outputs == {"left": {"ref": "paid 1"}, "right": {"ref": "paid 2"}}


async def test_a_notification_that_does_not_fit_raises_and_the_wait_goes_on(database: Site, world: World) -> None:
    """The caller is there to be told; one of a type that the step does not wait for is answered False."""
    orchestrator = database.joins(order(world))
    snapshot = await waiting(orchestrator)
    token: Any = snapshot.step_execution_token

    with pytest.raises(PayloadError, match="amount"):
        await orchestrator.notify(saga_id=snapshot.id, token=token, event={})
    other = Event(type="payment.refused", payload={"amount": 1})
    assert await orchestrator.notify(saga_id=snapshot.id, token=token, event=other) is False
    assert (await orchestrator.get_snapshot(snapshot.id)).waits == snapshot.waits


async def test_q3_a_compensation_waits_too(database: Site, world: World) -> None:
    """The saga is COMPENSATING, and waits for an event; then it goes on being undone."""
    orchestrator = database.joins(order(world, undo_wait=WaitFor("refund.done", timeout=HOUR)))
    world.plan("ship", ValueError("no lorry"))
    snapshot = await waiting(orchestrator)
    await orchestrator.signal(SETTLED, saga_id=snapshot.id, payload={"amount": 3})
    await soon(until_status(orchestrator, snapshot.id, awaiting="event:refund.done"))
    assert (await orchestrator.get_snapshot(snapshot.id)).status is SagaStatus.COMPENSATING

    sent = await soon(orchestrator.signal("refund.done", saga_id=snapshot.id, payload={"amount": 3}))

    assert sent is SignalResult.APPLIED
    assert (await soon(orchestrator.result(snapshot.id))).status is SagaStatus.COMPENSATED
    assert world.calls[-3:] == ["undo pay", "refunded", "undo reserve"]


async def until_status(orchestrator: SagaOrchestrator[TripSaga], saga_id: Any, **wanted: Any) -> None:
    async for snapshot in orchestrator.watch(saga_id):
        if all(getattr(snapshot, name) == value for name, value in wanted.items()):
            return


async def test_n2_an_event_in_a_callers_transaction_exists_when_that_is_committed(database: Site, world: World) -> None:
    """Rolled back, it never was; committed, it is delivered at once."""
    orchestrator = database.joins(order(world))
    snapshot = await waiting(orchestrator)
    event: dict[str, Any] = {"saga_id": snapshot.id, "payload": {"amount": 4}, "event_id": "evt-1"}
    async with database.sessions() as session:
        assert await orchestrator.signal(SETTLED, session=session, **event) is SignalResult.BUFFERED
        await session.rollback()
    assert await database.value("SELECT count(*) FROM trip_saga_inbox") == 0

    async with database.sessions() as session, session.begin():
        assert await orchestrator.signal(SETTLED, session=session, **event) is SignalResult.BUFFERED

    assert await ref_of(orchestrator, snapshot.id) == "paid 4"


async def test_an_event_whose_sender_dies_before_it_is_delivered_is_delivered_by_others(
    database: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was posted, and that is enough: whoever calls `run_due` a little later delivers it."""
    clock = ManualClock()
    dying, other = database.joins(order(world), clock=clock), database.joins(order(world), clock=clock)
    snapshot = await waiting(other)
    with monkeypatch.context() as patch:
        patch.setattr(dying.engine.store.inbox, "addressees", _cut_off)
        with pytest.raises(ConnectionError):
            await dying.signal(SETTLED, aggregation_id="order-1", payload={"amount": 9}, event_id="evt-1")

    await soon(other.run_due())
    assert (await other.get_snapshot(snapshot.id)).status is SagaStatus.SUSPENDED
    clock.advance(timedelta(seconds=5))
    await soon(other.run_due())

    assert await ref_of(other, snapshot.id) == "paid 9"
    assert await other.signal(SETTLED, aggregation_id="order-1", payload={}, event_id="evt-1") == "DUPLICATE"


async def _cut_off(address: str) -> list[Any]:
    raise ConnectionError("the sender has died")


async def test_a_process_that_dies_when_its_step_has_asked_loses_no_event(database: Site, world: World) -> None:
    """The event had come before; the next owner of the saga looks for it again."""
    dying, other = database.joins(order(world)), database.joins(order(world))
    await other.signal(SETTLED, aggregation_id="order-1", payload={"amount": 2})
    gate = Gate()
    object.__setattr__(dying.engine._tools, "collect", lambda _: gate())
    starting = asyncio.create_task(dying.start(**ORDER))
    await gate.wait_reached()
    saga_id = next(iter(dying.engine.drivers))
    await database.make_due(saga_id)

    await soon(other.run_due())

    assert await ref_of(other, saga_id) == "paid 2"
    gate.open()
    assert await soon(starting) == saga_id


async def test_start_or_signal_starts_at_most_one_saga(database: Site, world: World) -> None:
    """The first event starts the saga and is taken by it; later ones, and repeated ones, start none."""
    orchestrator = database.joins(order(world))
    start: Any = ORDER
    first, taken = await soon(
        orchestrator.start_or_signal(SETTLED, start=start, payload={"amount": 1}, event_id="evt-1")
    )
    assert await ref_of(orchestrator, first) == "paid 1"
    again, repeated = await soon(
        orchestrator.start_or_signal(SETTLED, start=start, payload={"amount": 1}, event_id="evt-1")
    )

    assert (taken, repeated, again) == (SignalResult.APPLIED, SignalResult.DUPLICATE, first)
    other: Any = {**ORDER, "aggregation_id": "order-2"}
    waits = (await waiting(orchestrator, aggregation_id="order-2")).id
    told = await soon(orchestrator.start_or_signal(SETTLED, start=other, payload={"amount": 2}))
    assert told == (waits, SignalResult.APPLIED)


async def test_events_that_nobody_claims_are_forgotten(database: Site, world: World) -> None:
    """The inbox does not grow for ever."""
    clock = ManualClock()
    orchestrator = database.joins(order(world), clock=clock, event_retention=timedelta(days=2))
    await orchestrator.signal(SETTLED, aggregation_id="nobody", payload={})
    await orchestrator.run_due()
    clock.advance(timedelta(days=1))
    await orchestrator.run_due()
    assert await database.value("SELECT count(*) FROM trip_saga_inbox") == 1

    clock.advance(timedelta(days=1, minutes=1))
    await orchestrator.run_due()

    assert await database.value("SELECT count(*) FROM trip_saga_inbox") == 0


async def test_an_event_for_a_saga_that_this_process_does_not_know_is_left_to_others(
    database: Site, world: World
) -> None:
    """It is kept, and delivered by a process that knows the saga."""
    clock = ManualClock()
    knows, other = database.joins(order(world), clock=clock), database.joins(None, clock=clock)
    snapshot = await waiting(knows)

    assert await other.signal(SETTLED, saga_id=snapshot.id, payload={"amount": 5}) is SignalResult.BUFFERED
    clock.advance(timedelta(seconds=5))
    await soon(other.run_due())
    await soon(knows.run_due())

    assert await ref_of(knows, snapshot.id) == "paid 5"


async def test_what_a_step_raises_when_the_event_has_come_is_tried_again_with_it(database: Site, world: World) -> None:
    """The step is not asked to ask again, and the event is not lost."""
    orchestrator = database.joins(order(world, retry_policy=FixedRetry(max_attempts=2, delay=timedelta(0))))
    world.plan("paid", ValueError("busy"))
    snapshot = await waiting(orchestrator)

    await orchestrator.signal(SETTLED, saga_id=snapshot.id, payload={"amount": 5})

    assert await ref_of(orchestrator, snapshot.id) == "paid 5"
    assert world.calls == ["reserve", "pay", "paid", "paid", "ship"]


async def test_an_operator_may_give_the_output_of_a_step_that_waits(database: Site, world: World) -> None:
    """`skip_step` ends the wait: what it waited for was found out in another way."""
    from saga_orchestrator import SagaAdmin

    orchestrator = database.joins(order(world))
    snapshot = await waiting(orchestrator)

    await soon(SagaAdmin(engine=orchestrator.engine).skip_step(snapshot.id, mock_output={"ref": "by hand"}))

    assert await ref_of(orchestrator, snapshot.id) == "by hand"


BAD_ADDRESSES: dict[str, dict[str, Any]] = {
    "nobody": {},
    "two": {"saga_id": uuid4(), "aggregation_id": "order-1"},
    "an empty aggregate": {"aggregation_id": ""},
}


@pytest.mark.parametrize("said", BAD_ADDRESSES.values(), ids=BAD_ADDRESSES)
async def test_an_event_is_for_somebody(on_sqlite: Site, world: World, said: dict[str, Any]) -> None:
    """Otherwise it is refused, and nothing is written."""
    orchestrator = on_sqlite.joins(order(world))
    with pytest.raises(SagaStateError):
        await orchestrator.signal(SETTLED, **said)
    assert await on_sqlite.value("SELECT count(*) FROM trip_saga_inbox") == 0


BAD_EVENTS: dict[str, Callable[[SagaOrchestrator[TripSaga]], Any]] = {
    "no type": lambda it: it.signal("", aggregation_id="a"),
    "a NUL in its id": lambda it: it.signal("t", aggregation_id="a", event_id="\x00"),
    "a long correlation": lambda it: it.signal("t", correlation_id="c" * 256),
    "a payload that cannot be stored": lambda it: it.signal("t", aggregation_id="a", payload=object()),
}


@pytest.mark.parametrize("send", BAD_EVENTS.values(), ids=BAD_EVENTS)
async def test_an_event_that_cannot_be_kept_is_refused(on_sqlite: Site, world: World, send: Any) -> None:
    """Before anything is written."""
    orchestrator = on_sqlite.joins(order(world))
    with pytest.raises((SagaDefinitionError, PayloadError)):
        await send(orchestrator)
    assert await on_sqlite.value("SELECT count(*) FROM trip_saga_inbox") == 0


async def test_a_saga_whose_deadline_passes_is_taken_back(database: Site, world: World) -> None:
    """Whatever it waits for then; nothing but time is needed, and any process."""
    clock = ManualClock()
    builder = SagaBuilder(deadline=2 * HOUR)
    builder.add_step(step=Deed(world, "reserve"), input_map=lambda ctx: Input(), step_id="reserve")
    builder.add_event(SETTLED, step_id="pay")
    definition = builder.build()
    first, second = database.joins(definition, clock=clock), database.joins(definition, clock=clock)
    snapshot = await waiting(first)
    assert snapshot.deadline_at == clock.now() + 2 * HOUR

    clock.advance(2 * HOUR)
    assert await soon(second.run_due()) == 1

    after = await first.get_snapshot(snapshot.id)
    assert (after.status, after.last_error) == (SagaStatus.COMPENSATED, "the saga's deadline has passed")
    assert world.calls == ["reserve", "undo reserve"]
