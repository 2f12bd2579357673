"""Threads of an engine's own, in which the plain functions of its authors run.

There are at most so many functions at work at once; more of them queue, and the time of a step begins when its function
does. Nothing can stop a thread. So a function whose step is given up is abandoned: another thread takes its place, and
what it returns at last is dropped. The threads are daemons: neither `aclose` nor the end of the process waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import types
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, cast

from loguru import logger

from ..definition.plain_errors import is_a, name_type
from ..errors import SagaDefinitionError, SagaError

THREADS = 32
"""How many plain functions are at work at once, unless the orchestrator is told otherwise."""
MOST_ABANDONED = 100
"""How many abandoned functions may be at work; with as many, the engine begins no further plain function."""
LONGEST_WAIT = 600.0
"""Seconds without the end of any function after which one that queues is refused."""
_NAMED = 5

_Inbox = SimpleQueue[Callable[[], None] | None]


class NoThreadError(SagaError):
    """A plain function could not begin, for want of a thread; it has not acted."""


class Turn:
    """The place of one function among those at work. `is_running`: its thread has begun, and has not ended."""

    __slots__ = ("is_running", "name")

    def __init__(self, name: str) -> None:
        self.name, self.is_running = name, False


class _Job(NamedTuple):
    turn: Turn
    function: Callable[[], Any]
    context: Context
    answer: asyncio.Future[Any]
    inbox: _Inbox


class Threads:
    """Runs plain functions in threads, `size` of them at once.

    Raises:
        SagaDefinitionError: `size` is no number of threads.
    """

    def __init__(self, size: int = THREADS) -> None:
        if type(size) is not int or size < 1:
            raise SagaDefinitionError(f"threads is {size!r}; give it a whole number of 1 or more.")
        self._size = size
        self._at_work: set[Turn] = set()
        self._abandoned: set[Turn] = set()
        self._queue: deque[tuple[str, asyncio.Future[Turn]]] = deque()
        self._kept: dict[asyncio.Task[Any] | None, Turn] = {}
        self._idle: list[_Inbox] = []
        self._ended_at = time.monotonic()
        self._is_closed = False
        weakref.finalize(self, _dismiss, self._idle)

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for the next function of this task; `name` says whose it is.

        Raises:
            NoThreadError: Too many abandoned functions are at work, no turn has come in time, or the engine closes.
        """
        task, turn = asyncio.current_task(), await self._take(name)
        self._kept[task] = turn
        try:
            yield
        finally:
            self._kept.pop(task, None)
            self._leave(turn)

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Return what a function returns in a thread: in the turn of this task, or in one of its own.

        Raises:
            NoThreadError: As for `turn`.
            Exception: As the function. What is no failure elsewhere, such as SystemExit, is a RuntimeError.
        """
        name = getattr(function, "__qualname__", type(function).__name__)
        call = partial(function, *args, **kwargs)
        if (turn := self._kept.pop(asyncio.current_task(), None)) is not None:
            return await self._run(turn, call)
        async with self.turn(name):
            return await self.run(call)

    def close(self) -> None:
        """Begin no further function, and wait for none."""
        self._is_closed = True
        self._refuse_all("the orchestrator is being closed")
        _dismiss(self._idle)

    async def _run(self, turn: Turn, function: Callable[[], Any]) -> Any:
        answer = asyncio.get_running_loop().create_future()
        inbox = self._idle.pop() if self._idle else _started()
        job = _Job(turn, function, copy_context(), answer, inbox)
        turn.is_running = True
        inbox.put(partial(_work_off, job, asyncio.get_running_loop(), self._end))
        return await answer

    def _end(self, job: _Job, value: Any, error: BaseException | None) -> None:
        """Hand over what a function came to, and its thread to the next."""
        job.turn.is_running = False
        self._ended_at = time.monotonic()
        self._abandoned.discard(job.turn)
        if self._is_closed or len(self._idle) >= self._size:
            job.inbox.put(None)
        else:
            self._idle.append(job.inbox)
        self._leave(job.turn)
        if job.answer.done():
            _drop(job.turn, value, error)
        elif error is not None:
            job.answer.set_exception(_failure(error))
        else:
            job.answer.set_result(value)

    # --- turns -------------------------------------------------------------------------------------------------------

    async def _take(self, name: str) -> Turn:
        if self._is_closed:
            raise NoThreadError("the orchestrator is closed, and begins no further plain function")
        if len(self._abandoned) >= MOST_ABANDONED:
            raise self._refusal()
        if len(self._at_work) < self._size:
            return self._given(name)
        return await self._queued(name)

    async def _queued(self, name: str) -> Turn:
        place: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._queue.append((name, place))
        try:
            while not place.done():
                await asyncio.wait([place], timeout=LONGEST_WAIT)
                if time.monotonic() - self._ended_at >= LONGEST_WAIT and not place.done():
                    place.set_exception(self._refusal())
            return place.result()
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._leave(place.result())
            place.cancel()
            raise

    def _given(self, name: str) -> Turn:
        turn = Turn(name)
        self._at_work.add(turn)
        return turn

    def _leave(self, turn: Turn) -> None:
        """Give up a turn, once. One whose function still runs is abandoned."""
        if turn not in self._at_work:
            return
        self._at_work.discard(turn)
        if turn.is_running:
            self._abandoned.add(turn)
            logger.warning("{} is given up while its plain function runs on in a thread", turn.name)
        if len(self._abandoned) >= MOST_ABANDONED:
            self._refuse_all(None)
        while self._queue and len(self._at_work) < self._size:
            name, place = self._queue.popleft()
            if not place.done():
                place.set_result(self._given(name))

    def _refuse_all(self, why: str | None) -> None:
        while self._queue:
            _, place = self._queue.popleft()
            if not place.done():
                place.set_exception(self._refusal() if why is None else NoThreadError(why))

    def _refusal(self) -> NoThreadError:
        named = Counter(turn.name for turn in (self._abandoned or self._at_work))
        shown = ", ".join(f"{name} ({count})" for name, count in named.most_common(_NAMED))
        return NoThreadError(
            f"no thread is free for a plain function: {len(self._abandoned)} were given up and still run, and "
            f"{len(self._at_work)} are at work: {shown}. Give what they wait for a limit of its own"
        )


_CURRENT: ContextVar[Threads | None] = ContextVar("saga_threads", default=None)


def make_current(threads: Threads) -> None:
    """Have the plain functions that are called in this context run in these threads."""
    _CURRENT.set(threads)


async def in_thread(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Return what a plain function returns, in a thread of the engine that calls it; else in one of its own."""
    return await (_CURRENT.get() or Threads(1)).run(function, *args, **kwargs)


