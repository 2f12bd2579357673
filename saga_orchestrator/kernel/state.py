"""What is true of one saga.

`State` keeps the steps in two maps so that the cost of a decision does not grow with the length of the saga: `open`
holds every step that is in flight, waits, or has failed; `done` holds those at rest. A step in neither is pending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from datetime import datetime

from .status import Course as Course  # noqa: PLC0414 - part of what is true of a saga, and imported from here
from .status import SagaStatus as SagaStatus  # noqa: PLC0414
from .step_status import PENDING, StepStatus
from .value import value


@value(frozen=True, slots=True)
class Rewind:
    """A saga is going back to the step `to`. `tried`: of its steps that had more than one attempt, how many."""

    to: str
    tried: Mapping[str, int] = field(default_factory=dict)


@value(frozen=True, slots=True)
class Action:
    """An action on a saga that has failed is under way: what, and who ordered it, and why.

    Attributes:
        closes: The effects of the saga are waived when the action comes off.
        again: The engine orders the action once more if it does not come off.
        lost: How many owners have vanished while it was under way.
    """

    name: str
    actor: str | None = None
    reason: str | None = None
    closes: bool = False
    again: bool = False
    lost: int = 0


@value(frozen=True, slots=True)
class State:
    """Everything that is true of one saga, save its payloads.

    Attributes:
        key: What jitter is derived from: the saga's id. Not part of the stored document.
        recorded: How many history rows this saga has; the next row's number.
        deadline: When it will be taken back, if it is not past its pivot; `overdue`: it is to be, as soon as it can.
        fans: For each fan whose items are known, how many there are.
        spent: For each step that was rewound, how many attempts it had before.
        rewind: Where it is going back to, to go forward from there.
        recoveries: How many owners it has lost in a row; `quarantined`: too many, only an operator lets it go on.
        paused: By an order: it begins nothing; `stops`: the steps before which it is to be paused.
        action: The action that is under way; until it ends, no order moves the saga.
    """

    key: str = ""
    open: Mapping[str, StepStatus] = field(default_factory=dict)
    done: Mapping[str, StepStatus] = field(default_factory=dict)
    course: Course = Course.FORWARD
    recorded: int = 0
    recoveries: int = 0
    quarantined: bool = False
    deadline: datetime | None = None
    overdue: bool = False
    fans: Mapping[str, int] = field(default_factory=dict)
    spent: Mapping[str, int] = field(default_factory=dict)
    rewind: Rewind | None = None
    paused: bool = False
    stops: tuple[str, ...] = ()
    action: Action | None = None

    def of(self, step_id: str) -> StepStatus:
        """Return this step's status; a step never heard of is pending."""
        return self.open.get(step_id) or self.done.get(step_id) or PENDING

    def all(self) -> Iterator[tuple[str, StepStatus]]:
        """Iterate over every step that has left PENDING."""
        yield from self.done.items()
        yield from self.open.items()
