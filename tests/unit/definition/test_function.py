"""Functions as steps: what becomes of their arguments and of what they return, and which functions are refused."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, RootModel

from saga_orchestrator import (
    BaseStep,
    FunctionStep,
    OutcomeUnknown,
    PayloadError,
    SagaBuilder,
    SagaDefinitionError,
    StepContext,
    StepKind,
    TypeValidationError,
    step,
)

CTX = StepContext(
    saga_id=uuid4(), saga_name="s", step_id="a", aggregation_id="o", trace_id="t", attempt=1, idempotency_key="s/a/do"
)


class Order(BaseModel):
    sku: str = "cup"
    count: int = 1


class Held(BaseModel):
    sku: str
    key: str


@step
async def hold(sku: str, count: int = 1, *, ctx: StepContext) -> Held:
    return Held(sku=sku * count, key=ctx.idempotency_key)


async def run(function: FunctionStep[Any], **given: Any) -> Any:
    made = function.to_step()
    return await made.execute(made.input_model(**given), CTX)


async def test_m3_arguments_become_the_input() -> None:
    """Each by its name, with its default; the context is no part of the input."""
    made = hold.to_step()

    assert set(made.input_model.model_fields) == {"sku", "count"}
    assert made.output_model is Held
    assert await run(hold, sku="cup") == Held(sku="cup", key="s/a/do")


async def test_m3_an_argument_can_be_bound_for_good() -> None:
    """One function, many steps; what is bound is no part of the input."""
    pair = hold.bind(count=2)

    assert set(pair.to_step().input_model.model_fields) == {"sku"}
    assert (await run(pair, sku="cup")).sku == "cupcup"
    assert (await run(hold, sku="cup")).sku == "cup"


async def test_one_model_is_the_input_itself() -> None:
    """A function of one model is called with that."""

    @step
    async def take(order: Order) -> Order:
        return order

    assert take.to_step().input_model is Order
    assert await run(take, sku="pen") == Order(sku="pen")


async def test_m4_a_plain_function_runs_in_a_thread() -> None:
    """It holds up nobody; what it returns, and what it raises, is the step's."""

    @step
    def where(fails: bool) -> int:
        if fails:
            raise KeyError("lost")
        return threading.get_ident()

    assert (await run(where, fails=False)).root != threading.get_ident()
    with pytest.raises(KeyError, match="lost"):
        await run(where, fails=True)


async def test_what_is_no_model_is_wrapped() -> None:
    """The output is a model around the value, whatever can be stored."""

    @step
    async def when() -> datetime:
        return datetime(2024, 2, 29, tzinfo=UTC)

    assert issubclass(when.output_model, RootModel)
    assert (await run(when)).root == datetime(2024, 2, 29, tzinfo=UTC)


async def test_a_wrong_value_is_no_sign_that_nothing_was_done() -> None:
    """The function has run, so that its step is in doubt."""

    @step
    async def count() -> int:
        return "many"  # type: ignore[return-value]

    with pytest.raises(OutcomeUnknown, match=r"it returned str, .* it has run"):
        await run(count)


def test_it_is_still_a_function() -> None:
    """It can be called, as a test of it would."""

    @step
    def double(number: int, factor: int = 2) -> int:
        return number * factor

    assert double(4) == 8
    assert double.bind(factor=3)(4) == 12


class TestUndo:
    async def test_f1_an_undo_takes_what_it_needs_by_name(self) -> None:
        """Of the step's arguments, what it returned, and the context."""
        seen: list[Any] = []

        @step
        async def book(room: str, nights: int) -> str:
            return "b-1"

        @book.compensate
        def cancel(out: str, room: str, ctx: StepContext) -> None:
            seen.append((out, room, ctx.step_id))

        made = book.to_step()
        await made.compensate(made.input_model(room="7", nights=2), made.output_model("b-1"), CTX)  # type: ignore[call-arg]

        assert seen == [("b-1", "7", "a")]

    @pytest.mark.parametrize(("optional", "expected"), [(True, True), (False, False)])
    def test_an_undo_says_whether_it_needs_the_output(self, optional: bool, expected: bool) -> None:
        """As the annotation of a class's method does."""

        @step
        async def book(room: str) -> str:
            return "b-1"

        if optional:

            @book.compensate
            async def cancel(out: str | None) -> None:
                raise NotImplementedError
        else:

            @book.compensate
            async def give_back(out: str) -> None:
                raise NotImplementedError

        builder = SagaBuilder()
        builder.add_step(step=book, input_map=lambda ctx: {"room": "7"}, step_id="book")
        node = builder.build().graph.nodes["book"]

        assert node.undoable
        assert node.undo_without_output is expected

    def test_an_undo_without_the_output_needs_none(self) -> None:
        """It does not ask for it."""

        @step
        async def book(room: str) -> str:
            return "b-1"

        @book.compensate
        async def cancel(room: str) -> None:
            raise NotImplementedError

        builder = SagaBuilder()
        builder.add_step(step=book, input_map=lambda ctx: {"room": "7"}, step_id="book")

        assert builder.build().graph.nodes["book"].undo_without_output

    def test_f1_that_nothing_needs_to_be_undone_is_said_in_so_many_words(self) -> None:
        """A function without an undo is refused where something may fail after it; `compensation=None` accepts it."""

        @step
        async def look(room: str) -> str:
            return "free"

        for options in ({}, {"compensation": None}):
            builder = SagaBuilder()
            builder.add_step(step=look, input_map=lambda ctx: {"room": "7"}, step_id="look", **options)  # type: ignore[arg-type]
            builder.add_step(step=look, input_map=lambda ctx: {"room": "8"}, step_id="again")
            if options:
                assert builder.build().graph.nodes["look"].nothing_to_undo
            else:
                with pytest.raises(SagaDefinitionError, match="Step 'look' has no compensate"):
                    builder.build()

    async def test_a_probe_answers_with_the_output_or_none(self) -> None:
        """The output is wrapped like the step's own."""

        @step
        async def book(room: str) -> str:
            return "b-1"

        @book.probe
        async def find(room: str) -> str | None:
            return "b-1" if room == "7" else None

        made = book.to_step()

        assert (await made.probe(made.input_model(room="7"), CTX)).root == "b-1"  # type: ignore[union-attr, attr-defined]
        assert await made.probe(made.input_model(room="8"), CTX) is None

    def test_what_comes_too_late_is_refused(self) -> None:
        """A saga that has the step already would not know of its undo."""

        @step
        async def book(room: str) -> str:
            return "b-1"

        SagaBuilder().add_step(step=book, input_map=lambda ctx: {"room": "7"})
        with pytest.raises(SagaDefinitionError, match="part of a saga already"):
            book.compensate(lambda room: None)

    def test_an_undo_that_wants_what_there_is_not_is_refused(self) -> None:
        """The message says what there is."""

        @step
        async def book(room: str) -> str:
            return "b-1"

        with pytest.raises(TypeValidationError, match=r"takes 'city', and is given room, out, a StepContext"):

            @book.compensate
            async def cancel(city: str) -> None:
                raise NotImplementedError


