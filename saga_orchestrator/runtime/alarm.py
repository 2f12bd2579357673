"""When a driver has to look at its saga again, although nobody has told it anything.

A timer of the state is due when its time comes. That of work in flight is due a little later: such work ends itself,
when it has had its time since it *began*, however slow the commit that ordered it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..kernel.draft import LONGEST
from ..kernel.events import Event, Ticked
from ..kernel.projection import timed
from ..kernel.step_status import StepStatus
from ..kernel.undo_status import Undoing

if TYPE_CHECKING:
    from .tenure import Tenure

GRACE = timedelta(seconds=5)
"""How long a step that has timed out may take to end before it is left behind."""


class Alarm:
    """Tells a driver that time has passed, when the next timer of its saga's state runs out."""

    __slots__ = ("_began", "_next", "_now", "_put", "_tenure")

    def __init__(self, tenure: Tenure, now: Callable[[], datetime], put: Callable[[Event], None]) -> None:
        self._tenure, self._now, self._put = tenure, now, put
        self._began: dict[str, tuple[StepStatus, datetime]] = {}
        self._next: asyncio.TimerHandle | None = None

    def count_from(self, step_id: str, moment: datetime) -> None:
        """Give the attempt that a step has in flight its time from now on."""
        self._began[step_id] = self._tenure.state.of(step_id), moment

    def forget(self, step_id: str) -> None:
        """Expect nothing more of what a step had in flight."""
        self._began.pop(step_id, None)

    def set(self) -> None:
        """Tell when the next timer of the state runs out, as it is now."""
        self.cancel()
        state = self._tenure.state
        dues = [at for i, status in timed(state) if (at := self._due(i, status)) is not None]
        if state.deadline is not None and not state.paused:
            dues.append(state.deadline)
        if dues:
            delay = max((min(dues) - self._now()).total_seconds(), 0.0)
            self._next = asyncio.get_running_loop().call_later(delay, self._put, Ticked())

    def cancel(self) -> None:
        """Tell nothing."""
        if self._next is not None:
            self._next.cancel()

    def spared(self, now: datetime) -> frozenset[str]:
        """Return the steps whose work in flight has not had its time yet, whatever the state says."""
        live = ((step_id, status) for step_id, status in self._tenure.state.open.items() if status.is_live)
        return frozenset(i for i, status in live if (due := self._due(i, status)) is None or due > now)

    def _due(self, step_id: str, status: StepStatus) -> datetime | None:
        """Return when a timer matters here; work in flight ends itself first, and has a moment to do so."""
        until: datetime | None = getattr(status, "until", None)
        if until is None or not status.is_live:
            return until
        attempt, began = self._began.get(step_id, (None, until))
        if attempt != status:  # what runs out of time is this attempt, not one before it
            return None
        node = self._tenure.definition.step(step_id).node
        timeout = node.compensation_timeout if isinstance(status, Undoing) else node.timeout
        return max(until, began + min(timeout or timedelta(0), LONGEST)) + GRACE
