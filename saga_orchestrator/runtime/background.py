"""The tasks that an engine owns: what a caller waits for goes on when the caller does not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar

from loguru import logger

from .error_text import locate

T = TypeVar("T")

if sys.version_info >= (3, 12):

    def begun(work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
        """Begin work at once: what needs not wait for anything is done before the event loop turns."""
        return asyncio.Task(work, loop=asyncio.get_running_loop(), context=context, eager_start=True)

else:

    def begun(work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
        """Begin work with the event loop's next turn."""
        return asyncio.get_running_loop().create_task(work, context=context)


_PATIENCE = 10.0
"""Seconds that a task may take to end that was cut off; SQLite alone waits five for a lock that somebody else holds."""


async def cut_off(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks, and wait until they have ended.

    Some drivers, to cancel a statement, wait for the server that is at it, and that may be gone: such a task is left
    behind. It is not cancelled twice, for a connection that is being closed must not be closed by force as well.
    """
    left = {task for task in tasks if task is not None and not task.done()}
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=_PATIENCE)
    if left:
        logger.warning("{} tasks do not end, although they were cut off", len(left))


async def ended_within(seconds: float, work: Coroutine[Any, Any, None]) -> bool:
    """Do work, and return whether it has ended in time; otherwise it is cancelled and left behind."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not (ended := task.done()):
            task.cancel()
    if ended:
        task.result()
    return ended


class Background:
    """Runs work in tasks of its own, and holds on to them until they end.

    Args:
        context: Each task runs in a copy of this context, and in no caller's; in a copy of the present one if None.
    """

    def __init__(self, context: Context | None = None) -> None:
        self._context = copy_context() if context is None else context
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Set work going."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def outcome(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Return what work comes to; it goes on when the caller who waits for it is cancelled."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = begun(self._answer(answer, work, arguments), self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(partial(self._leave, answer))
        return await answer

    def cut_off(self) -> None:
        """Cancel whatever is left, without waiting for it."""
        for task in self._tasks:
            task.cancel()

    async def join(self) -> None:
        """Wait until nothing is left, nor anything that it has begun meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _answer(
        self, answer: asyncio.Future[T], work: Callable[..., Coroutine[Any, Any, T]], arguments: tuple[Any, ...]
    ) -> None:
        try:
            result = await work(*arguments)
        except Exception as error:  # noqa: BLE001 - it is the caller's to see, if the caller is still there
            if answer.done():
                logger.debug("ended with {}", locate(error))
            else:
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(result)

    def _leave(self, answer: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        answer.cancel()  # nobody waits for ever for what was cut off, perhaps before it began

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("ended with {}", locate(error))
