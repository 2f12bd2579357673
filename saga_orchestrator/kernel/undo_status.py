"""Where a step stands on its way back: the statuses of its undoing, and of what needs none."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from .step_status import Live, Open, StepStatus, Wait
from .value import value


@value(frozen=True, slots=True)
class Undoing(Live):
    """Its compensation is in flight. `with_output`: what the step returned is known; `heard`: as of `Running`."""

    attempt: int = 1
    failures: int = 0
    until: datetime | None = None
    with_output: bool = True
    heard: int = 0


@value(frozen=True, slots=True)
class UndoRetrying(Open):
    """Its compensation failed; the next attempt starts at `until`."""

    attempt: int = 1
    failures: int = 1
    until: datetime | None = None
    with_output: bool = True
    heard: int = 0


@value(frozen=True, slots=True)
class UndoAsking(Wait):
    """Its compensation has asked for an event, and whether that has come already is being looked up."""

    is_live: ClassVar[bool] = True
    limit: datetime | None = None
    with_output: bool = True


@value(frozen=True, slots=True)
class UndoWaiting(Wait):
    """Its compensation waits for an event, as a step does that is `Waiting`."""

    until: datetime | None = None
    with_output: bool = True


@value(frozen=True, slots=True)
class UndoFailed(Open):
    """Its effect stands, or may, and no undo came off. `attempt` 0: none was possible; `again`: one more is ordered."""

    attempt: int = 0
    with_output: bool = True
    again: bool = False
    heard: int = 0


@value(frozen=True, slots=True)
class Undone(StepStatus):
    """Its compensation returned. `with_output` False: what the step returned was never learnt."""

    attempt: int = 1
    with_output: bool = True


@value(frozen=True, slots=True)
class Passed(StepStatus):
    """The rollback went past it: there was nothing to undo. `attempt` 0: it had been skipped, and `acted` or not."""

    attempt: int = 1
    acted: bool = True


@value(frozen=True, slots=True)
class Waived(StepStatus):
    """A named operator took it on himself: its effect need not be undone."""
