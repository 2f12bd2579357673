"""What is true of one saga: one class per step status, each carrying exactly the facts that the status has.

`State` keeps the steps in two maps so that the cost of a decision does not grow with the length of the saga: `open`
holds every step that is in flight, waits, or has failed; `done` holds those at rest. A step in neither is pending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from datetime import datetime
from typing import ClassVar

from .status import Course as Course  # noqa: PLC0414 - part of what is true of a saga, and imported from here
from .status import SagaStatus as SagaStatus  # noqa: PLC0414
from .value import value


@value(frozen=True, slots=True)
class StepStatus:
    """The base of all step statuses. `is_open`: not at rest. `is_live`: work is in flight for it."""

    is_open: ClassVar[bool] = False
    is_live: ClassVar[bool] = False


@value(frozen=True, slots=True)
class Pending(StepStatus):
    """It has not started."""


@value(frozen=True, slots=True)
class Running(StepStatus):
    """An attempt is in flight. `failures` counts the attempts that failed; `tainted`: an earlier one may have acted."""

    is_open: ClassVar[bool] = True
    is_live: ClassVar[bool] = True
    attempt: int = 1
    failures: int = 0
    until: datetime | None = None
    tainted: bool = False


@value(frozen=True, slots=True)
class Probing(StepStatus):
    """An attempt is in doubt, and the step is being asked whether it acted.

    `retryable` is what the attempt's error said; `lost`: no error said anything, the attempt was lost with its worker.
    """

    is_open: ClassVar[bool] = True
    is_live: ClassVar[bool] = True
    attempt: int = 1
    failures: int = 0
    until: datetime | None = None
    retryable: bool = True
    lost: bool = False


@value(frozen=True, slots=True)
class Retrying(StepStatus):
    """The last attempt failed; the next starts at `until`."""

    is_open: ClassVar[bool] = True
    attempt: int = 1
    failures: int = 1
    until: datetime | None = None
    tainted: bool = False


@value(frozen=True, slots=True)
class Failed(StepStatus):
    """It has failed for good. `tainted`: some attempt may have acted all the same."""

    is_open: ClassVar[bool] = True
    attempt: int = 1
    tainted: bool = False


@value(frozen=True, slots=True)
class Succeeded(StepStatus):
    """It acted, and its output is in the history."""

    attempt: int = 1


@value(frozen=True, slots=True)
class Skipped(StepStatus):
    """An operator passed over it. `acted`: he gave its output, because it was done by hand."""

    acted: bool = False


@value(frozen=True, slots=True)
class Undoing(StepStatus):
    """Its compensation is in flight. `with_output`: what the step returned is known."""

    is_open: ClassVar[bool] = True
    is_live: ClassVar[bool] = True
    attempt: int = 1
    failures: int = 0
    until: datetime | None = None
    with_output: bool = True


@value(frozen=True, slots=True)
class UndoRetrying(StepStatus):
    """Its compensation failed; the next attempt starts at `until`."""

    is_open: ClassVar[bool] = True
    attempt: int = 1
    failures: int = 1
    until: datetime | None = None
    with_output: bool = True


@value(frozen=True, slots=True)
class UndoFailed(StepStatus):
    """Its effect stands, or may, and no undo came off. `attempt` 0: none was possible; `again`: one more is ordered."""

    is_open: ClassVar[bool] = True
    attempt: int = 0
    with_output: bool = True
    again: bool = False


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
SUCCEEDED = Succeeded()
"""As most steps of most sagas do: at the first attempt."""


@value(frozen=True, slots=True)
class State:
    """Everything that is true of one saga, save its payloads.

    Attributes:
        key: What jitter is derived from: the saga's id. Not part of the stored document.
        recorded: How many history rows this saga has; the next row's number.
        recoveries: How many owners it has lost in a row; `quarantined`: too many, only an operator lets it go on.
    """

    key: str = ""
    open: Mapping[str, StepStatus] = field(default_factory=dict)
    done: Mapping[str, StepStatus] = field(default_factory=dict)
    course: Course = Course.FORWARD
    recorded: int = 0
    recoveries: int = 0
    quarantined: bool = False

    def of(self, step_id: str) -> StepStatus:
        """Return this step's status; a step never heard of is pending."""
        return self.open.get(step_id) or self.done.get(step_id) or PENDING

    def all(self) -> Iterator[tuple[str, StepStatus]]:
        """Iterate over every step that has left PENDING."""
        yield from self.done.items()
        yield from self.open.items()
