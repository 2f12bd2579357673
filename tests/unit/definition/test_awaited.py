"""What a function of the author's returns is awaited until it cannot be; code that has not run is no work done."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import multiprocessing
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from unittest.mock import MagicMock

import pytest
from pydantic import BaseModel, ConfigDict

from saga_orchestrator.definition.awaited import NotRunError, awaited, check_run, then
from saga_orchestrator.errors import OutcomeUnknown


async def answer(value: Any) -> Any:
    return value


async def test_a_value_is_awaited_until_it_cannot_be() -> None:
    assert await awaited(3) == 3
    assert await awaited(answer(answer(answer(3)))) == 3


async def test_a_future_of_elsewhere_is_awaited_where_somebody_adopts_it() -> None:
    future, own = in_a_future(3), asyncio.get_running_loop().create_future()
    own.set_result(future)

    assert await awaited(own, lambda value: asyncio.wrap_future(value) if value is future else value) == 3
    assert await awaited(own) is future


class Shy:
    """It raises when its class is looked at."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("not now")

    @__class__.setter
    def __class__(self, given: Any) -> None: ...


async def test_a_value_that_raises_when_it_is_looked_at_is_in_doubt() -> None:
    with pytest.raises(OutcomeUnknown, match="raises when it is looked at"):
        await awaited(Shy())


async def test_an_async_generator_is_no_answer() -> None:
    with pytest.raises(NotRunError, match="async_generator"):
        await awaited(answer(much_later()))


async def test_what_follows_comes_at_once_or_is_awaited_as_well() -> None:
    assert then(3, str) == "3"
    assert await then(answer(3), str) == "3"
    assert await then(answer(3), answer) == 3


@dataclass(slots=True)
class Note:
    said: Any


class Report(BaseModel):
    model_config = ConfigDict(extra="allow")
    said: Any = None


class Bare(BaseModel):
    said: Any = None


class Cursor:
    """What a database driver returns: an iterator, and of no class that says that its code has not run."""

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        raise StopIteration


def ring() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def in_a_future(value: Any = None, error: Exception | None = None) -> Future[Any]:
    future = Future[Any]()
    future.set_result(value) if error is None else future.set_exception(error)
    return future


def cancelled() -> Future[Any]:
    future = Future[Any]()
    future.cancel()
    return future


def ended() -> Any:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process


RUN: list[Any] = [
    None,
    3,
    "text",
    [1, ring()],
    {"a": 1},
    object(),
    (Note(1), Report(said=2, more=3), Bare()),
    deque([{4}, frozenset({5})]),
    {"a": 1}.values(),
    Cursor(),
    MagicMock(),
    [in_a_future([1])],
    subprocess.CompletedProcess([], 0),
]


@pytest.mark.parametrize("value", RUN, ids=lambda value: type(value).__name__)
def test_what_has_run_is_given_back(value: Any) -> None:
    assert check_run(value) is value


def test_a_process_that_has_ended_has_run() -> None:
    process = ended()

    assert check_run(process) is process


async def test_a_task_that_has_come_off_has_run() -> None:
    done, _ = await asyncio.wait([asyncio.ensure_future(answer(3))])

    assert check_run(done) is done


def later() -> Iterator[int]:
    yield 1


async def much_later() -> AsyncIterator[int]:
    yield 1


@contextlib.contextmanager
def around() -> Iterator[None]:
    yield


class Callback:
    def __call__(self) -> None: ...


class Process:
    """A process that has not ended, as those of asyncio and of subprocess look."""

    returncode = None

    def wait(self) -> None: ...

    def kill(self) -> None: ...

    def terminate(self) -> None: ...


class PoolAnswer:
    """What a pool of processes, or a queue of tasks, returns for work that it has been given."""

    def ready(self) -> None: ...

    def get(self) -> None: ...

    def wait(self) -> None: ...


NOT_RUN: list[Callable[[], Any]] = [
    later,
    much_later,
    around,
    lambda: later,
    lambda: Callback,
    Callback,
    Process,
    PoolAnswer,
    lambda: functools.partial(later),
    lambda: map(str, [1]),
    lambda: itertools.starmap(print, []),
    lambda: threading.Thread(target=later),
    lambda: multiprocessing.Process(target=later),
    Future,
    cancelled,
    lambda: in_a_future(error=ValueError()),
    lambda: ValueError("refused"),
]
HELD_IN: list[Callable[[Any], Any]] = [
    lambda value: value,
    lambda value: [1, value],
    lambda value: (value,),
    lambda value: {"a": {"b": value}},
    lambda value: {value: 1},
    lambda value: {value},
    lambda value: deque([value]),
    lambda value: OrderedDict(a=value).values(),
    Note,
    lambda value: Report(said=value),
    lambda value: Report(more=value),
    in_a_future,
]


@pytest.mark.parametrize("held_in", HELD_IN)
@pytest.mark.parametrize("value", NOT_RUN)
def test_code_that_has_not_run_is_an_error_wherever_it_stands(
    value: Callable[[], Any], held_in: Callable[[Any], Any]
) -> None:
    with pytest.raises(NotRunError, match=r"the engine does not run that|its work has failed"):
        check_run(held_in(value()))


def test_the_error_names_what_has_not_run_and_what_has_failed() -> None:
    coroutine = answer(3)
    with pytest.raises(NotRunError, match="it returned 'list' with 'coroutine' in it"):
        check_run([coroutine])
    coroutine.close()
    with pytest.raises(NotRunError, match="it returned 'function', and"):
        check_run(later)
    with pytest.raises(NotRunError, match="it returned 'list' with 'ValueError' in it") as raised:
        check_run([ValueError("refused")])
    assert isinstance(raised.value.__cause__, ValueError)
