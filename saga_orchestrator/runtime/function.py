"""Steps written as plain functions, where a class would say no more.

The arguments that are not a `StepContext` become the step's input; what is annotated as returned becomes its output. A
function that takes one Pydantic model is called with that; of other arguments a model is made, and `input_map` may
return a dict that fits it. An output that is no model is wrapped in a `RootModel`: the next step finds it in `.root`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, overload

from pydantic import BaseModel

from ..definition.arguments import Arguments
from ..definition.awaited import check_run
from ..definition.context import StepContext
from ..definition.graph import StepKind
from ..definition.step import BaseStep, StepSource, make_step
from ..definition.waiting import Event, WaitFor
from ..errors import SagaDefinitionError
from .companion import Companion, Given, as_output

ModelT = TypeVar("ModelT", bound=BaseModel)
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@overload
def step(function: Callable[..., Coroutine[Any, Any, ModelT | WaitFor]], /) -> FunctionStep[ModelT]: ...


@overload
def step(function: Callable[..., ModelT | WaitFor], /) -> FunctionStep[ModelT]: ...


@overload
def step(function: Callable[..., Any], /) -> FunctionStep[Any]: ...


@overload
def step(*, kind: StepKind = ...) -> Callable[[Callable[..., Any]], FunctionStep[Any]]: ...


def step(function: Any = None, /, *, kind: StepKind = StepKind.COMPENSATABLE) -> Any:
    """Make a step of a function, synchronous or not; use it as a decorator, and give the result to `add_step`.

    A synchronous function runs in a thread of the orchestrator's (see its `threads=`), and the event loop goes on. What
    it returns is awaited if it can be. A timeout, or a shutdown, leaves it to itself: then the step is in doubt.

    Args:
        kind: What its effect means for the way back.

    Raises:
        TypeValidationError: An argument or what is returned is not annotated, or cannot be stored.
    """
    return partial(FunctionStep, kind=kind) if function is None else FunctionStep(function, kind)


class FunctionStep(StepSource[ModelT]):
    """A function that can be a step of a saga, and can still be called as it is. Made by `step`.

    Attributes:
        input_model: The model of its arguments: what `input_map` returns, or a dict that fits it.
        output_model: The model of what it returns.
    """

    def __init__(
        self, function: Callable[..., Any], kind: StepKind = StepKind.COMPENSATABLE, bound: Given | None = None
    ) -> None:
        self._function, self._kind, self._bound = function, kind, dict(bound or {})
        self._takes = Arguments(function, self._bound)
        self.input_model, self.output_model = self._takes.input_model, self._takes.output_model
        self._companions: dict[str, Companion] = {}
        self._inherited: set[str] = set()
        """The roles that come from the step that this one was bound of: each may be given another function, once."""
        self._is_used = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self._function(*args, **{**self._bound, **kwargs})

    def bind(self, **arguments: Any) -> FunctionStep[ModelT]:
        """Return another step of the same function, with some arguments given for good; these are not recorded.

        Raises:
            TypeValidationError: The function does not take one of them.
        """
        another = FunctionStep[ModelT](self._function, self._kind, {**self._bound, **arguments})
        another._companions = dict(self._companions)
        another._inherited = set(self._companions)
        return another

    def compensate(self, undo: FunctionT) -> FunctionT:
        """Say how the step is undone; a decorator.

        The function may take any of the step's arguments by their names, `out` for what the step returned, and a
        `StepContext`. Without `out`, or with `out: X | None`, it undoes also what nobody has learnt the outcome of. It
        may return a `WaitFor`, and go on in `on_event`.

        Raises:
            TypeValidationError: It takes something else.
            SagaDefinitionError: The step is part of a saga already, which would not know of it.
        """
        self._add("compensate", undo, "out")
        return undo

    def probe(self, question: FunctionT) -> FunctionT:
        """Say how to find out whether an attempt in doubt has acted; a decorator.

        The function takes what the step takes, returns what the step would have, or None if it surely has not acted
        and never will, and raises `OutcomeUnknown` if that cannot be told.

        Raises:
            TypeValidationError: It takes something else.
            SagaDefinitionError: The step is part of a saga already, which would not know of it.
        """
        self._add("probe", question)
        return question

    def on_event(self, continuation: FunctionT) -> FunctionT:
        """Say how the step goes on with the event that it has waited for; a decorator.

        The function may take any of the step's arguments by their names, `event`, and a `StepContext`, whose `phase`
        says whether the step or its undo has asked. It returns what that would, or another `WaitFor`. Annotate
        `event: Event[YourModel]` to have its payload checked when it comes: one that does not fit is refused, and the
        wait goes on.

        Raises:
            TypeValidationError: It takes something else.
            SagaDefinitionError: The step is part of a saga already, which would not know of it.
        """
        if "event" in self._takes.parameters:
            raise self._takes.error("its argument 'event' has the name of what on_event is given; call it otherwise")
        self._add("on_event", continuation, "event")
        return continuation

    def confirm(self, last_word: FunctionT) -> FunctionT:
        """Say what makes the step final once all steps of the saga have succeeded; a decorator.

        The function may take any of the step's arguments by their names, `out` for what the step returned, and a
        `StepContext`. It cannot wait.

        Raises:
            TypeValidationError: It takes something else, or may return a `WaitFor`.
            SagaDefinitionError: The step is part of a saga already, which would not know of it.
        """
        self._add("confirm", last_word, "out")
        return last_word

    def to_step(self) -> BaseStep[Any, ModelT]:
        """Return the step.

        Raises:
            TypeValidationError: It, or its undo, may return a `WaitFor`, and there is no `on_event` to go on in.
        """
        own = Companion(self._function)
        self._check_waits(own)
        self._is_used = True
        makers = {
            "compensate": self._compensate,
            "probe": self._probe,
            "on_event": self._on_event,
            "confirm": self._confirm,
        }
        methods = {role: makers[role](function) for role, function in self._companions.items()}
        plain = {role for role, function in {**self._companions, "execute": own}.items() if function.is_plain}
        members = {"kind": self._kind, "execute": self._execute(own), **methods, "_plain": frozenset(plain)}
        made: BaseStep[Any, ModelT] = make_step(self._takes.name, self.input_model, self.output_model, members)
        return made

    def _add(self, role: str, function: Callable[..., Any], *more: str) -> None:
        if self._is_used:
            raise SagaDefinitionError(
                f"Step '{self._takes.name}' is part of a saga already; decorate {function!r} before add_step."
            )
        if role in self._companions and role not in self._inherited:
            raise SagaDefinitionError(
                f"Step '{self._takes.name}' has a {role} already, and {function!r} would silently take its place. "
                "Keep one of the two."
            )
        companion = Companion(function)
        companion.takes.check_given([*self._takes.parameters, *more])
        companion.check_role(role)
        self._companions[role] = companion
        self._inherited.discard(role)

    def _check_waits(self, own: Companion) -> None:
        if "on_event" in self._companions:
            return
        for function in (own, self._companions.get("compensate")):
            if function is not None and function.waits:
                raise function.takes.error(
                    "it may return WaitFor, but there is no on_event to go on in",
                    f"@{self._takes.name}.on_event, and below it: def go_on(event: Event) -> YourOutput",
                )

    def _execute(self, own: Companion) -> Any:
        model = self.output_model

        async def execute(self_: Any, inp: BaseModel, ctx: StepContext) -> Any:
            return as_output(model, await own.call(self._given(inp), ctx))

        execute.__annotations__ |= {"inp": self.input_model, "return": model}
        return execute

    def _compensate(self, undo: Companion) -> Any:
        async def compensate(self_: Any, inp: BaseModel, out: BaseModel | None, ctx: StepContext) -> Any:
            return await undo.call({**self._given(inp), "out": self._takes.returned(out)}, ctx)

        out_type = self.output_model | None if undo.does_without_output else self.output_model
        compensate.__annotations__ |= {"inp": self.input_model, "out": out_type}
        return compensate

    def _on_event(self, continuation: Companion) -> Any:
        model = self.output_model

        async def on_event(self_: Any, inp: BaseModel, event: Event[Any], ctx: StepContext) -> Any:
            answer = await continuation.call({**self._given(inp), "event": event}, ctx)
            return answer if ctx.phase == "compensate" else as_output(model, answer)

        on_event.__annotations__ |= {"inp": self.input_model, "event": continuation.event_type()}
        return on_event

    def _confirm(self, last_word: Companion) -> Any:
        async def confirm(self_: Any, inp: BaseModel, out: BaseModel, ctx: StepContext) -> None:
            check_run(await last_word.call({**self._given(inp), "out": self._takes.returned(out)}, ctx))

        confirm.__annotations__ |= {"inp": self.input_model, "out": self.output_model}
        return confirm

    def _probe(self, question: Companion) -> Any:
        model = self.output_model

        async def probe(self_: Any, inp: BaseModel, ctx: StepContext) -> Any:
            found = await question.call(self._given(inp), ctx)
            return None if found is None else as_output(model, found)

        probe.__annotations__ |= {"inp": self.input_model, "return": model | None}
        return probe

    def _given(self, inp: BaseModel) -> Given:
        return {**self._bound, **self._takes.of(inp)}
