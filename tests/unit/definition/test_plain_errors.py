"""What an exception is, read past what its class says of itself."""

from __future__ import annotations

from typing import Any, NoReturn

from saga_orchestrator.definition.plain_errors import cause_of, is_a, members_of, name_type, walk_causes
from saga_orchestrator.definition.retry import FixedRetry, RetryPolicy, leaves


def boom(*_: Any) -> NoReturn:
    """Raise, whatever is asked."""
    raise RuntimeError("do not look at me")


class Nameless(type):
    __name__ = property(boom)  # type: ignore[assignment]


class OddError(ExceptionGroup[Exception], metaclass=Nameless):
    __class__ = __cause__ = exceptions = property(boom)  # type: ignore[assignment]


INSIDE = ValueError("inside")


def odd() -> OddError:
    """Return a group that raises whatever it is asked, and was raised from an error."""
    error = OddError("odd", [INSIDE])
    BaseException.__dict__["__cause__"].__set__(error, KeyError("first"))
    return error


def test_an_exception_is_read_past_its_class() -> None:
    """Its class, its name, its members and its cause are those that Python keeps."""
    assert is_a(odd(), ExceptionGroup)
    assert not is_a(odd(), KeyError)
    assert name_type(odd()) == "OddError"
    assert members_of(odd()) == (INSIDE,)
    assert members_of(INSIDE) == ()
    assert repr(cause_of(odd())) == "KeyError('first')"


def test_each_error_of_a_ring_is_walked_once() -> None:
    """An error that is its own cause, or holds it, has an end."""
    ring = ExceptionGroup("ring", [INSIDE, KeyError("x")])
    first = ValueError("first")
    first.__cause__, ring.__cause__ = ring, first
    assert [type(each) for each in walk_causes(first)] == [ValueError, ExceptionGroup, ValueError, KeyError]
    assert list(walk_causes(None)) == []


def test_the_leaves_of_entangled_groups_are_found_once() -> None:
    """A group that holds another twice, sixty deep, has as many paths as nothing can walk."""
    error: Exception = INSIDE
    for _ in range(60):
        error = ExceptionGroup("g", [error, error])
    assert leaves(error) == (INSIDE,)


def test_a_filter_is_asked_of_the_real_class() -> None:
    """A class that raises when it is asked what it is has the attempts that its real class has."""
    policy: RetryPolicy = FixedRetry(3, delay=None, retry_on=ExceptionGroup)  # type: ignore[arg-type]
    assert policy.retries(odd())
