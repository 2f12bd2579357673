"""A value as a step: recorded when a saga comes to it, so that a saga keeps the value of its own day."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, RootModel

from .graph import StepKind
from .io import Payloads
from .step import BaseStep, make_step

_payloads = Payloads()


class Nothing(BaseModel):
    """The input of a step that needs none."""


def constant(step_id: str, value: Any) -> BaseStep[Nothing, Any]:
    """Return a step that returns this value, as it is now.

    Raises:
        PayloadError: It cannot be stored.
    """
    model = type(value) if isinstance(value, BaseModel) else RootModel[Any]
    output = value if isinstance(value, BaseModel) else model(value)  # type: ignore[call-arg]
    text = _payloads.dump(output, what=f"The constant '{step_id}'")

    async def execute(self: Any, inp: Nothing) -> Any:
        return _payloads.load_model(model, text)

    execute.__annotations__ |= {"return": model}
    made: BaseStep[Nothing, Any] = make_step(
        "Constant", Nothing, model, {"kind": StepKind.READ_ONLY, "execute": execute}
    )
    return made


def savepoint() -> BaseStep[Nothing, Nothing]:
    """Return a step that does nothing."""

    async def execute(self: Any, inp: Nothing) -> Nothing:
        return inp

    made: BaseStep[Nothing, Nothing] = make_step(
        "Savepoint", Nothing, Nothing, {"kind": StepKind.READ_ONLY, "execute": execute}
    )
    return made
