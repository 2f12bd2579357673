"""Steps that only wait: for an event, or for a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from pydantic import AwareDatetime, BaseModel, RootModel

from ..errors import SagaDefinitionError
from .awaited import then
from .constant import Nothing
from .graph import StepKind
from .step import BaseStep, make_step
from .waiting import Event, WaitFor

FAIL: Any = object()
"""No output is right when nothing comes: the step fails."""


class Awaited(BaseModel):
    """What an event is awaited by."""

    correlation_id: str | None = None


class Due(BaseModel):
    """When a timer is to go off."""

    until: AwareDatetime | None = None


def event_step(types: tuple[str, ...], model: type[BaseModel] | None, timeout: timedelta | None, default: Any) -> Any:
    """Return a step that waits for an event, and whose output is the event's payload.

    Raises:
        SagaDefinitionError: The wait makes no sense.
    """
    output: type[BaseModel] = model or RootModel[Any]
    if not types:
        raise SagaDefinitionError("add_event needs the type of an event.")
    if default is not FAIL and timeout is None:
        raise SagaDefinitionError("add_event: default is what comes after a timeout; give it a timeout, too.")
    on_timeout: Any = "fail" if default is FAIL else "resume"
    wait = WaitFor(*types, timeout=timeout, on_timeout=on_timeout)

    async def execute(self: Any, inp: Awaited) -> Any:
        return WaitFor(*types, correlation_id=inp.correlation_id, timeout=timeout, on_timeout=wait.on_timeout)

    async def on_event(self: Any, inp: Awaited, event: Any) -> Any:
        value = default if event.timed_out else event.payload
        return value if isinstance(value, output) else output.model_validate(value)

    execute.__annotations__ |= {"return": output | WaitFor}
    on_event.__annotations__ |= {"event": Event[output] if model else Event[Any]}  # type: ignore[valid-type]
    return make_step("AwaitEvent", Awaited, output, _reading(execute, on_event))


def timer_step(delay: timedelta | None) -> BaseStep[Due, Nothing]:
    """Return a step that waits for a time: this long, or until the moment that its input says."""

    async def execute(self: Any, inp: Due) -> Nothing | WaitFor:
        return WaitFor(timeout=delay, until=inp.until)

    async def on_event(self: Any, inp: Due, event: Event[Any]) -> Nothing:
        return Nothing()

    step: BaseStep[Due, Nothing] = make_step("Timer", Due, Nothing, _reading(execute, on_event))
    return step


def correlated(correlation: Callable[..., str] | None) -> Callable[..., Any]:
    """Return the `input_map` of a step that waits for an event of this correlation."""
    if correlation is None:
        return lambda *_: Awaited()
    return lambda *given: then(correlation(*given), lambda said: Awaited(correlation_id=said))


def due(until: datetime | Callable[..., datetime] | None) -> Callable[..., Any]:
    """Return the `input_map` of a step that waits until a moment."""
    if callable(until):
        return lambda *given: then(until(*given), lambda said: Due(until=said))
    return lambda *_: Due(until=until)


def _reading(execute: Any, on_event: Any) -> dict[str, Any]:
    return {"kind": StepKind.READ_ONLY, "execute": execute, "on_event": on_event}
