"""Steps that only record what they are given, so that what was decided once stays decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel

from .graph import Node, StepKind
from .step import BaseStep, StepDefinition, StepRef, make_step

ModelT = TypeVar("ModelT", bound=BaseModel)


class Records(BaseStep[ModelT, ModelT]):
    """A step whose output is its input."""

    kind = StepKind.READ_ONLY

    async def execute(self, inp: ModelT) -> ModelT:
        return inp


def recording(
    step: BaseStep[Any, Any], node: Node, depends_on: tuple[StepRef[Any], ...], input_map: Callable[..., Any]
) -> StepDefinition:
    """Return such a step at its place; there is nothing to undo."""
    reads = replace(node, kind=StepKind.READ_ONLY, nothing_to_undo=True, name=type(step).__name__)
    return StepDefinition(step_id=node.step_id, step=step, input_map=input_map, depends_on=depends_on, node=reads)


def recorded(
    name: str,
    model: type[BaseModel],
    node: Node,
    depends_on: tuple[StepRef[Any], ...],
    input_map: Callable[..., Any],
) -> StepDefinition:
    """Return such a step of a model that is known only here."""

    async def execute(self: Any, inp: Any) -> Any:
        return inp

    execute.__annotations__ |= {"inp": model, "return": model}
    return recording(make_step(name, model, model, {"execute": execute}), node, depends_on, input_map)
