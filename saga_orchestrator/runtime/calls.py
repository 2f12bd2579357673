"""One call of the author's code, within its time: what it came to, and whether it may have acted all the same."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from datetime import timedelta
from types import CoroutineType
from typing import Any, NamedTuple

from ..definition.awaited import NOT_AWAITABLE, awaited
from ..definition.plain_errors import is_a
from ..definition.retry import leaves
from ..errors import OutcomeUnknown

_ENDS_THE_PROCESS = (KeyboardInterrupt, SystemExit)


class Outcome(NamedTuple):
    """What a call came to: a value, or an error and whether the call may have acted all the same."""

    value: Any = None
    error: BaseException | None = None
    in_doubt: bool = False


async def call(begin: Callable[[], Any], timeout: timedelta | None) -> Outcome:
    """Call the author's code, await what it returns, and say how it ended: also that its time was up.

    An outer cancellation, and what ends the whole process, pass through.
    """
    try:
        if timeout is None:
            return Outcome(await settled(begin()))
        return await _call_within(begin, timeout)
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return Outcome(error=error, in_doubt=True)
    except Exception as error:  # noqa: BLE001 - the author's code
        return Outcome(error=error, in_doubt=is_unknown(error))
    except _ENDS_THE_PROCESS:
        raise
    except BaseException as error:
        if is_a(error, GeneratorExit) and not _is_running():
            raise  # the event loop has ended, and the interpreter closes what it left
        return Outcome(error=error, in_doubt=True)  # no failure that a step reports, and so its outcome is unknown


def _is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def settled(value: Any) -> Any:
    """Return what a value comes to that the author's code returned: it is awaited until it cannot be.

    Raises:
        NotRunError: It comes to an async generator, which the engine does not run.
        OutcomeUnknown: It comes to a future of another event loop, or to what raises when it is looked at.
    """
    if type(value) is CoroutineType:
        value = await value
    return value if type(value) in NOT_AWAITABLE else await awaited(value, _adopt)


def is_unknown(error: BaseException) -> bool:
    """Return whether an error says that the outcome is unknown; of a group, whether one in it does."""
    return any(is_a(each, OutcomeUnknown) for each in leaves(error))


def _adopt(value: Any) -> Any:
    """Return what this event loop can await; a future of another loop is refused."""
    if isinstance(value, concurrent.futures.Future):
        return asyncio.wrap_future(value)
    if asyncio.isfuture(value) and value.get_loop() is not asyncio.get_running_loop():
        raise OutcomeUnknown("it returned a future of another event loop, which the engine cannot await")
    return value


async def _call_within(begin: Callable[[], Any], timeout: timedelta) -> Outcome:
    scope = asyncio.timeout(timeout.total_seconds())
    try:
        async with scope:
            return Outcome(await settled(begin()))
    except Exception as error:
        if not scope.expired():
            raise
        late = TimeoutError(f"timed out after {timeout}")
        late.__cause__ = None if is_a(error, TimeoutError) else error
        return Outcome(error=late, in_doubt=True)
