"""What an `input_map` is called with, the same whether its saga is live or was restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..definition.fans import item_id
from ..definition.io import Payloads
from ..definition.step import StepDefinition
from .recorded import RecordedContext

if TYPE_CHECKING:
    from .tenure import Tenure


def arguments(step: StepDefinition, tenure: Tenure, payloads: Payloads) -> list[Any]:
    """Return the outputs that the step depends on, its item, all that its fan came to, or an `InputContext`."""
    past = tenure.known_past
    if step.item is not None:
        first, index = step.item
        return [payloads.load_item(step.input_model, past.output(first), index)]
    if step.gathers is not None:
        ids = [item_id(step.gathers, index) for index in range(tenure.state.fans[step.gathers])]
        return [payloads.load_list(step.input_model, map(past.outputs.get, ids))]
    if step.depends_on:
        return [payloads.load_model(ref.output_model, past.output(ref.step_id)) for ref in step.depends_on]
    return [RecordedContext(tenure, payloads, step.scope)]
