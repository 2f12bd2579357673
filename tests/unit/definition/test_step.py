"""What a step class promises, read from how it is written, and what is refused when the class is created."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from uuid import uuid4

import pytest
from pydantic import BaseModel, SecretStr

from saga_orchestrator.definition.context import InputContext, StepContext
from saga_orchestrator.definition.graph import Node, StepKind
from saga_orchestrator.definition.retry import FixedRetry
from saga_orchestrator.definition.shape import StepShape
from saga_orchestrator.definition.step import (
    BaseStep,
    InputT,
    OutputT,
    StepDefinition,
    StepRef,
    shape_of,
)
from saga_orchestrator.definition.waiting import Event, WaitFor
from saga_orchestrator.errors import TypeValidationError

if TYPE_CHECKING:
    from collections import OrderedDict as Absent


class Order(BaseModel):
    order_id: str


class Receipt(BaseModel):
    number: str


class Signed(Receipt):
    signature: str = ""


class Parcel(BaseModel):
    weight: int


ItemT = TypeVar("ItemT", bound=BaseModel)
FirstT = TypeVar("FirstT", bound=BaseModel)
SecondT = TypeVar("SecondT", bound=BaseModel)
ExtraT = TypeVar("ExtraT")


class Envelope(BaseModel, Generic[ItemT]):
    item: ItemT


class Charge(BaseStep[Order, Receipt]):
    async def execute(self, inp: Order) -> Receipt:
        return Receipt(number=inp.order_id)


def shape(step_class: type[BaseStep[Any, Any]]) -> StepShape:
    return shape_of(step_class())


def models(step_class: type[BaseStep[Any, Any]]) -> tuple[type[BaseModel], type[BaseModel]]:
    return step_class.input_model, step_class.output_model


def context() -> StepContext:
    return StepContext(
        saga_id=uuid4(),
        saga_name="order",
        step_id="charge",
        aggregation_id="order-1",
        trace_id="trace-1",
        attempt=1,
        idempotency_key="saga/charge/execute",
    )


def placed(step: BaseStep[Any, Any], **options: Any) -> StepDefinition:
    values: dict[str, Any] = {"input_map": lambda out: out, "depends_on": (), "node": Node(step_id="charge")}
    return StepDefinition(step_id="charge", step=step, **{**values, **options})


class TestModels:
    def test_the_models_are_those_that_execute_is_annotated_with(self) -> None:
        """The first parameter of execute, whatever its name, and its return annotation give the models."""

        class Renamed(BaseStep[Order, Receipt]):
            async def execute(self, order: Order) -> Receipt:
                raise NotImplementedError

        assert models(Charge) == models(Renamed) == (Order, Receipt)

    def test_a_base_step_without_parameters_is_read_from_its_annotations(self) -> None:
        """BaseStep needs no parameters where execute says everything."""

        class Bare(BaseStep):  # type: ignore[type-arg]
            async def execute(self, inp: Order) -> Receipt:
                raise NotImplementedError

        assert models(Bare) == (Order, Receipt)

    def test_the_annotation_may_narrow_the_output(self) -> None:
        """A step may promise more than its base says: the annotation of execute counts."""

        class Precise(BaseStep[Order, Receipt]):
            async def execute(self, inp: Order) -> Signed:
                raise NotImplementedError

        assert models(Precise) == (Order, Signed)

    def test_local_models_are_found_through_the_class_parameters(self) -> None:
        """String annotations that name local classes are understood where BaseStep[...] was given those classes."""

        class Inp(BaseModel):
            pass

        class Out(BaseModel):
            pass

        class Local(BaseStep[Inp, Out]):
            async def execute(self, inp: Inp, ctx: StepContext) -> Out:
                raise NotImplementedError

            async def compensate(self, inp: Inp, out: Out | None) -> None:
                raise NotImplementedError

        assert models(Local) == (Inp, Out)
        assert shape(Local).undo_without_output

    def test_what_cannot_be_resolved_is_refused_although_the_class_parameters_say_it(self) -> None:
        """It may be a name with a typing error, or one that hides a wait."""
        with pytest.raises(TypeValidationError, match="execute's input annotation cannot be resolved"):

            class Late(BaseStep[Order, Receipt]):
                async def execute(self, inp: Absent) -> Absent:  # type: ignore[override, type-arg]
                    raise NotImplementedError

    def test_an_unresolvable_ctx_does_not_hide_its_neighbours(self) -> None:
        """A `ctx` annotated with a name imported only for type checking costs nothing."""

        class Contextual(BaseStep):  # type: ignore[type-arg]
            async def execute(self, inp: Order, ctx: Absent) -> Receipt:  # type: ignore[type-arg]
                raise NotImplementedError

        assert models(Contextual) == (Order, Receipt)
        assert shape(Contextual).execute_takes_ctx

    def test_a_decorated_execute_is_read_through_its_wrapper(self) -> None:
        """A decorator that uses functools.wraps does not hide the annotations."""

        def traced(method: Any) -> Any:
            @functools.wraps(method)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                return await method(*args, **kwargs)

            return wrapper

        class Traced(BaseStep[Order, Receipt]):
            @traced
            async def execute(self, inp: Order, ctx: StepContext) -> Receipt:
                raise NotImplementedError

        assert models(Traced) == (Order, Receipt)
        assert shape(Traced).execute_takes_ctx


class TestGenericBases:
    def test_a_generic_base_is_bound_by_its_subclass(self) -> None:
        """Type variables in an inherited execute stand for what the concrete class gives."""

        class Logged(BaseStep[InputT, OutputT], Generic[InputT, OutputT]):
            async def execute(self, inp: InputT) -> OutputT:
                raise NotImplementedError

        class Concrete(Logged[Order, Receipt]):
            pass

        assert models(Concrete) == (Order, Receipt)

    def test_type_variables_are_followed_through_several_levels_and_names(self) -> None:
        """Each level may bind some variables, rename others, and add its own."""

        class Base(BaseStep[FirstT, SecondT], Generic[ExtraT, FirstT, SecondT]):
            async def execute(self, inp: FirstT) -> SecondT:
                raise NotImplementedError

        class Middle(Base[str, Order, SecondT], Generic[SecondT]):
            pass

        class Concrete(Middle[Receipt]):
            pass

        assert models(Concrete) == (Order, Receipt)

    def test_a_model_that_is_generic_itself_is_bound(self) -> None:
        """`Envelope[T]` becomes `Envelope[Order]` where T is Order."""

        class Unwrap(BaseStep[Envelope[ItemT], ItemT], Generic[ItemT]):
            async def execute(self, inp: Envelope[ItemT]) -> ItemT:
                raise NotImplementedError

        class Concrete(Unwrap[Order]):
            pass

        assert models(Concrete) == (Envelope[Order], Order)

    def test_a_step_may_be_generic_in_something_else(self) -> None:
        """A type variable that is no payload, such as a client's, leaves the step concrete."""

        class WithClient(BaseStep[Order, Receipt], Generic[ExtraT]):
            async def execute(self, inp: Order) -> Receipt:
                raise NotImplementedError

        assert models(WithClient) == (Order, Receipt)

    def test_local_type_variables_are_found_through_the_class(self) -> None:
        """A type variable that only the class knows, as with Python 3.12's `class Base[T]`, is understood as text."""
        local = TypeVar("local", bound=BaseModel)

        class Base(BaseStep[local, Receipt], Generic[local]):
            async def execute(self, inp: local) -> Receipt:
                raise NotImplementedError

        class Concrete(Base[Order]):
            pass

        assert models(Concrete) == (Order, Receipt)

    def test_execute_may_come_from_a_mixin(self) -> None:
        """A generic class that is no step can lend execute and compensate to one."""

        class Echo(Generic[InputT]):
            async def execute(self, inp: InputT) -> InputT:
                return inp

            async def compensate(self, inp: InputT, out: InputT | None) -> None:
                raise NotImplementedError

        class Concrete(Echo[Order], BaseStep[Order, Order]):
            pass

        assert models(Concrete) == (Order, Order)
        assert shape(Concrete).undo_without_output

    def test_a_base_that_is_not_concrete_yet_is_no_error_until_it_is_used(self) -> None:
        """Generic, abstract and execute-less classes may be created; only a step made of one is refused."""

        class StillGeneric(BaseStep[InputT, OutputT], Generic[InputT, OutputT]):
            async def execute(self, inp: InputT) -> OutputT:
                raise NotImplementedError

        class HalfGeneric(BaseStep[Order, OutputT], Generic[OutputT]):
            async def execute(self, inp: Order) -> OutputT:
                raise NotImplementedError

        class GenericModel(BaseStep[Order, Envelope[ItemT]], Generic[ItemT]):
            async def execute(self, inp: Order) -> Envelope[ItemT]:
                raise NotImplementedError

        class NoExecute(BaseStep[Order, Receipt]):
            pass

        for unfinished in (StillGeneric, HalfGeneric, GenericModel, NoExecute):
            with pytest.raises(TypeValidationError, match=f"'{unfinished.__name__}' cannot be used yet"):
                shape_of(cast("Any", unfinished)())

    def test_an_abstract_base_is_not_judged(self) -> None:
        """A class with abstract methods is a base, however its execute is written."""

        class Call(BaseStep[Order, Receipt], ABC):
            @abstractmethod
            def url(self) -> str: ...

            async def execute(self, inp):  # type: ignore[no-untyped-def]
                raise NotImplementedError

        assert Call._shape is None

    def test_a_subclass_that_forgets_its_parameters_is_refused(self) -> None:
        """A concrete class of a generic base must say what the type variables stand for."""

        class Logged(BaseStep[InputT, OutputT], Generic[InputT, OutputT]):
            async def execute(self, inp: InputT) -> OutputT:
                raise NotImplementedError

        with pytest.raises(TypeValidationError, match="Step 'Forgetful': execute's input type ~InputT is not given"):

            class Forgetful(Logged):  # type: ignore[type-arg]
                pass


