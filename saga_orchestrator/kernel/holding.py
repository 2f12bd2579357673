"""What holds a saga: a quarantine, a pause, or a breakpoint that it has come to. A saga that is held begins nothing."""

from __future__ import annotations

from collections.abc import Collection

from .draft import Draft
from .effects import Phase, RecordStatus
from .projection import status_of
from .status import SagaStatus

BREAKPOINT = "breakpoint"
"""What history calls a pause that a breakpoint has begun, before a colon and the step."""


def is_held(draft: Draft) -> bool:
    """Return whether nothing may move by itself.

    The pause of a saga that is over, or stuck, is over, too: nothing of it begins but by an order.
    """
    if draft.paused and _rests(status_of(draft.graph, draft.decision().state)):
        draft.paused = False
        draft.touched.extend(draft.graph.nodes)
    return draft.quarantined or draft.paused


def _rests(status: SagaStatus) -> bool:
    return status.is_terminal or status is SagaStatus.STUCK


def stops_before(draft: Draft, ready: Collection[str]) -> bool:
    """Return whether a breakpoint stands before one of the steps that are about to begin: then none of them does.

    The pause that it begins uses it up.
    """
    hit = [step_id for step_id in draft.stops if step_id in ready]
    for step_id in hit:
        draft.record(Phase.ORDER, RecordStatus.SUCCESS, f"{BREAKPOINT}:{step_id}")
    draft.stops = tuple([step_id for step_id in draft.stops if step_id not in hit])
    draft.paused = bool(hit)
    return draft.paused
