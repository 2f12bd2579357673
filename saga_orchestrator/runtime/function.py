"""Steps written as plain functions, where a class would say no more.

The arguments that are not a `StepContext` become the step's input; what is annotated as returned becomes its output. A
function that takes one Pydantic model is called with that; of other arguments a model is made, and `input_map` may
return a dict that fits it. An output that is no model is wrapped in a `RootModel`: the next step finds it in `.root`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar, overload

from pydantic import BaseModel, RootModel, ValidationError

from ..definition.annotations import admits_none
from ..definition.arguments import Arguments
from ..definition.graph import StepKind
from ..definition.step import BaseStep, StepContext, StepSource, make_step
from ..errors import OutcomeUnknown, SagaDefinitionError

ModelT = TypeVar("ModelT", bound=BaseModel)
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
Given = Mapping[str, Any]


@overload
def step(function: Callable[..., Coroutine[Any, Any, ModelT]], /) -> FunctionStep[ModelT]: ...


@overload
def step(function: Callable[..., ModelT], /) -> FunctionStep[ModelT]: ...


@overload
def step(function: Callable[..., Any], /) -> FunctionStep[Any]: ...


@overload
def step(*, kind: StepKind = ...) -> Callable[[Callable[..., Any]], FunctionStep[Any]]: ...


def step(function: Any = None, /, *, kind: StepKind = StepKind.COMPENSATABLE) -> Any:
    """Make a step of a function, synchronous or not; use it as a decorator, and give the result to `add_step`.

    A synchronous function runs in a thread, and the event loop goes on. A timeout, or a shutdown, leaves it to itself:
    then the step is in doubt.

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
        self._undo: _Companion | None = None
        self._question: _Companion | None = None
        self._last_word: _Companion | None = None
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
        another._undo, another._question, another._last_word = self._undo, self._question, self._last_word
        return another

    def compensate(self, undo: FunctionT) -> FunctionT:
        """Say how the step is undone; a decorator.

        The function may take any of the step's arguments by their names, `out` for what the step returned, and a
        `StepContext`. Without `out`, or with `out: X | None`, it undoes also what nobody has learnt the outcome of.

        Raises:
            TypeValidationError: It takes something else.
            SagaDefinitionError: The step is part of a saga already, which would not know of it.
        """
        self._undo = self._companion(undo, "out")
        return undo

    def probe(self, question: FunctionT) -> FunctionT:
        """Say how to find out whether an attempt in doubt has acted; a decorator.

        The function takes what the step takes, returns what the step would have, or None if it surely has not acted
        and never will, and raises `OutcomeUnknown` if that cannot be told.

        Raises:
            TypeValidationError: It takes something else.
            SagaDefinitionError: The step is part of a saga already, which would not know of it.
        """
        self._question = self._companion(question)
        return question

    def confirm(self, last_word: FunctionT) -> FunctionT:
        """Say what makes the step final once all steps of the saga have succeeded; a decorator.

        The function may take any of the step's arguments by their names, `out` for what the step returned, and a
        `StepContext`.

        Raises:
            TypeValidationError: It takes something else.
            SagaDefinitionError: The step is part of a saga already, which would not know of it.
        """
        self._last_word = self._companion(last_word, "out")
        return last_word

    def to_step(self) -> BaseStep[Any, ModelT]:
        """Return the step."""
        self._is_used = True
        methods: dict[str, Any] = {"kind": self._kind, "execute": self._execute()}
        if self._undo is not None:
            methods["compensate"] = self._compensate(self._undo)
        if self._question is not None:
            methods["probe"] = self._probe(self._question)
        if self._last_word is not None:
            methods["confirm"] = self._confirm(self._last_word)
        made: BaseStep[Any, ModelT] = make_step(self._takes.name, self.input_model, self.output_model, methods)
        return made

    def _companion(self, function: Callable[..., Any], *more: str) -> _Companion:
        if self._is_used:
            raise SagaDefinitionError(
                f"Step '{self._takes.name}' is part of a saga already; decorate {function!r} before add_step."
            )
        companion = _Companion(function)
        companion.takes.check_given([*self._takes.parameters, *more])
        return companion

    def _execute(self) -> Any:
        own, model = _Companion(self._function), self.output_model

        async def execute(self_: Any, inp: BaseModel, ctx: StepContext) -> Any:
            return _as_output(model, await own.call(self._given(inp), ctx))

        execute.__annotations__ |= {"inp": self.input_model, "return": model}
        return execute

    def _compensate(self, undo: _Companion) -> Any:
        async def compensate(self_: Any, inp: BaseModel, out: BaseModel | None, ctx: StepContext) -> None:
            value = out.root if isinstance(out, RootModel) else out
            await undo.call({**self._given(inp), "out": value}, ctx)

        takes_none = "out" not in undo.takes.parameters or admits_none(undo.takes.hints.get("out"))
        out_type = self.output_model | None if takes_none else self.output_model
        compensate.__annotations__ |= {"inp": self.input_model, "out": out_type}
        return compensate

    def _confirm(self, last_word: _Companion) -> Any:
        async def confirm(self_: Any, inp: BaseModel, out: BaseModel, ctx: StepContext) -> None:
            value = out.root if isinstance(out, RootModel) else out
            await last_word.call({**self._given(inp), "out": value}, ctx)

        confirm.__annotations__ |= {"inp": self.input_model, "out": self.output_model}
        return confirm

    def _probe(self, question: _Companion) -> Any:
        model = self.output_model

        async def probe(self_: Any, inp: BaseModel, ctx: StepContext) -> Any:
            found = await question.call(self._given(inp), ctx)
            return None if found is None else _as_output(model, found)

        probe.__annotations__ |= {"inp": self.input_model, "return": model | None}
        return probe

    def _given(self, inp: BaseModel) -> Given:
        return {**self._bound, **self._takes.of(inp)}


class _Companion:
    """A function of a step, called with what it takes of what there is; a synchronous one in a thread."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.takes = Arguments(function)
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)

    async def call(self, given: Given, ctx: StepContext) -> Any:
        arguments = self.takes.chosen(given, ctx)
        if self._is_async:
            return await self._function(**arguments)
        return await asyncio.to_thread(self._function, **arguments)


def _as_output(model: type[BaseModel], value: Any) -> Any:
    """Return what a function returned as its step's output.

    Raises:
        OutcomeUnknown: It is not what was annotated; but the function has run, and may have acted.
    """
    if isinstance(value, model) or not issubclass(model, RootModel):
        return value
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise OutcomeUnknown(
            f"it returned {type(value).__name__}, not what it is annotated with; it has run"
        ) from error