class TestRefusals:
    def test_an_execute_without_annotations_is_refused(self) -> None:
        """The message names the class and says what to write."""
        with pytest.raises(TypeValidationError) as refused:

            class Untyped(BaseStep[Order, Receipt]):
                async def execute(self, inp) -> Receipt:  # type: ignore[no-untyped-def]
                    raise NotImplementedError

        assert str(refused.value) == (
            "Step 'Untyped': execute's input is not annotated. Write: async def execute(self, inp: YourInput) -> "
            "YourOutput with Pydantic models of your own; a last parameter `ctx: StepContext` may follow."
        )

    def test_an_execute_without_a_return_annotation_is_refused(self) -> None:
        """The output model must be known before anything is stored."""
        with pytest.raises(TypeValidationError, match="'Untyped': execute's return is not annotated"):

            class Untyped(BaseStep[Order, Receipt]):
                async def execute(self, inp: Order):  # type: ignore[no-untyped-def]
                    raise NotImplementedError

    @pytest.mark.parametrize(
        "annotation", [dict, dict[str, Any], BaseModel, Order | Receipt, Order | None, "Receipt | None", None, Any]
    )
    def test_what_is_no_pydantic_model_is_refused(self, annotation: Any) -> None:
        """Plain types, BaseModel itself, unions and None are no models, on either side."""

        async def execute(self: Any, inp: Any) -> Any:
            raise NotImplementedError

        for side in ("inp", "return"):
            execute.__annotations__ = {"inp": Order, "return": Order, side: annotation}
            with pytest.raises(TypeValidationError, match=r"'Wrong': execute's .* is not a Pydantic model"):
                type("Wrong", (BaseStep,), {"execute": execute})

    def test_an_annotation_that_cannot_be_resolved_anywhere_is_refused(self) -> None:
        """Without parameters of BaseStep there is nothing to fall back to."""
        with pytest.raises(TypeValidationError, match=r"'Lost': execute's input type .* cannot be resolved here"):

            class Lost(BaseStep):  # type: ignore[type-arg]
                async def execute(self, inp: Absent) -> Receipt:  # type: ignore[type-arg]
                    raise NotImplementedError

    def test_annotations_that_contradict_the_class_parameters_are_refused(self) -> None:
        """BaseStep[...] and execute must agree."""
        with pytest.raises(TypeValidationError, match="execute's input is Parcel, but the class is given Order"):

            class WrongInput(BaseStep[Order, Receipt]):
                async def execute(self, inp: Parcel) -> Receipt:  # type: ignore[override]
                    raise NotImplementedError

        with pytest.raises(TypeValidationError, match="execute's return is Parcel, but the class is given Receipt"):

            class WrongOutput(BaseStep[Order, Receipt]):
                async def execute(self, inp: Order) -> Parcel:  # type: ignore[override]
                    raise NotImplementedError

    @pytest.mark.parametrize("method", ["execute", "compensate", "probe"])
    def test_a_method_that_is_not_async_is_refused(self, method: str) -> None:
        """Every method of a step is awaited."""

        def plain(self: Any, inp: Order, out: Receipt) -> Receipt:
            raise NotImplementedError

        with pytest.raises(TypeValidationError, match=f"'Plain': {method} is not an `async def` method"):
            type("Plain", (Charge,), {method: plain})

    def test_a_method_with_the_wrong_number_of_arguments_is_refused(self) -> None:
        """A step is called with its input, the output when it is undone, and ctx if it takes it: nothing else."""

        async def nothing(self: Any) -> Receipt:
            raise NotImplementedError

        async def too_much(self: Any, inp: Order, out: Receipt, ctx: StepContext, more: int) -> Receipt:
            raise NotImplementedError

        async def keyword(self: Any, inp: Order, out: Receipt, *, ctx: StepContext) -> Receipt:
            raise NotImplementedError

        for name in ("execute", "compensate", "probe"):
            for method in (nothing, too_much, keyword):
                with pytest.raises(TypeValidationError, match=f"{name} takes the wrong arguments"):
                    type("Wrong", (Charge,), {name: method})

    def test_an_optional_keyword_is_no_argument(self) -> None:
        """What has a default and cannot be given by position is the author's own business."""

        class WithOption(BaseStep[Order, Receipt]):
            async def execute(self, inp: Order, *, dry_run: bool = False) -> Receipt:
                raise NotImplementedError

        assert not shape(WithOption).execute_takes_ctx

    def test_a_compensation_for_other_models_is_refused(self) -> None:
        """What compensate is annotated to take must be what the step was given and returned."""
        with pytest.raises(TypeValidationError, match="compensate takes Parcel where Order is given"):

            class WrongInput(Charge):
                async def compensate(self, inp: Parcel, out: Receipt) -> None:  # type: ignore[override]
                    raise NotImplementedError

        with pytest.raises(TypeValidationError, match=r"compensate takes .* where Receipt is given"):

            class WrongOutput(Charge):
                async def compensate(self, inp: Order, out: Parcel | None) -> None:  # type: ignore[override]
                    raise NotImplementedError

    def test_a_compensation_whose_output_type_cannot_be_resolved_is_refused(self) -> None:
        """Whether a step can be undone without its output must not be guessed."""
        with pytest.raises(TypeValidationError, match="'Lost': the type of compensate's output cannot be resolved"):

            class Lost(Charge):
                async def compensate(self, inp: Order, out: Absent | None) -> None:  # type: ignore[override, type-arg]
                    raise NotImplementedError

    def test_an_on_event_that_returns_something_else_than_execute_is_refused(self) -> None:
        """The saga would be COMPLETED with an output that no later step can take."""
        with pytest.raises(TypeValidationError, match="on_event returns Order, but execute Receipt"):

            class Wrong(BaseStep[Order, Receipt]):
                async def execute(self, inp: Order) -> Receipt | WaitFor: ...

                async def on_event(self, inp: Order, event: Event[Order]) -> Order: ...

    def test_an_on_event_without_a_return_annotation_is_taken_as_it_is(self) -> None:
        class Loose(BaseStep[Order, Receipt]):
            async def execute(self, inp: Order) -> Receipt | WaitFor: ...

            async def on_event(self, inp: Order, event: Event[Order]): ...  # type: ignore[no-untyped-def]

        assert Loose.output_model is Receipt


