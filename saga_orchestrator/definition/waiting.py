"""Waiting for an event: what a step returns that waits, and what it is given when the event has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from ..errors import SagaDefinitionError

PayloadT = TypeVar("PayloadT")
TIMED_OUT = "saga.timed_out"
"""The type of the event that a step is given whose wait ended without one."""
LONGEST_NAME = 255
"""How many characters an event's type, id and correlation may have."""


@dataclass(frozen=True, slots=True, init=False)
class WaitFor:
    """Returned by `execute`, `on_event` or `compensate`: wait, durably, and go on in `on_event`.

    The wait costs nothing while it lasts: no task, no connection. An event that came before the step asked is there at
    once. Without any type it is a wait for the time alone, and the step goes on when that has come.

    Args:
        event_types: The step goes on with the first event of one of these.
        correlation_id: Only an event of this correlation is for the step; the event need not name the saga then.
        timeout: How long to wait; without it or `until`, for as long as it takes.
        until: The moment until which to wait, with its time zone.
        on_timeout: "fail" (the default) fails the step for good, without a retry; "resume" goes on in `on_event`, with
            an event that says `timed_out`.

    Raises:
        SagaDefinitionError: It would wait for nothing, or says something else that makes no sense.
    """

    event_types: tuple[str, ...]
    correlation_id: str | None
    timeout: timedelta | None
    until: datetime | None
    on_timeout: Literal["fail", "resume"]

    def __init__(
        self,
        *event_types: str,
        correlation_id: str | None = None,
        timeout: timedelta | None = None,
        until: datetime | None = None,
        on_timeout: Literal["fail", "resume"] | None = None,
    ) -> None:
        _check_wait(event_types, correlation_id, timeout, until, on_timeout)
        default: Literal["fail", "resume"] = "fail" if event_types else "resume"
        object.__setattr__(self, "event_types", event_types)
        object.__setattr__(self, "correlation_id", correlation_id)
        object.__setattr__(self, "timeout", timeout)
        object.__setattr__(self, "until", None if until is None else _in_utc(until))
        object.__setattr__(self, "on_timeout", on_timeout or default)


@dataclass(frozen=True, kw_only=True)  # no slots: with them, Python 3.11 cannot make an `Event[YourModel](...)`
class Event(Generic[PayloadT]):
    """What has happened elsewhere, as `on_event` is given it.

    Attributes:
        payload: Plain JSON values; of an `Event[YourModel]`, your model.
        event_id: What its sender calls it: an event of one id is taken once.
        source: Who sent it, if he said so.
        occurred_at: When it happened, if its sender said so.
    """

    type: str
    payload: PayloadT
    event_id: str | None = None
    correlation_id: str | None = None
    source: str | None = None
    occurred_at: datetime | None = None

    @property
    def timed_out(self) -> bool:
        """Whether nothing has happened: the wait is over because its time is."""
        return self.type == TIMED_OUT


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise SagaDefinitionError(f"The until of WaitFor is {moment!r}, which is no time in UTC.") from None


def check_event_name(what: str, value: Any) -> None:
    """Refuse what is no name of an event, a correlation or an event's id.

    Raises:
        SagaDefinitionError: It is no text, empty, too long, or holds characters that a database rejects.
    """
    fits = isinstance(value, str) and 0 < len(value) <= LONGEST_NAME
    if not fits or any(letter == "\x00" or "\ud800" <= letter <= "\udfff" for letter in value):
        raise SagaDefinitionError(
            f"{what} is {value!r:.80}; give it a str of 1 to {LONGEST_NAME} characters, with no NUL or lone surrogate."
        )


def _check_wait(types: tuple[Any, ...], correlation: Any, timeout: Any, until: Any, on_timeout: Any) -> None:
    for kind in types:
        check_event_name("An event type of WaitFor", kind)
    if correlation is not None:
        check_event_name("The correlation_id of WaitFor", correlation)
    if timeout is not None and (not isinstance(timeout, timedelta) or timeout < timedelta(0)):
        raise SagaDefinitionError(f"The timeout of WaitFor is {timeout!r}; give it a timedelta of 0 or more.")
    if until is not None and (not isinstance(until, datetime) or until.tzinfo is None):
        raise SagaDefinitionError(f"The until of WaitFor is {until!r}; give it a datetime with a time zone.")
    if timeout is not None and until is not None:
        raise SagaDefinitionError("WaitFor takes timeout or until, not both.")
    if on_timeout not in (None, "fail", "resume"):
        raise SagaDefinitionError(f"The on_timeout of WaitFor is {on_timeout!r}; it must be 'fail' or 'resume'.")
    if not types and timeout is None and until is None:
        raise SagaDefinitionError("WaitFor() would wait for ever: name an event type, a timeout or a moment.")
