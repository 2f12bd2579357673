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


class Open(StepStatus):
    """The base of all statuses of steps that are not at rest."""

    __slots__ = ()
    is_open = True


class Live(Open):
    """The base of all statuses of steps with work in flight."""

    __slots__ = ()
    is_live = True


@value(frozen=True, slots=True)
class Wait(Open):
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
class Running(Live):
    """An attempt is in flight. `tainted`: an earlier one may have acted. `heard`: it goes on with the last event."""

    attempt: int = 1
    failures: int = 0
    until: datetime | None = None
    tainted: bool = False
    heard: int = 0


@value(frozen=True, slots=True)
class Probing(Live):
    """An attempt is in doubt, and the step is asked whether it acted. `lost`: with its worker, not by an error."""

    attempt: int = 1
    failures: int = 0
    until: datetime | None = None
    retryable: bool = True
    lost: bool = False
    heard: int = 0


@value(frozen=True, slots=True)
class Retrying(Open):
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
class Failed(Open):
    """It has failed for good. `tainted`: some attempt may have acted all the same."""

    attempt: int = 1
    tainted: bool = False
    heard: int = 0


@value(frozen=True, slots=True)
class Missed(Failed):
    """It has failed for good, as one of the items of a fan that tolerates it."""

    is_open: ClassVar[bool] = False


@value(frozen=True, slots=True)
class Succeeded(StepStatus):
    """It acted, and its output is in the history."""

    attempt: int = 1


@value(frozen=True, slots=True)
class Skipped(StepStatus):
    """An operator passed over it. `acted`: he gave its output, because it was done by hand."""

    acted: bool = False


@value(frozen=True, slots=True)
class Omitted(StepStatus):
    """It belongs to a branch that was not chosen, and never ran."""


PENDING, OMITTED = Pending(), Omitted()
SUCCEEDED = Succeeded()
"""As most steps of most sagas do: at the first attempt."""
