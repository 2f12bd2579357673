"""One call of the author's code, within its time: what it came to, and whether it may have acted all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple

from ..errors import OutcomeUnknown


class Outcome(NamedTuple):
    """What a call came to: a value, or an error and whether the call may have acted all the same."""

    value: Any = None
    error: BaseException | None = None
    in_doubt: bool = False


async def call(begin: Callable[[], Awaitable[Any]], timeout: timedelta | None) -> Outcome:
    """Await the author's code, and say how it ended; an outer cancellation passes through."""
    try:
        if timeout is None:
            return Outcome(await begin())
        return await _call_within(begin, timeout)
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return Outcome(error=error, in_doubt=True)
    except Exception as error:  # noqa: BLE001 - the author's code
        return Outcome(error=error, in_doubt=isinstance(error, OutcomeUnknown))


async def _call_within(begin: Callable[[], Awaitable[Any]], timeout: timedelta) -> Outcome:
    scope = asyncio.timeout(timeout.total_seconds())
    try:
        async with scope:
            return Outcome(await begin())
    except Exception as error:
        if not scope.expired():
            raise
        late = TimeoutError(f"timed out after {timeout}")
        late.__cause__ = None if isinstance(error, TimeoutError) else error
        return Outcome(error=late, in_doubt=True)
