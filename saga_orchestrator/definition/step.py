"""The words a saga's author writes with: a step, where it stands in a saga, and a reference to its output.

A step is an object of the application: made once, with whatever clients it needs, and shared by all sagas. It holds no
state of a saga. How a saga uses it (order, input, retries) is said when it is added, and lives in a `StepDefinition`.
"""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import TypeValidationError
from .awaited import then
from .context import StepContext
from .fans import Fan
from .fidelity import plan_of
from .graph import Node, StepKind
from .io import reasons
from .retry import RetryPolicy
from .shape import StepShape, read_shape
from .waiting import Event, WaitFor

InputT = TypeVar("InputT", bound=BaseModel)
OutputT = TypeVar("OutputT", bound=BaseModel)


class BaseStep(Generic[InputT, OutputT]):
    """One step of a saga: subclass it, annotate `execute`, and say how to undo it in `compensate`.

    `execute` returns when the step has acted, and raises when it has *not* acted. When it cannot tell, it raises
    `OutcomeUnknown`. It may be called again with the same input: use `ctx.idempotency_key` to act once.

    The methods are declared loosely here, so that a subclass may leave out `ctx` and still satisfy its type checker.

    Attributes:
        kind: What its effect means for the way back; `add_step(kind=...)` overrides it.
        transactional: Its methods are given `ctx.session`, and what they write by it is committed together with the
            record that they have: a crash at any moment leaves both or neither. Such a step does all it does by that
            session, quickly, and never commits it itself.
        input_model: The model that `execute` is annotated to take.
        output_model: The model that `execute` is annotated to return.

    Raises:
        TypeValidationError: When the class is created: a method is not written as it must be.
    """

    kind: ClassVar[StepKind] = StepKind.COMPENSATABLE
    transactional: ClassVar[bool] = False
    input_model: type[InputT]
    output_model: type[OutputT]
    _shape: ClassVar[StepShape | None] = None
    _begins_only: ClassVar[bool] = False
    """Of a transactional step: its first call is made in a transaction, and no other."""
    _plain: ClassVar[frozenset[str]] = frozenset()
    """Which of its methods call a plain function, and so need a thread."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._shape = read_shape(cls, BaseStep)
        if cls._shape is not None:
            cls.input_model, cls.output_model = cls._shape.input_model, cls._shape.output_model  # type: ignore[assignment]

    async def execute(self, inp: InputT, /, *args: Any, **kwargs: Any) -> OutputT | WaitFor:
        """Act, and return what later steps and the compensation need to know. May take `ctx: StepContext` as well.

        Or ask, and return a `WaitFor`: then the step has acted, and goes on in `on_event`.
        """
        raise NotImplementedError

    async def on_event(self, inp: InputT, event: Event[Any], /, *args: Any, **kwargs: Any) -> OutputT | WaitFor | None:
        """Go on with the event that the step has waited for, and return what `execute` (or `compensate`) would.

        May take `ctx: StepContext` as well; `ctx.phase` says which of the two has asked. Annotate the event as
        `Event[YourModel]` to have its payload checked when it comes: one that does not fit is refused, and the wait
        goes on.
        """
        raise NotImplementedError

    async def compensate(self, inp: InputT, out: OutputT, /, *args: Any, **kwargs: Any) -> WaitFor | None:
        """Undo what `execute` did, given its recorded input and output. May take `ctx: StepContext` as well.

        It may return a `WaitFor`, and go on in `on_event`.

        Annotate `out: YourOutput | None` when the effect can be undone even if its output was never learnt.
        """
        raise NotImplementedError

    async def probe(self, inp: InputT, /, *args: Any, **kwargs: Any) -> OutputT | None:
        """Find out whether an attempt in doubt has acted. May take `ctx: StepContext` as well.

        Return the output if it has, None if it surely has not and never will, and raise `OutcomeUnknown` if that
        still cannot be told.
        """
        raise NotImplementedError

    async def confirm(self, inp: InputT, out: OutputT, /, *args: Any, **kwargs: Any) -> None:
        """Make final what `execute` has prepared, once all steps of the saga have succeeded. May take `ctx` as well.

        From then on nothing is undone: what this raises is tried again, and at last for a person to mend.
        """
        raise NotImplementedError


def make_step(name: str, given: type[BaseModel], returned: type[BaseModel], members: dict[str, Any]) -> Any:
    """Return an object of a step class made of these members, which takes one model and returns another."""
    base: Any = BaseStep[given, returned]  # type: ignore[valid-type]
    return types.new_class(name, (base,), {}, lambda body: body.update(members))()


class StepSource(ABC, Generic[OutputT]):
    """Something that a step can be made of, such as a function."""

    @abstractmethod
    def to_step(self) -> BaseStep[Any, OutputT]:
        """Return the step."""


@dataclass(frozen=True)
class StepRef(Generic[OutputT]):
    """The output of a step that was added to a builder, to be given to that builder's `depends_on=` and `after=`."""

    step_id: str
    output_model: type[OutputT]
    owner: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class StepDefinition:
    """A step at its place in a saga.

    Attributes:
        input_map: Makes the step's input from the outputs of `depends_on`, or from an `InputContext` without any.
        node: Everything about it that the kernel decides by.
        scope: The first step of the part of the saga that this step belongs to; None outside of any part.
        stands_for: Of the first step of a part: the part's last one, whose output is that of the part.
        is_choice: Its output is the answer that takes one of its branches.
        fan: Of the first step of a fan, what stands between it and the end.
        each: Of the first step of a fan, the step that there is for each item.
        gathers: Of the end of a fan, its first step.
        item: Of the step for one item of a fan, its first step and the place of the item.
        confirm_retry: When its `confirm` is tried again, if not as others are.
        confirms: The step whose `confirm` this one is.
        is_finish: It was added when the saga was built, to finish it; its author wrote no such step.
    """

    step_id: str
    step: BaseStep[Any, Any]
    input_map: Callable[..., Any]
    depends_on: tuple[StepRef[Any], ...]
    node: Node
    scope: str | None = None
    stands_for: str | None = None
    is_choice: bool = False
    fan: Fan | None = None
    each: StepDefinition | None = None
    gathers: str | None = None
    item: tuple[str, int] | None = None
    confirm_retry: RetryPolicy | None = None
    confirm_timeout: timedelta | None = None
    confirms: str | None = None
    is_finish: bool = False

    @cached_property
    def input_model(self) -> type[BaseModel]:
        return self.shape.input_model

    @cached_property
    def output_model(self) -> type[BaseModel]:
        return self.shape.output_model

    @property
    def step_name(self) -> str:
        """The name of the step's class, for people to read."""
        return self.node.name

    @property
    def timeout(self) -> timedelta | None:
        return self.node.timeout

    @property
    def retry_policy(self) -> RetryPolicy:
        return self.node.retry

    @property
    def begins_only(self) -> bool:
        """Whether only the first call of it is made in a transaction, if it is transactional."""
        return self.step._begins_only  # noqa: SLF001 - private to authors of steps, not to this module

    @property
    def needs_session(self) -> bool:
        """Whether its author may write by `ctx.session`; by that of a step with a child only the engine does."""
        return self.node.transactional and not self.begins_only

    @property
    def plain(self) -> frozenset[str]:
        """Which methods of the step call a plain function, and so need a thread."""
        return self.step._plain  # noqa: SLF001 - private to authors of steps, not to this module

    @cached_property
    def shape(self) -> StepShape:
        return shape_of(self.step)

    @cached_property
    def returns_secret(self) -> bool:
        """Whether its output can be stored only where a codec encrypts it."""
        return bool(plan_of(self.output_model).secrets)

    def make_input(self, *arguments: Any) -> Any:
        """Call `input_map` and return a valid input; a mapping is validated into the input model.

        Of an `input_map` that returns a coroutine, return a coroutine of that.

        Raises:
            TypeValidationError: It returned something else.
            Exception: Whatever `input_map` itself, or the validation, raised.
        """
        made = self.input_map(*arguments)
        return made if type(made) is self.input_model else then(made, self._as_input)

    def _as_input(self, value: Any) -> BaseModel:
        if isinstance(value, self.input_model):
            return value
        if isinstance(value, Mapping):
            return self._validated(value)
        raise TypeValidationError(
            f"The input_map of step '{self.step_id}' returned {type(value).__name__}; "
            f"it must return {self.input_model.__name__}, or a dict that fits it."
        )

    def _validated(self, value: Mapping[Any, Any]) -> BaseModel:
        try:
            return self.input_model.model_validate(dict(value))
        except ValidationError as error:
            raise TypeValidationError(
                f"The input_map of step '{self.step_id}' returned a dict that does not fit "
                f"{self.input_model.__name__}: {reasons(error, self.input_model)}."
            ) from None

    def execute(self, inp: BaseModel, ctx: Callable[[], StepContext]) -> Coroutine[Any, Any, Any]:
        """Return the coroutine of one attempt; `ctx` is made, and given to the step, only if the step takes it."""
        return self.step.execute(inp, ctx()) if self.shape.execute_takes_ctx else self.step.execute(inp)

    def compensate(
        self, inp: BaseModel, out: BaseModel | None, ctx: Callable[[], StepContext]
    ) -> Coroutine[Any, Any, Any]:
        """Return the coroutine of one attempt to undo; `out` is None only where the step is annotated to take that."""
        takes_ctx = self.shape.compensate_takes_ctx
        return self.step.compensate(inp, out, ctx()) if takes_ctx else self.step.compensate(inp, out)

    def on_event(self, inp: BaseModel, event: Event[Any], ctx: Callable[[], StepContext]) -> Coroutine[Any, Any, Any]:
        """Return the coroutine of one attempt to go on with an event."""
        takes_ctx = self.shape.on_event_takes_ctx
        return self.step.on_event(inp, event, ctx()) if takes_ctx else self.step.on_event(inp, event)

    def probe(self, inp: BaseModel, ctx: Callable[[], StepContext]) -> Coroutine[Any, Any, Any]:
        """Return the coroutine that asks the step whether it has acted."""
        return self.step.probe(inp, ctx()) if self.shape.probe_takes_ctx else self.step.probe(inp)

    def confirm(self, inp: BaseModel, out: BaseModel, ctx: Callable[[], StepContext]) -> Coroutine[Any, Any, None]:
        """Return the coroutine of one attempt to confirm."""
        takes_ctx = self.shape.confirm_takes_ctx
        return self.step.confirm(inp, out, ctx()) if takes_ctx else self.step.confirm(inp, out)


def shape_of(step: BaseStep[Any, Any]) -> StepShape:
    """Return what the step's class promises.

    Raises:
        TypeValidationError: The class is still generic, or has no `execute`.
    """
    shape = type(step)._shape  # noqa: SLF001 - private to authors of steps, not to this module
    if shape is None:
        name = type(step).__name__
        raise TypeValidationError(
            f"Step '{name}' cannot be used yet: its class is generic, abstract or has no execute. "
            f"Write: class {name}(BaseStep[YourInput, YourOutput]) and, in it, "
            "async def execute(self, inp: YourInput) -> YourOutput."
        )
    return shape
