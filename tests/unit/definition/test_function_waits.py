"""Functions that ask, and the functions in which they go on: what they are given, and which are refused."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, RootModel

from saga_orchestrator import (
    Event,
    FunctionStep,
    OutcomeUnknown,
    SagaBuilder,
    SagaDefinitionError,
    StepContext,
    TypeValidationError,
    WaitFor,
    step,
)

CTX = StepContext(
    saga_id=uuid4(), saga_name="s", step_id="a", aggregation_id="o", trace_id="t", attempt=1, idempotency_key="s/a/do"
)
UNDOING = replace(CTX, phase="compensate")


class Settled(BaseModel):
    payment_id: str


class Paid(BaseModel):
    payment_id: str
    cents: int


class Tags(RootModel[list[str]]):
    pass


SETTLED = Event[Any](type="settled", payload=Settled(payment_id="p-1"))
ASKED = WaitFor("settled")


def asking() -> FunctionStep[Any]:
    """Return a step that waits, and has nothing to go on in."""

    @step
    async def pay(cents: int, currency: str = "EUR") -> Paid | WaitFor:
        return ASKED

    return pay


async def hears(function: FunctionStep[Any], event: Event[Any] = SETTLED, ctx: StepContext = CTX) -> Any:
    made = function.to_step()
    return await made.on_event(made.input_model(cents=7), event, ctx)


async def test_a_function_asks_and_goes_on_in_another() -> None:
    """Its output is what is left of its annotation; the wait itself is handed on."""
    pay = asking()

    @pay.on_event
    async def settle(cents: int, event: Event[Settled], ctx: StepContext) -> Paid:
        return Paid(payment_id=f"{event.payload.payment_id} of {ctx.step_id}", cents=cents)

    made = pay.to_step()

    assert pay.output_model is made.output_model is Paid
    assert await made.execute(made.input_model(cents=7), CTX) is ASKED
    assert await hears(pay) == Paid(payment_id="p-1 of a", cents=7)


async def test_a_plain_function_goes_on_in_a_thread() -> None:
    """As the step's own would; what it returns is wrapped as the step's own is."""

    @step
    def ask(cents: int) -> WaitFor | int:
        return ASKED

    @ask.on_event
    def where() -> int:
        return threading.get_ident()

    assert issubclass(ask.output_model, RootModel)
    assert (await hears(ask)).root != threading.get_ident()


async def test_it_may_wait_again() -> None:
    """For as many events as it takes."""
    pay = asking()

    @pay.on_event
    def settle(event: Event) -> Paid | WaitFor:  # type: ignore[type-arg]
        return WaitFor("settled", correlation_id=event.payload.payment_id)

    assert (await hears(pay)).correlation_id == "p-1"


async def test_it_hears_for_the_undo_as_well() -> None:
    """Then it has no output to return."""
    pay = asking()
    undone = WaitFor("refunded")

    @pay.compensate
    async def refund(cents: int) -> WaitFor | None:
        return undone

    @pay.on_event
    async def settle(cents: int, ctx: StepContext) -> Paid | WaitFor | None:
        return None if ctx.phase == "compensate" else Paid(payment_id="p", cents=cents)

    made = pay.to_step()

    assert await made.compensate(made.input_model(cents=7), None, CTX) is undone  # type: ignore[func-returns-value]
    assert await hears(pay, ctx=UNDOING) is None
    assert await hears(pay) == Paid(payment_id="p", cents=7)


async def test_what_it_returns_that_is_no_output_is_no_sign_that_nothing_was_done() -> None:
    """The step is in doubt, as it would be if its own function did so."""

    @step
    async def ask(cents: int) -> int | WaitFor:
        return ASKED

    @ask.on_event
    async def count() -> int:
        return "many"  # type: ignore[return-value]

    with pytest.raises(OutcomeUnknown, match=r"it returned str, .* it has run"):
        await hears(ask)


@pytest.mark.parametrize(("annotation", "model"), [(Event[Settled], Settled), (Event, None), (Any, None), (None, None)])
def test_the_payload_is_of_the_model_that_it_names(annotation: Any, model: Any) -> None:
    """Without one it is plain, and whatever it is, it fits."""
    pay = asking()

    async def settle(event):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    if annotation is not None:
        settle.__annotations__["event"] = annotation
    pay.on_event(settle)
    builder = SagaBuilder()
    builder.add_step(step=pay, input_map=lambda _: {"cents": 7}, step_id="pay")

    assert builder.build().step("pay").shape.event_model is model


async def test_a_bound_step_goes_on_in_the_same_function() -> None:
    """What is bound is given to it, too."""
    pay = asking()

    @pay.on_event
    async def settle(cents: int, currency: str) -> Paid:
        return Paid(payment_id=currency, cents=cents)

    assert (await hears(pay.bind(currency="DKK"))).payment_id == "DKK"


class TestRefusals:
    def test_a_function_that_may_wait_needs_another_to_go_on_in(self) -> None:
        """It is said when the step is added, and how to write one; the step can still be given one."""
        pay, builder = asking(), SagaBuilder()
        with pytest.raises(TypeValidationError, match=r"'pay' .* no on_event to go on in\. Write: @pay\.on_event"):
            builder.add_step(step=pay, input_map=lambda _: {"cents": 7})

        pay.on_event(lambda event: None)
        builder.add_step(step=pay, input_map=lambda _: {"cents": 7})

    def test_an_undo_that_may_wait_needs_one_as_well(self) -> None:
        """The message names the undo."""

        @step
        async def pay(cents: int) -> Paid:
            raise NotImplementedError

        @pay.compensate
        async def refund(cents: int) -> WaitFor | None:
            raise NotImplementedError

        with pytest.raises(TypeValidationError, match=r"'refund' .* no on_event to go on in\. Write: @pay\.on_event"):
            pay.to_step()

    def test_a_function_that_only_waits_has_no_output(self) -> None:
        """It has to say what comes of it."""
        with pytest.raises(TypeValidationError, match=r"say YourOutput \| WaitFor"):

            @step
            async def pay(cents: int) -> WaitFor:
                raise NotImplementedError

    def test_an_event_is_no_payload(self) -> None:
        """The most likely mistake has its remedy in the message."""
        with pytest.raises(TypeValidationError, match=r"annotated with Settled.* say event: Event\[Settled\]"):

            @asking().on_event
            async def settle(event: Settled) -> Paid:
                raise NotImplementedError

    def test_it_takes_what_there_is(self) -> None:
        """There is no output yet."""
        with pytest.raises(TypeValidationError, match=r"takes 'out', and is given cents, currency, event, a StepCon"):

            @asking().on_event
            async def settle(out: Paid) -> Paid:
                raise NotImplementedError

    def test_an_event_of_the_steps_own_would_hide_it(self) -> None:
        """Two things of one name cannot both be given."""

        @step
        async def pay(event: str) -> Paid | WaitFor:
            raise NotImplementedError

        with pytest.raises(TypeValidationError, match="'event' has the name of what on_event is given"):
            pay.on_event(lambda event: None)

    def test_what_comes_too_late_is_refused(self) -> None:
        """A saga that has the step already would not know of it."""
        pay = asking()
        pay.on_event(lambda event: None)
        pay.to_step()
        with pytest.raises(SagaDefinitionError, match="part of a saga already"):
            pay.on_event(lambda event: None)

    def test_a_confirm_cannot_wait(self) -> None:
        """Nobody would hear the answer."""
        with pytest.raises(TypeValidationError, match="a confirm cannot wait"):

            @asking().confirm
            async def settle(out: Paid) -> WaitFor:
                raise NotImplementedError


async def test_a_list_of_ones_own_reaches_the_undo_as_it_was_returned() -> None:
    """It came as a bare list, though it was annotated to be a `Tags`."""
    seen: list[Any] = []

    @step
    async def tag(cents: int) -> Tags:
        return Tags(["a"])

    @tag.compensate
    async def remove(out: Tags) -> None:
        seen.append(out)

    made = tag.to_step()
    await made.compensate(made.input_model(cents=7), Tags(["a"]), CTX)

    assert seen == [Tags(["a"])]
