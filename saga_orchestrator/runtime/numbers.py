"""Numbers, durations and moments that callers give, checked where they are given: the message names the argument."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ..errors import SagaDefinitionError, SagaError, SagaStateError
from ..kernel.draft import LONGEST

LARGEST = 2**31 - 1
"""What every database takes as a number of rows."""


def check_count(
    name: str, value: Any, *, least: int = 1, most: int | None = None, error: type[SagaError] = SagaStateError
) -> None:
    """Refuse what is no whole number from `least` to `most`.

    Raises:
        SagaError: Of the class `error`.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if is_whole and least <= value and (most is None or value <= most):
        return
    allowed = f"{least} or more" if most is None else f"{least} to {most}"
    raise error(f"{name} is {value!r:.80}; give it a whole number: {allowed}.")


def check_duration(
    name: str,
    value: Any,
    *,
    least: timedelta | None = timedelta.resolution,
    most: timedelta | None = None,
    error: type[SagaError] = SagaStateError,
) -> None:
    """Refuse what is no timedelta from `least` to `most`. Without one of the two, that side is open.

    Raises:
        SagaError: Of the class `error`.
    """
    is_duration = isinstance(value, timedelta)
    if is_duration and (least is None or value >= least) and (most is None or value <= most):
        return
    wanted = "a timedelta, such as timedelta(seconds=10)"
    if is_duration and most is not None and value > most:
        wanted = f"a timedelta of at most {most.days} days"
    elif is_duration:
        wanted = "a timedelta of 0 or more" if least == timedelta(0) else "a timedelta longer than 0"
    raise error(f"{name} is {value!r:.80}; give it {wanted}.")


def limit_of(timeout: timedelta | None) -> tuple[float] | tuple[()]:
    """Return a caller's `timeout` as the last argument of a store's method: its seconds, or no argument.

    Raises:
        SagaStateError: It is no duration longer than 0.
    """
    if timeout is None:
        return ()
    check_duration("timeout", timeout)
    return (timeout.total_seconds(),)


def check_moment(name: str, value: Any) -> None:
    """Refuse what is no datetime with a time zone.

    Raises:
        SagaStateError: With what to give instead.
    """
    if not isinstance(value, datetime):
        raise SagaStateError(f"{name} is {value!r:.80}; give it a datetime with a time zone, as datetime.now(UTC).")
    if value.utcoffset() is None:
        raise SagaStateError(f"{name} needs a time zone; got {value!r}. Say datetime.now(UTC), for example.")


def check_settings(
    execution_lease: Any, database_timeout: Any, event_retention: Any, max_payload_bytes: Any, payload_codec: Any
) -> None:
    """Refuse the settings of an engine that make no sense; the number of its threads they check themselves.

    Raises:
        SagaDefinitionError: With the setting, and what to give instead.
    """
    check_duration("execution_lease", execution_lease, most=LONGEST, error=SagaDefinitionError)
    check_duration("database_timeout", database_timeout, error=SagaDefinitionError)
    check_duration("event_retention", event_retention, error=SagaDefinitionError)
    check_count("max_payload_bytes", max_payload_bytes, error=SagaDefinitionError)
    is_codec = all(callable(getattr(payload_codec, name, None)) for name in ("encode", "decode"))
    if payload_codec is not None and not is_codec:
        raise SagaDefinitionError(f"payload_codec is {payload_codec!r:.80}; give it an object with encode and decode.")
