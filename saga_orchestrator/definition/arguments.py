"""What a plain function takes and returns, read once from its annotations, when it is made a step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, RootModel, create_model

from ..errors import TypeValidationError
from .annotations import without
from .context import StepContext
from .waiting import WaitFor

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_SETTINGS = ConfigDict(protected_namespaces=())


class Arguments:
    """A function's arguments by name, those that are its caller's for good left out.

    Args:
        bound: The names of those.

    Raises:
        TypeValidationError: It is no plain function, or an annotation cannot be resolved.
    """

    def __init__(self, function: Callable[..., Any], bound: Collection[str] = ()) -> None:
        self.name = getattr(function, "__name__", type(function).__name__)
        if not (inspect.isfunction(function) or inspect.ismethod(function)) or _yields(function):
            raise self.error(f"{function!r} is no function, or one that yields")
        self.parameters = inspect.signature(function).parameters
        try:
            self.hints = get_type_hints(function)
        except NameError as error:
            raise self.error(f"an annotation cannot be resolved here ({error}); import it at run time") from None
        if unknown := set(bound) - self.parameters.keys():
            raise self.error(f"it takes no argument {min(unknown)!r}")
        self.contexts = [name for name in self.parameters if self.hints.get(name) is StepContext]
        self.names = [name for name in self.parameters if name not in self.contexts and name not in bound]

    @cached_property
    def input_model(self) -> type[BaseModel]:
        """The model of the step's input: the only argument, if that is one, or one made of them all.

        Raises:
            TypeValidationError: An argument is not annotated, or cannot be given by name, or be a field of a model.
        """
        for name in self.names:
            if self.parameters[name].kind not in _BY_NAME or name not in self.hints:
                raise self.error(f"its argument {name!r} is not one that has a name and an annotation")
        if self._is_one_model:
            only: type[BaseModel] = self.hints[self.names[0]]
            return only
        fields: dict[str, Any] = {name: (self.hints[name], self._default(name)) for name in self.names}
        try:
            return create_model(f"{self.name}_input", __config__=_SETTINGS, **fields)
        except Exception as error:
            raise self.error(f"of its arguments no model can be made ({error})") from error

    @cached_property
    def output_model(self) -> type[BaseModel]:
        """The model of what it returns in the end: that model itself, or one around the value.

        Raises:
            TypeValidationError: What it returns is not annotated, or no value that a model can hold.
        """
        if "return" not in self.hints:
            raise self.error("what it returns is not annotated")
        returned: Any = self._returned
        if returned is WaitFor:
            raise self.error(
                "it returns a WaitFor, and does not say what it returns in the end; say YourOutput | WaitFor"
            )
        if inspect.isclass(returned) and issubclass(returned, BaseModel):
            return returned
        try:
            return RootModel[returned]
        except Exception as error:
            raise self.error(f"what it returns cannot be stored ({error})") from error

    def of(self, inp: BaseModel) -> dict[str, Any]:
        """Return the arguments that an input stands for."""
        return {self.names[0]: inp} if self._is_one_model else {name: getattr(inp, name) for name in self.names}

    def returned(self, out: BaseModel | None) -> Any:
        """Return a step's output as this function has returned it: what a model was made around, without that."""
        is_wrapped = isinstance(out, RootModel) and self.output_model is not self._returned
        return out.root if is_wrapped else out  # type: ignore[union-attr]

    def chosen(self, given: Mapping[str, Any], ctx: StepContext) -> dict[str, Any]:
        """Return what this function takes of what there is."""
        chosen = {name: given[name] for name in self.names if name in given}
        return chosen | dict.fromkeys(self.contexts, ctx)

    def check_given(self, known: list[str]) -> None:
        """Refuse a function that takes what nobody will give it."""
        needed = [name for name in self.names if self.parameters[name].default is inspect.Parameter.empty]
        if strange := [name for name in needed if name not in known]:
            raise self.error(f"it takes {strange[0]!r}, and is given {', '.join([*known, 'a StepContext'])}")

    def error(self, problem: str, form: str | None = None) -> TypeValidationError:
        return TypeValidationError(
            f"Function '{self.name}' cannot be a step, or part of one: {problem}. "
            f"Write: {form or f'def {self.name}(order_id: str) -> YourOutput'}."
        )

    @property
    def _returned(self) -> Any:
        return without(self.hints["return"], WaitFor)

    @property
    def _is_one_model(self) -> bool:
        hint = self.hints.get(self.names[0]) if len(self.names) == 1 else None
        return inspect.isclass(hint) and issubclass(hint, BaseModel)

    def _default(self, name: str) -> Any:
        default = self.parameters[name].default
        return ... if default is inspect.Parameter.empty else default


def _yields(function: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