def _started() -> _Inbox:
    inbox: _Inbox = SimpleQueue()
    threading.Thread(target=_work, args=(inbox,), name="saga-function", daemon=True).start()
    return inbox


def _work(inbox: _Inbox) -> None:
    while (job := inbox.get()) is not None:
        job()
        del job


def _work_off(job: _Job, loop: asyncio.AbstractEventLoop, end: Callable[..., None]) -> None:
    value, failure = None, None
    try:
        value = job.context.run(job.function)
    except BaseException as error:  # noqa: BLE001 - the author's code, in a thread: nothing of it ends the process
        failure = error
    try:
        loop.call_soon_threadsafe(end, job, value, failure)
    except RuntimeError:  # the event loop is closed
        job.inbox.put(None)


def _dismiss(idle: list[_Inbox]) -> None:
    while idle:
        idle.pop().put(None)


def _failure(error: BaseException) -> Exception:
    """Return an error that fails a step, for any that a plain function has raised."""
    if is_a(error, Exception) and not is_a(error, StopIteration):
        return cast(Exception, error)
    failure = RuntimeError(f"the plain function ended in {name_type(error)}")
    failure.__cause__ = error
    return failure


def _drop(turn: Turn, value: Any, error: BaseException | None) -> None:
    """Drop what an abandoned function came to; its attempt is in doubt already."""
    if isinstance(value, types.CoroutineType):
        value.close()
    came = "has returned" if error is None else f"has raised {name_type(error)}"
    logger.warning("{}: its plain function, which was given up, {}", turn.name, came)
