"""A saga inside a saga: its steps become the outer saga's, in a namespace of their own.

There is no second engine for the part, and no second row. The part begins with a step of its own, named like the
namespace, whose recorded output is what the part's steps see as their `initial_data`; so what they are given is
decided once. Its steps keep their order, retries, compensations and probes, and see only each other's outputs; the
outer steps see one, the part's last. What it has to confirm is confirmed when the whole saga is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import RootModel

from ..errors import SagaDefinitionError
from .awaited import then
from .graph import Node
from .recording import Records, recording
from .saga import SagaDefinition
from .step import StepDefinition, StepRef


class SagaInput(RootModel[Any]):
    """What a part is started with: plain data, or a model."""

    __holds_plain_data__: ClassVar[bool] = True


class SagaBegins(Records[SagaInput]):
    """The first step of a part: it records what the part is given."""


def steps_of(
    part: SagaDefinition,
    first: Node,
    depends_on: tuple[StepRef[Any], ...],
    input_map: Callable[..., Any],
    owner: object,
) -> list[StepDefinition]:
    """Return the part's steps as steps of the saga around it; what holds of the first one's branches holds of all.

    Raises:
        SagaDefinitionError: The part does not end with a single step.
    """
    begins = recording(SagaBegins(), first, depends_on, lambda *given: then(input_map(*given), SagaInput))
    last = f"{first.step_id}.{_last(first.step_id, part).step_id}"
    return [replace(begins, stands_for=last), *(_moved(step, first, owner) for step in part.written)]


def _moved(step: StepDefinition, first: Node, owner: object) -> StepDefinition:
    def named(step_id: str) -> str:
        return f"{first.step_id}.{step_id}"

    branches = tuple((named(choice), label) for choice, label in step.node.branches)
    node = replace(
        step.node,
        step_id=named(step.step_id),
        after=tuple(map(named, step.node.after)) or (first.step_id,),
        branches=first.branches + branches,
    )
    each = None if step.each is None else _moved(step.each, first, owner)
    return replace(
        step,
        step_id=node.step_id,
        depends_on=tuple(StepRef(named(ref.step_id), ref.output_model, owner) for ref in step.depends_on),
        node=node,
        scope=first.step_id if step.scope is None else named(step.scope),
        stands_for=None if step.stands_for is None else named(step.stands_for),
        fan=None if step.fan is None or each is None else replace(step.fan, item=each.node, end=named(step.fan.end)),
        each=each,
        gathers=None if step.gathers is None else named(step.gathers),
    )


def _last(namespace: str, part: SagaDefinition) -> StepDefinition:
    before = {step_id for step in part.written for step_id in step.node.after}
    last = [step for step in part.written if step.step_id not in before]
    if len(last) != 1:
        names = ", ".join(f"'{step.step_id}'" for step in last)
        raise SagaDefinitionError(
            f"Saga '{namespace}' ends with {len(last)} steps side by side ({names}), and a part has one output. "
            "Add a step that comes after them."
        )
    return last[0]