class TestRefusals:
    def test_what_is_not_annotated(self) -> None:
        """An argument, or what is returned."""
        with pytest.raises(TypeValidationError, match="argument 'room' is not one that has a name and an annotation"):
            step(lambda room: None)
        with pytest.raises(TypeValidationError, match="what it returns is not annotated"):

            @step
            async def book(room: str):  # type: ignore[no-untyped-def]
                return "b-1"

    def test_what_cannot_be_given_by_name(self) -> None:
        """Arguments of any number have no names."""
        with pytest.raises(TypeValidationError, match="argument 'rooms' is not one"):

            @step
            async def book(*rooms: str) -> str:
                return "b-1"

    def test_what_no_model_can_hold(self) -> None:
        """Neither as an argument nor as what is returned."""
        with pytest.raises(TypeValidationError, match="of its arguments no model can be made"):

            @step
            async def book(door: threading.Lock, key: str) -> str:  # type: ignore[valid-type]
                return "b-1"

        with pytest.raises(TypeValidationError, match="what it returns cannot be stored"):

            @step
            async def find(key: str) -> threading.Event:
                return threading.Event()

    def test_what_is_no_function(self) -> None:
        """A class, or a function that yields."""
        with pytest.raises(TypeValidationError, match="is no function, or one that yields"):
            step(Order)
        with pytest.raises(TypeValidationError, match="is no function, or one that yields"):

            @step
            async def book(room: str) -> AsyncIterator[str]:
                yield room

    def test_names_that_mean_nothing_here(self) -> None:
        """An annotation has to be there when the function is read."""

        async def book(room: str) -> str:
            return room

        book.__annotations__["room"] = "Room"
        with pytest.raises(TypeValidationError, match="import it at run time"):
            step(book)

    def test_a_bound_argument_that_there_is_not(self) -> None:
        """Most often a typing mistake."""
        with pytest.raises(TypeValidationError, match="takes no argument 'cuont'"):
            hold.bind(cuont=2)


def test_a_function_has_a_kind_as_a_class_has() -> None:
    """Said to the decorator, or to `add_step`."""

    @step(kind=StepKind.PIVOT)
    async def send(parcel: str) -> str:
        return parcel

    assert isinstance(send, FunctionStep)
    assert send.to_step().kind is StepKind.PIVOT


class TestConstant:
    async def test_f5_it_is_a_step_that_returns_it(self) -> None:
        """Each saga gets a value of its own; what happens to the builder's object later changes nothing."""
        fees = {"card": 3}
        builder = SagaBuilder()
        ref = builder.add_constant(fees, step_id="fees")
        fees["card"] = 4
        placed = builder.build().step("fees")

        first = await placed.step.execute(placed.input_model())
        assert first.root == {"card": 3}
        assert (await placed.step.execute(placed.input_model())).root is not first.root
        assert placed.node.kind is StepKind.READ_ONLY
        assert ref.output_model is placed.output_model

    async def test_f5_a_model_stays_one(self) -> None:
        """The next step is given what it is annotated to take."""
        builder = SagaBuilder()
        ref = builder.add_constant(Order(sku="pen"), step_id="order")
        placed = builder.build().step("order")

        assert ref.output_model is Order
        assert await placed.step.execute(placed.input_model()) == Order(sku="pen")

    def test_f5_what_cannot_be_stored_is_refused_when_it_is_added(self) -> None:
        """Not in the middle of a saga."""
        with pytest.raises(PayloadError, match="The constant 'lock'"):
            SagaBuilder().add_constant(threading.Lock(), step_id="lock")


def test_a_class_based_step_is_what_it_was() -> None:
    """A function that has become a step is one like any other."""
    assert isinstance(hold.to_step(), BaseStep)
    assert type(hold.to_step()).__name__ == "hold"
