"""What an exception is, read without a call of the author's code.

The class of an exception may override `__class__`, `__cause__`, `exceptions`, and its metaclass `__name__`. Each of
these may raise, while the engine asks what a step has come to. So the engine reads them as Python itself keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_NAME = type.__dict__["__name__"]
_CAUSE = BaseException.__dict__["__cause__"]
_MEMBERS = BaseExceptionGroup.__dict__["exceptions"]


def is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Return whether a value is of a class of the engine's or of Python's, whatever it says of itself."""
    return issubclass(type(value), kind)


def name_type(value: Any) -> str:
    """Return the name of a value's class."""
    name: str = _NAME.__get__(type(value))
    return str.__str__(name)


def cause_of(error: BaseException) -> BaseException | None:
    """Return the error that an error was raised from."""
    cause: BaseException | None = _CAUSE.__get__(error)
    return cause


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """Return the errors that a group holds; none of any other error."""
    members: tuple[BaseException, ...] = _MEMBERS.__get__(error) if is_a(error, BaseExceptionGroup) else ()
    return members


def walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, those that it was raised from, and those of groups: each once, however they are entangled."""
    pending, seen = [error], set[int]()
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        pending += [cause_of(each), *reversed(members_of(each))]
