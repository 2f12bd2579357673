"""What must hold of attempts that have failed and are not to be made again."""

from __future__ import annotations

from ..definition.graph import Graph
from .effects import Decision, Verdict
from .events import Probed, Raised
from .rewind_laws import begun_again
from .state import State
from .step_status import Probing, Retrying, Running


def what_is_refused_is_not_tried_again(graph: Graph, before: State, event: object, decision: Decision) -> bool:
    """An attempt that says that it is not to be made again is not, nor after its probe, unless a rewind begins anew."""
    if decision.verdict is not Verdict.APPLIED or not isinstance(event, Raised | Probed):
        return True
    status = before.of(event.step_id)
    is_refused = not (event.retryable if isinstance(event, Raised) else getattr(status, "retryable", True))
    if not is_refused or event.step_id in begun_again(graph, before, event, decision):
        return True
    after = decision.state.of(event.step_id)
    if isinstance(after, Probing):
        return not after.retryable
    return not isinstance(after, Running | Retrying)
