"""Everything that can happen to a saga. An event says what happened, never what follows from it."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from .order_events import Order
from .value import value


@value(frozen=True, slots=True)
class Claimed:
    """A new owner has taken the saga. `crashed`: the one before it vanished without letting go."""

    crashed: bool = False


@value(frozen=True, slots=True)
class Ticked:
    """Time has passed: whatever is due, is due.

    `spared`: attempts that began late, because the commit that ordered them was slow, and still have time.
    """

    spared: frozenset[str] = frozenset()


@value(frozen=True, slots=True)
class Notified:
    """Somebody says that waiting for a retry is no longer necessary. `payload` is kept for the step to read."""

    payload: str | None = None


@value(frozen=True, slots=True)
class Returned:
    """An attempt returned: the step has acted. `chosen`: of a choice, the branch to take; None takes none.

    `items`: of the first step of a fan, how many there are.
    """

    step_id: str
    attempt: int
    input: str | None = None
    output: str | None = None
    started_at: datetime | None = None
    chosen: str | None = None
    items: int | None = None


@value(frozen=True, slots=True)
class Asked:
    """An attempt, or a compensation, has asked and waits, for an event of one of the `types` or only for a time.

    `output`: what it waits for, for people to read. `resumes`: when the time is up it goes on. `acted`: a part of the
    step is done already.
    """

    step_id: str
    attempt: int
    types: tuple[str, ...] = ()
    correlation: str | None = None
    timeout: timedelta | None = None
    until: datetime | None = None
    resumes: bool = False
    input: str | None = None
    output: str | None = None
    started_at: datetime | None = None
    acted: bool = False


@value(frozen=True, slots=True)
class Collected:
    """What a step has asked for had not come before the question."""

    step_id: str
    attempt: int


@value(frozen=True, slots=True)
class Signalled:
    """An event has come from outside, for the wait that it fits, or for that of one step."""

    type: str
    correlation: str | None = None
    content: str | None = None
    step_id: str | None = None


@value(frozen=True, slots=True)
class Raised:
    """An attempt failed. `in_doubt`: it may have acted all the same. `delay`: the pause that the error asked for."""

    step_id: str
    attempt: int
    error: str = ""
    retryable: bool = True
    in_doubt: bool = False
    delay: timedelta | None = None
    input: str | None = None
    started_at: datetime | None = None


class ProbeOutcome(StrEnum):
    """What a probe found out."""

    DONE = "DONE"
    NOT_DONE = "NOT_DONE"
    UNKNOWN = "UNKNOWN"


@value(frozen=True, slots=True)
class Probed:
    """A probe answered for an attempt in doubt."""

    step_id: str
    attempt: int
    outcome: ProbeOutcome
    input: str | None = None
    output: str | None = None
    error: str | None = None
    started_at: datetime | None = None


@value(frozen=True, slots=True)
class Compensated:
    """A compensation returned: the step is undone."""

    step_id: str
    attempt: int
    input: str | None = None
    output: str | None = None
    started_at: datetime | None = None


@value(frozen=True, slots=True)
class CompensationRaised:
    """A compensation failed."""

    step_id: str
    attempt: int
    error: str = ""
    retryable: bool = True
    in_doubt: bool = False
    delay: timedelta | None = None
    input: str | None = None
    started_at: datetime | None = None


@value(frozen=True, slots=True)
class Noted:
    """A part of an attempt, or of a compensation, has come off; `content` is kept for who has to do it again."""

    step_id: str
    attempt: int
    content: str
    undoing: bool = False


@value(frozen=True, slots=True)
class Doubted:
    """What an attempt of a step, or of its undo, has written may stand, for it has ended its transaction itself."""

    step_id: str
    attempt: int
    error: str = ""
    input: str | None = None
    undoing: bool = False


Reply = Returned | Asked | Collected | Raised | Probed | Compensated | CompensationRaised
Event = Claimed | Ticked | Notified | Signalled | Reply | Noted | Doubted | Order
