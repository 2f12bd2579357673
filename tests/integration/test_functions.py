"""Sagas whose steps are plain functions, and constants, at work in a database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, RootModel

from saga_orchestrator import (
    Event,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStatus,
    SignalResult,
    StepContext,
    WaitFor,
    step,
)
from saga_orchestrator.testing import ManualClock
from tests.support.sagas import NAME, Site, TripSaga, soon


class Shop:
    """A saga of functions, and what they did. `broken`: the last step fails."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.asked = 0
        self.broken = False

    def definition(self, fees: dict[str, int], **settings: bool) -> SagaDefinition:
        @step
        def reserve(sku: str, warehouse: str) -> str:
            self.done.append(f"reserve {sku} in {warehouse}")
            return f"r-{sku}"

        @reserve.compensate
        def release(sku: str, out: str) -> None:
            self.done.append(f"release {sku} {out}")

        @step
        async def charge(reservation: str, cents: int) -> int:
            self.done.append(f"charge {reservation} {cents}")
            if self.broken:
                raise PermanentError("declined")
            return cents

        builder = SagaBuilder(**settings)  # type: ignore[arg-type]
        fee = builder.add_constant(fees, step_id="fees")
        held = builder.add_step(
            step=reserve.bind(warehouse="north"), input_map=lambda ctx: ctx.initial_data, step_id="reserve", after=[]
        )
        builder.add_step(step=charge, input_map=self.bill, depends_on=[held, fee], step_id="charge")
        return builder.build()

    @staticmethod
    def bill(held: RootModel[str], fees: RootModel[Any]) -> dict[str, object]:
        return {"reservation": held.root, "cents": fees.root["card"]}


async def test_m3_m4_f5_functions_and_constants_make_a_saga(database: Site) -> None:
    """Synchronous and not, with bound arguments; each output reaches the next step as what it was."""
    shop = Shop()
    orchestrator = database.joins(shop.definition({"card": 3}))

    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"sku": "cup"}, aggregation_id="a")
    result = await soon(orchestrator.result(saga_id))

    assert result.status is SagaStatus.COMPLETED
    assert shop.done == ["reserve cup in north", "charge r-cup 3"]
    assert result.outputs == {"fees": {"card": 3}, "reserve": "r-cup", "charge": 3}


async def test_f1_a_function_is_undone_by_its_function(database: Site) -> None:
    """With the recorded arguments and output."""
    shop = Shop()
    shop.broken = True
    orchestrator = database.joins(shop.definition({"card": 3}))

    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"sku": "cup"}, aggregation_id="a")

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPENSATED
    assert shop.done[-1] == "release cup r-cup"


async def test_f5_a_saga_keeps_the_constant_of_its_day(database: Site) -> None:
    """Newer code, with another constant, goes on with what was recorded."""
    shop = Shop()
    shop.broken = True
    builder_of = {"compensate_on_failure": False}
    orchestrator = database.joins(shop.definition({"card": 3}, **builder_of))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={"sku": "cup"}, aggregation_id="a")
    await orchestrator.aclose()
    shop.broken = False
    newer = database.joins(shop.definition({"card": 5}, **builder_of))

    await SagaAdmin(engine=newer.engine).retry_step(saga_id, actor="ann", reason="the card works again")

    assert (await soon(newer.result(saga_id))).outputs["charge"] == 3


class Payment(BaseModel):
    cents: int


class Bank:
    """A saga whose second step, a function, asks to be paid; its undo asks for the money to be taken back."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken = False

    def definition(self, wait: WaitFor, *, is_async: bool) -> SagaDefinition:
        @step
        def pay(order: str, note: str = "plain") -> str | WaitFor:
            self.done.append(f"ask for {order}")
            return wait

        @pay.compensate
        async def refund(order: str, out: str | None) -> WaitFor | None:
            self.done.append(f"refund {order} {out}")
            return WaitFor("refunded")

        def settle(order: str, event: Event[Payment], ctx: StepContext) -> str | WaitFor | None:
            self.done.append(f"{event.type} {ctx.phase} {order}")
            if ctx.phase == "compensate" or event.timed_out:
                return None if ctx.phase == "compensate" else "never"
            return f"paid {event.payload.cents}" if event.payload.cents else WaitFor("settled")

        async def settle_async(order: str, event: Event[Payment], ctx: StepContext) -> str | WaitFor | None:
            return settle(order, event, ctx)

        @step
        async def ship(paid: str) -> str:
            if self.broken:
                raise PermanentError("no lorry")
            return f"shipped, {paid}"

        pay.on_event(settle_async if is_async else settle)
        builder = SagaBuilder()
        asked = builder.add_step(step=pay, input_map=lambda ctx: ctx.initial_data, step_id="pay")
        builder.add_step(step=ship, input_map=lambda out: {"paid": out.root}, depends_on=asked, step_id="ship")
        return builder.build()


async def sent(orchestrator: SagaOrchestrator[TripSaga], kind: str, cents: Any) -> SignalResult:
    return await soon(orchestrator.signal(kind, aggregation_id="a", payload={"cents": cents}))


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_function_asks_and_goes_on_when_the_answer_is_there(database: Site, is_async: bool) -> None:
    """A payload that does not fit is refused, and it waits on; it may ask again."""
    bank = Bank()
    orchestrator = database.joins(bank.definition(WaitFor("settled"), is_async=is_async))
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={"order": "o"}, aggregation_id="a"))

    assert await sent(orchestrator, "settled", "many") is SignalResult.REFUSED
    assert await sent(orchestrator, "settled", 0) is SignalResult.APPLIED
    await sent(orchestrator, "settled", 7)

    result = await soon(orchestrator.result(saga_id))
    assert result.outputs == {"pay": "paid 7", "ship": "shipped, paid 7"}
    assert bank.done == ["ask for o", "settled execute o", "settled execute o"]


async def test_an_undo_that_is_a_function_asks_as_well(database: Site) -> None:
    """Both go on in one function, that is told which of them has asked."""
    bank = Bank()
    bank.broken = True
    orchestrator = database.joins(bank.definition(WaitFor("settled"), is_async=False))
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={"order": "o"}, aggregation_id="a"))
    await sent(orchestrator, "settled", 7)
    await sent(orchestrator, "refunded", 7)

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPENSATED
    assert bank.done[2:] == ["refund o paid 7", "refunded compensate o"]


async def test_another_process_goes_on_with_a_function_that_has_asked(database: Site) -> None:
    """The function is found again by its step; what it was given is recorded."""
    first, second = Bank(), Bank()
    before = database.joins(first.definition(WaitFor("settled"), is_async=True))
    saga_id = await soon(before.start(saga_name=NAME, initial_data={"order": "o"}, aggregation_id="a"))
    await before.aclose()
    after = database.joins(second.definition(WaitFor("settled"), is_async=True))

    await sent(after, "settled", 7)

    assert (await soon(after.result(saga_id))).outputs["pay"] == "paid 7"
    assert (first.done, second.done) == (["ask for o"], ["settled execute o"])


async def test_a_function_is_told_that_nothing_came(database: Site) -> None:
    """With `on_timeout="resume"`, its event says so, and has no payload."""
    bank, clock = Bank(), ManualClock()
    wait = WaitFor("settled", timeout=timedelta(hours=1), on_timeout="resume")
    orchestrator = database.joins(bank.definition(wait, is_async=False), clock=clock)
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={"order": "o"}, aggregation_id="a"))

    clock.advance(timedelta(hours=1))
    await soon(orchestrator.run_due())

    assert (await soon(orchestrator.result(saga_id))).outputs["pay"] == "never"