class TestFacts:
    def test_a_step_that_only_executes_promises_nothing_else(self) -> None:
        """Without compensate and probe a step cannot be undone nor asked."""
        assert shape(Charge) == StepShape(input_model=Order, output_model=Receipt, execute_takes_ctx=False)

    def test_every_method_may_take_ctx(self) -> None:
        """The number of parameters decides whether a method is given the context."""

        class Full(BaseStep[Order, Receipt]):
            async def execute(self, inp: Order, ctx: StepContext) -> Receipt:
                raise NotImplementedError

            async def compensate(self, inp: Order, out: Receipt, ctx: StepContext) -> None:
                raise NotImplementedError

            async def probe(self, inp: Order, ctx: StepContext) -> Receipt | None:
                raise NotImplementedError

        assert shape(Full) == StepShape(
            input_model=Order,
            output_model=Receipt,
            execute_takes_ctx=True,
            undoable=True,
            compensate_takes_ctx=True,
            probes=True,
            probe_takes_ctx=True,
        )

    @pytest.mark.parametrize(
        ("annotation", "expected"),
        [
            (Receipt, False),
            (Receipt | None, True),
            ("__import__('typing').Optional[Receipt]", True),
            ("Receipt | None", True),
            (None, True),
            (Any, False),
            (object, False),
            (BaseModel | Order, False),
        ],
    )
    def test_only_an_annotation_that_says_none_allows_an_undo_without_output(
        self, annotation: Any, expected: bool
    ) -> None:
        """`Any` is not taken for a promise: a compensation that was not written for None would only crash."""

        async def compensate(self: Any, inp: Any, out: Any) -> None:
            raise NotImplementedError

        compensate.__annotations__["out"] = annotation
        if annotation is None:  # not the output model, but it must not be read as "not annotated" either
            with pytest.raises(TypeValidationError, match="compensate takes NoneType"):
                type("Refund", (Charge,), {"compensate": compensate})
        else:
            assert shape(type("Refund", (Charge,), {"compensate": compensate})).undo_without_output is expected

    def test_a_compensation_without_annotations_is_given_the_output_always(self) -> None:
        """An unannotated compensate is undoable, but not without output."""

        class Refund(Charge):
            async def compensate(self, inp, out) -> None:  # type: ignore[no-untyped-def]
                raise NotImplementedError

        assert shape(Refund).undoable
        assert not shape(Refund).undo_without_output

    def test_a_subclass_is_read_anew(self) -> None:
        """Overriding one method of a concrete step keeps the rest."""

        class Refundable(Charge):
            async def compensate(self, inp: Order, out: Receipt | None) -> None:
                raise NotImplementedError

        class Asked(Refundable):
            async def probe(self, inp: Order) -> Receipt | None:
                raise NotImplementedError

        assert not shape(Charge).undoable
        assert shape(Asked).undo_without_output
        assert shape(Asked).probes

    def test_class_keywords_reach_other_bases(self) -> None:
        """A step may share its bases with classes that take keywords of their own."""

        class Tagged:
            tag = ""

            def __init_subclass__(cls, *, tag: str = "", **kwargs: Any) -> None:
                super().__init_subclass__(**kwargs)
                cls.tag = tag

        class Both(Charge, Tagged, tag="money"):
            pass

        assert Both.tag == "money"

    def test_steps_are_compensatable_unless_they_say_otherwise(self) -> None:
        """The kind is an attribute of the class."""

        class Look(Charge):
            kind = StepKind.READ_ONLY

        assert (Charge.kind, Look.kind) == (StepKind.COMPENSATABLE, StepKind.READ_ONLY)


