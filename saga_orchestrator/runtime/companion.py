"""The functions that make a step: each is called with what it takes of what there is, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_origin

from pydantic import BaseModel, RootModel, ValidationError

from ..definition.annotations import admits_none, mentions, name_of
from ..definition.arguments import Arguments
from ..definition.context import StepContext
from ..definition.waiting import Event, WaitFor
from ..errors import OutcomeUnknown
from .calls import settled
from .threads import in_thread

Given = Mapping[str, Any]


class Companion:
    """A function of a step, called with what it takes of what there is; a synchronous one in a thread.

    What a synchronous one returns is awaited on the event loop if it can be: a decorator may hand on a coroutine.

    Attributes:
        is_plain: It is no coroutine function, as far as one can see.

    Raises:
        TypeValidationError: It is no plain function, or an annotation cannot be resolved.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.takes = Arguments(function)
        self._function = function
        self.is_plain = not inspect.iscoroutinefunction(function)

    def check_role(self, role: str) -> None:
        """Refuse what cannot be so in its role: a confirm that waits, or an event that is none.

        Raises:
            TypeValidationError: With what to write instead.
        """
        if role == "confirm" and self.waits:
            raise self.takes.error("it is to confirm, and may return WaitFor; a confirm cannot wait")
        if role == "on_event":
            self.event_type()

    async def call(self, given: Given, ctx: StepContext) -> Any:
        arguments = self.takes.chosen(given, ctx)
        if self.is_plain:
            return await settled(await in_thread(self._function, **arguments))
        return await settled(self._function(**arguments))

    @property
    def waits(self) -> bool:
        """Whether it says that it may return a `WaitFor`."""
        return mentions(self.takes.hints.get("return"), WaitFor)

    @property
    def does_without_output(self) -> bool:
        """Whether it undoes also what nobody has learnt the outcome of."""
        return "out" not in self.takes.parameters or admits_none(self.takes.hints.get("out"))

    def event_type(self) -> Any:
        """Return what it wants its event to be.

        Raises:
            TypeValidationError: Its `event` is annotated with something else, most often with the payload's model.
        """
        hint = self.takes.hints.get("event", Any)
        if hint in (Any, Event):
            return Event[Any]
        if get_origin(hint) is not Event:
            raise self.takes.error(
                f"its argument 'event' is annotated with {name_of(hint)}, and is given an Event; "
                f"say event: Event[{name_of(hint)}]"
            )
        return hint


def as_output(model: type[BaseModel], value: Any) -> Any:
    """Return what a function returned as its step's output, or as its wait.

    Raises:
        OutcomeUnknown: It is not what was annotated; but the function has run, and may have acted.
    """
    if isinstance(value, (model, WaitFor)) or not issubclass(model, RootModel):
        return value
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise OutcomeUnknown(
            f"it returned {type(value).__name__}, not what it is annotated with; it has run"
        ) from error
