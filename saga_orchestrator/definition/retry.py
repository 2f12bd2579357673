"""When to try again: policies that are values, pure and deterministic.

A policy answers two questions: which errors are worth another attempt (`retries`), and how long to wait before it
(`next_delay`). `max_attempts` counts all attempts, the first included, so `max_attempts=3` calls a step three times at
most. Jitter is off unless it is asked for, and comes from a key, not from a dice roll: the same saga and step wait the
same time in a test, in production and in a replay, while different sagas spread out.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..errors import OutcomeUnknown, PermanentError, RetryAfter, SagaDefinitionError
from .awaited import can_be_awaited
from .plain_errors import is_a, members_of

ErrorFilter = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]

_NOTHING: ErrorFilter = ()
_ANYTHING: ErrorFilter = (Exception,)
_LONGEST = timedelta(days=365)


def leaves(error: BaseException) -> tuple[BaseException, ...]:
    """Return the errors that a group holds, those of its groups included, each once; of any other error, that error.

    >>> leaves(ExceptionGroup("two", [ValueError(1), ExceptionGroup("one", [KeyError(2)])]))
    (ValueError(1), KeyError(2))
    """
    pending, found, seen = [error], list[BaseException](), set[int]()
    while pending:  # a group may be nested deeper than Python can call, and may stand in many others
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if is_a(each, BaseExceptionGroup):
            pending += reversed(members_of(each))
        else:
            found.append(each)
    return tuple(found)


def _matches(error: BaseException, wanted: ErrorFilter) -> bool:
    if isinstance(wanted, type | tuple):
        return is_a(error, wanted) or isinstance(error, wanted)
    answer: object = wanted(error)
    if can_be_awaited(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(f"{wanted!r} answered with {answer!r}; a predicate of a RetryPolicy cannot be awaited")
    return bool(answer)


@dataclass(frozen=True)
class RetryPolicy:
    """The base of all policies; subclass it and override `_delay_for_attempt` for a curve of your own.

    Args:
        max_attempts: All attempts together, the first included; at least 1.
        retry_on: An error class, a tuple of them, or a predicate: worth another attempt. Everything by default.
        give_up_on: The same, for errors that end the attempts at once. `PermanentError` always does.

    Of an ExceptionGroup, one error that ends the attempts is enough to end them; it is worth another attempt if the
    group itself is, or if each error in it is.
    """

    max_attempts: int
    retry_on: ErrorFilter = field(default=_ANYTHING, kw_only=True)
    give_up_on: ErrorFilter = field(default=_NOTHING, kw_only=True)

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise SagaDefinitionError(
                f"max_attempts is {self.max_attempts}; it counts the first attempt too, so it is at least 1."
            )
        for name, wanted in (("retry_on", self.retry_on), ("give_up_on", self.give_up_on)):
            if _is_async(wanted) or not (callable(wanted) or isinstance(wanted, tuple)):
                raise SagaDefinitionError(
                    f"{name} is {wanted!r}; give it an error class, a tuple of them, or a predicate that is not async."
                )

    def next_delay(self, failures: int, /) -> timedelta | None:
        """Return the pause after this many failed attempts, or None to give up."""
        return None if failures >= self.max_attempts else self._delay_for_attempt(failures)

    def delay_for(self, failures: int, key: str) -> timedelta | None:
        """Return `next_delay`, spread by the policy's jitter for this key; a curve that stumbles has given up."""
        try:
            delay = self.next_delay(failures)
        except Exception:  # noqa: BLE001 - the author's code
            return None
        if not isinstance(delay, timedelta):
            return None
        jitter: float = getattr(self, "jitter", 0.0)
        return delay * (1 - jitter * _fraction(f"{key}#{failures}")) if jitter else delay

    def retries(self, error: BaseException) -> bool:
        """Return whether this error is worth another attempt at all; a group, as the class says."""
        inside = leaves(error)
        several = (error, *inside) if is_a(error, BaseExceptionGroup) else inside
        if any(is_a(each, PermanentError) or _matches(each, self.give_up_on) for each in several):
            return False
        return self._is_worth_it(error) or all(map(self._is_worth_it, inside))

    def _is_worth_it(self, error: BaseException) -> bool:
        return is_a(error, (OutcomeUnknown, RetryAfter)) or _matches(error, self.retry_on)

    def _delay_for_attempt(self, attempt_number: int) -> timedelta:
        raise NotImplementedError


@dataclass(frozen=True)
class NoRetry(RetryPolicy):
    """One attempt and no more."""

    max_attempts: int = field(default=1, init=False)

    def _delay_for_attempt(self, attempt_number: int) -> timedelta:
        return timedelta(0)  # pragma: no cover - one attempt leaves nothing to wait for


@dataclass(frozen=True)
class FixedRetry(RetryPolicy):
    """The same pause before every further attempt.

    >>> FixedRetry(max_attempts=2, delay=timedelta(seconds=5)).next_delay(1)
    datetime.timedelta(seconds=5)
    """

    delay: timedelta
    jitter: float = field(default=0.0, kw_only=True)

    def _delay_for_attempt(self, attempt_number: int) -> timedelta:
        return self.delay


@dataclass(frozen=True)
class ExponentialRetry(RetryPolicy):
    """A pause that grows by `multiplier` with every failure, up to `max_delay`.

    Args:
        base_delay: The pause after the first failure.
        max_delay: The longest pause; a year by default, since no date is far enough for an unbounded one.
        jitter: 0 to 1: how much of a pause may be taken off, by the saga's and step's own key.

    >>> [ExponentialRetry(max_attempts=4, base_delay=timedelta(seconds=1)).next_delay(n) for n in (1, 2, 3, 4)]
    [datetime.timedelta(seconds=1), datetime.timedelta(seconds=2), datetime.timedelta(seconds=4), None]
    """

    base_delay: timedelta
    multiplier: float = 2.0
    max_delay: timedelta | None = None
    jitter: float = field(default=0.0, kw_only=True)

    def _delay_for_attempt(self, attempt_number: int) -> timedelta:
        ceiling = _LONGEST if self.max_delay is None else self.max_delay
        try:
            return min(self.base_delay * self.multiplier ** max(attempt_number - 1, 0), ceiling)
        except OverflowError:
            return ceiling


def _is_async(predicate: Any) -> bool:
    call = getattr(predicate, "__call__", None)  # noqa: B004 - of an object, its own; of a function, what runs it
    functions = (predicate, call)
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions)


def _fraction(key: str) -> float:
    """Return a number in [0, 1) that is always the same for the same key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64
