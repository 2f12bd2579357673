"""Where one step stands: one class per status, each carrying exactly the facts that the status has."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from .value import value


@value(frozen=True, slots=True)
class StepStatus:
    """The base of all step statuses. `is_open`: not at rest. `is_live`: work is in flight for it."""

    is_open: ClassVar[bool] = False
    is_live: ClassVar[bool] = False


class _Open(StepStatus):
    __slots__ = ()
    is_open = True


class _Live(_Open):
    __slots__ = ()
    is_live = True


@value(frozen=True, slots=True)
class Wait(_Open):
    """The base of all waits for an event of one of the `types`, or only for a time; `heard` counts those given before.

    `correlation`: only events of this one are for it. `resumes`: when the time is up it goes on, instead of failing.
    """

    attempt: int = 1
    heard: int = 0
    types: tuple[str, ...] = ()
    correlation: str | None = None
    resumes: bool = False


@value(frozen=True, slots=True)
class Pending(StepStatus):
    """It has not started."""


@value(frozen=True, slots=True)
class Running(_Live):
    """An attempt is in flight. `tainted`: an earlier one may have acted. `heard`: it goes on with the last event."""

    attempt: int = 1
    failures: int = 0
    until: datetime | None = None
    tainted: bool = False
    heard: int = 0


@value(frozen=True, slots=True)
class Probing(_Live):
    """An attempt is in doubt, and the step is asked whether it acted. `lost`: with its worker, not by an error."""

    attempt: int = 1
    failures: int = 0
    until: datetime | None = None
    retryable: bool = True
    lost: bool = False
    heard: int = 0


@value(frozen=True, slots=True)
class Retrying(_Open):
    """The last attempt failed; the next starts at `until`."""

    attempt: int = 1
    failures: int = 1
    until: datetime | None = None
    tainted: bool = False
    heard: int = 0


@value(frozen=True, slots=True)
class Asking(Wait):
    """It has asked for an event, and whether that has come already is being looked up. `limit`: see `Waiting`."""

    is_live: ClassVar[bool] = True
    limit: datetime | None = None
    tainted: bool = False


@value(frozen=True, slots=True)
class Waiting(Wait):
    """It waits, at most until `until`. `tainted`: it may have acted, by asking."""

    until: datetime | None = None
    tainted: bool = False


@value(frozen=True, slots=True)
class Failed(_Open):
    """It has failed for good. `tainted`: some attempt may have acted all the same."""

    attempt: int = 1
    tainted: bool = False
    heard: int = 0


@value(frozen=True, slots=True)
class Succeeded(StepStatus):
    """It acted, and its output is in the history."""

    attempt: int = 1


@value(frozen=True, slots=True)
class Skipped(StepStatus):
    """An operator passed over it. `acted`: he gave its output, because it was done by hand."""

    acted: bool = False


@value(frozen=True, slots=True)
class Undoing(_Live):
    """Its compensation is in flight. `with_output`: what the step returned is known; `heard`: as of `Running`."""

    attempt: int = 1
    failures: int = 0
    until: datetime | None = None
    with_output: bool = True
    heard: int = 0


@value(frozen=True, slots=True)
class UndoRetrying(_Open):
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
class UndoFailed(_Open):
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


@value(frozen=True, slots=True)
class Omitted(StepStatus):
    """It belongs to a branch that was not chosen, and never ran."""


PENDING, OMITTED = Pending(), Omitted()
RUNNING, SUCCEEDED = Running(), Succeeded()
"""As most steps of most sagas are: at the first attempt, without a limit."""