class TestBase:
    async def test_the_base_methods_do_nothing(self) -> None:
        """A step that does not override a method has none: the engine never calls it."""
        step: BaseStep[Any, Any] = Charge()
        for coroutine in (BaseStep.execute(step, None), step.compensate(None, None), step.probe(None)):
            with pytest.raises(NotImplementedError):
                await coroutine


class TestValues:
    def test_a_context_cannot_be_changed(self) -> None:
        """A step is told about its saga; it does not tell."""
        ctx = context()

        assert (ctx.in_doubt, ctx.initial_data, ctx.deadline) == (False, None, None)
        with pytest.raises(AttributeError):
            ctx.attempt = 2  # type: ignore[misc]

    def test_an_input_context_needs_no_event(self) -> None:
        """Only a step that was woken by an event sees one."""
        ctx = InputContext({"order_id": "1"}, {"saga_name": "order"}, {})

        assert (ctx.latest_event, ctx.events) == (None, None)

    def test_refs_are_equal_by_what_they_refer_to(self) -> None:
        """Whose ref it is does not show, and does not count for equality."""
        mine, other = StepRef("charge", Receipt, object()), StepRef("charge", Receipt)

        assert mine == other
        assert hash(mine) == hash(other)
        assert "owner" not in repr(mine)


class TestStepDefinition:
    def test_it_shows_what_the_step_and_the_node_say(self) -> None:
        """The facts are read from where they live."""
        policy = FixedRetry(3, timedelta(seconds=1))
        step = placed(Charge(), node=Node(step_id="charge", name="Charge", retry=policy, timeout=timedelta(seconds=5)))

        assert (step.input_model, step.output_model, step.step_name) == (Order, Receipt, "Charge")
        assert (step.retry_policy, step.timeout) == (policy, timedelta(seconds=5))
        assert step.plain == frozenset()

    @pytest.mark.parametrize("made", [Order(order_id="1"), {"order_id": "1"}])
    def test_an_input_is_a_model_or_fits_it(self, made: Any) -> None:
        """A mapping is validated into the input model; a model is taken as it is."""
        assert placed(Charge(), input_map=lambda _: made).make_input(None) == Order(order_id="1")

    def test_an_input_of_a_subclass_is_not_changed(self) -> None:
        """It is refused when it is stored, by its own name."""

        class Urgent(Order):
            by: str = "noon"

        made = Urgent(order_id="1")
        assert placed(Charge(), input_map=lambda _: made).make_input(None) is made

    def test_a_mapping_that_does_not_fit_is_refused(self) -> None:
        """The error says what is missing, and shows no value."""
        with pytest.raises(TypeValidationError, match="returned a dict that does not fit Order: order_id: Field"):
            placed(Charge(), input_map=lambda _: {}).make_input(None)

    def test_it_says_whether_the_step_returns_a_secret(self) -> None:
        """Without a codec such a step is refused before it is called."""

        class Token(BaseModel):
            token: SecretStr

        class LogIn(BaseStep[Order, Token]):
            async def execute(self, inp: Order) -> Token:
                return Token(token=SecretStr("t"))

        assert placed(LogIn()).returns_secret
        assert not placed(Charge()).returns_secret

    def test_another_type_is_refused(self) -> None:
        """The message names the step, what it got and what it wants."""
        with pytest.raises(
            TypeValidationError, match="step 'charge' returned Receipt; it must return Order, or a dict"
        ):
            placed(Charge(), input_map=lambda _: Receipt(number="1")).make_input(None)

    async def test_a_step_is_given_ctx_only_if_it_takes_it(self) -> None:
        """The three calls serve steps written with and without ctx, which is made only where it is taken."""

        class Plain(BaseStep[Order, Receipt]):
            async def execute(self, inp: Order) -> Receipt:
                return Receipt(number=inp.order_id)

            async def compensate(self, inp: Order, out: Receipt | None) -> None:
                undone.append((inp, out))

            async def probe(self, inp: Order) -> Receipt | None:
                return None

        class Informed(BaseStep[Order, Receipt]):
            async def execute(self, inp: Order, ctx: StepContext) -> Receipt:
                return Receipt(number=ctx.idempotency_key)

            async def compensate(self, inp: Order, out: Receipt, ctx: StepContext) -> None:
                undone.append((inp, out, ctx.attempt))

            async def probe(self, inp: Order, ctx: StepContext) -> Receipt | None:
                return Receipt(number=ctx.trace_id)

        def unwanted() -> StepContext:
            raise AssertionError

        undone: list[tuple[Any, ...]] = []
        order, receipt = Order(order_id="1"), Receipt(number="7")
        plain, informed = placed(Plain()), placed(Informed())

        assert await plain.execute(order, unwanted) == Receipt(number="1")
        assert await informed.execute(order, context) == Receipt(number="saga/charge/execute")
        await plain.compensate(order, None, unwanted)
        await informed.compensate(order, receipt, context)
        assert undone == [(order, None), (order, receipt, 1)]
        assert await plain.probe(order, unwanted) is None
        assert await informed.probe(order, context) == Receipt(number="trace-1")
