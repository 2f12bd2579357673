"""Exceptions that misbehave when they are looked at fail their step, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import pytest

from saga_orchestrator import BaseStep, FixedRetry, OutcomeUnknown, PermanentError, RetryAfter, SagaBuilder, SagaStatus
from saga_orchestrator.errors import SagaError
from tests.support.sagas import NAME, Input, Output, Site, soon

THRICE = FixedRetry(max_attempts=3, delay=timedelta(0))


def boom(*_: Any) -> NoReturn:
    """Raise, whatever is asked."""
    raise RuntimeError("do not look at me")


class OddText(str):
    """A text that cannot be cut, formatted or encoded."""

    __slots__ = ()
    __getitem__ = __format__ = encode = boom  # type: ignore[assignment]


class HidesItsClassError(Exception):
    __class__ = property(boom)  # type: ignore[assignment]


class HidesItsCauseError(Exception):
    __cause__ = property(boom)  # type: ignore[assignment]


class HidesItsTracebackError(Exception):
    __traceback__ = property(boom)  # type: ignore[assignment]


class HidesItsStateError(Exception):
    sqlstate = orig = sqlite_errorcode = property(boom)


class HidesItsMembers(ExceptionGroup[Exception]):
    exceptions = message = property(boom)  # type: ignore[assignment]


class HidesItsDelay(RetryAfter):
    delay = property(boom)  # type: ignore[assignment]

    def __init__(self) -> None:
        SagaError.__init__(self)


class SpeaksOddlyError(Exception):
    def __repr__(self) -> str:
        return OddText("hm")


class NeverEqualError(Exception):
    __eq__ = __hash__ = __bool__ = boom  # type: ignore[assignment]


class Nameless(type):
    __name__ = property(boom)  # type: ignore[assignment]


class HidesItsNameError(Exception, metaclass=Nameless):
    pass


def nested(depth: int) -> BaseException:
    """Return a group that is nested deeper than Python can call."""
    error: Exception = PermanentError("deep")
    for _ in range(depth):
        error = ExceptionGroup("g", [error])
    return error


def entangled(depth: int) -> BaseException:
    """Return a group that holds the same group twice, and so on: more errors than can ever be told."""
    error: Exception = PermanentError("deep")
    for _ in range(depth):
        error = ExceptionGroup("g", [error, error])
    return error


def raised_from_itself() -> BaseException:
    """Return what `raise error from error` raises."""
    error = ValueError("round")
    error.__cause__ = error
    return error


def raised_in_a_ring() -> BaseException:
    """Return an error whose causes come back to it, by way of a group."""
    error = ValueError("round")
    error.__cause__ = ExceptionGroup("ring", [KeyError("x"), error])
    return error


ODD: list[tuple[str, Callable[[], BaseException], int]] = [
    ("class", lambda: HidesItsClassError("v"), 3),
    ("cause", lambda: HidesItsCauseError("v"), 3),
    ("traceback", lambda: HidesItsTracebackError("v"), 3),
    ("state", lambda: HidesItsStateError("v"), 3),
    ("members", lambda: HidesItsMembers("g", [PermanentError("p")]), 1),
    ("delay", HidesItsDelay, 3),
    ("text", lambda: SpeaksOddlyError("v"), 3),
    ("equality", lambda: NeverEqualError("v"), 3),
    ("name", lambda: HidesItsNameError("v"), 3),
    ("nested", lambda: nested(1_200), 1),
    ("entangled", lambda: entangled(60), 1),
    ("itself", raised_from_itself, 3),
    ("ring", raised_in_a_ring, 3),
]


class Backwards:
    """A codec that is no secret."""

    def encode(self, text: str, /) -> str:
        return text[::-1]

    def decode(self, text: str, /) -> str:
        return text[::-1]


def raising(make: Callable[[], BaseException], calls: list[int], *, transactional: bool) -> Any:
    """Return a step that raises this each time."""

    class Odd(BaseStep[Input, Output]):
        async def execute(self, inp: Input) -> Output:
            calls.append(1)
            raise make()

        async def compensate(self, inp: Input, out: Output | None) -> None:
            """Nothing is to be undone."""

    Odd.transactional = transactional
    return Odd()


@pytest.mark.parametrize("codec", [None, Backwards()], ids=["open", "sealed"])
@pytest.mark.parametrize("transactional", [False, True], ids=["plain", "transactional"])
@pytest.mark.parametrize(("make", "attempts"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
async def test_an_odd_exception_fails_its_step(
    on_sqlite: Site, make: Callable[[], BaseException], attempts: int, transactional: bool, codec: Any
) -> None:
    """It is classified by its real class, and named by it where it cannot be described."""
    calls: list[int] = []
    builder = SagaBuilder()
    step = raising(make, calls, transactional=transactional)
    builder.add_step(step=step, input_map=lambda ctx: Input(), step_id="odd", retry_policy=THRICE)
    orchestrator = on_sqlite.joins(builder.build(), payload_codec=codec)

    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="order-1"))

    snapshot = await orchestrator.get_snapshot(saga_id)
    assert snapshot.status is SagaStatus.FAILED
    assert len(calls) == attempts
    assert snapshot.last_error


async def test_an_odd_exception_that_says_nothing_of_its_outcome_is_in_doubt_all_the_same(on_sqlite: Site) -> None:
    """An unknown outcome deep inside a group is heard, however deep it is."""

    def deep() -> BaseException:
        error: Exception = OutcomeUnknown("who knows")
        for _ in range(1_200):
            error = ExceptionGroup("g", [error])
        return error

    calls: list[int] = []
    builder = SagaBuilder()
    step = raising(deep, calls, transactional=False)
    builder.add_step(step=step, input_map=lambda ctx: Input(), step_id="odd")
    orchestrator = on_sqlite.joins(builder.build())

    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="order-1"))

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


async def test_an_output_that_misbehaves_leaves_its_step_in_doubt(on_sqlite: Site) -> None:
    """What was returned cannot be looked at; the step has acted, and is undone."""
    undone: list[Output | None] = []

    class Weird:
        __class__ = property(boom)  # type: ignore[assignment]

    class Odd(BaseStep[Input, Output]):
        async def execute(self, inp: Input) -> Output:
            return Weird()  # type: ignore[return-value]

        async def compensate(self, inp: Input, out: Output | None) -> None:
            undone.append(out)

    builder = SagaBuilder()
    builder.add_step(step=Odd(), input_map=lambda ctx: Input(), step_id="odd")
    orchestrator = on_sqlite.joins(builder.build())

    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="order-1"))

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert undone == [None]
