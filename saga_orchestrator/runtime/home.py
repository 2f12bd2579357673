"""The event loop that an engine belongs to: its locks, tasks and connections live in that loop, and in no other."""

from __future__ import annotations

import asyncio

from ..errors import SagaStateError


class Home:
    """The event loop in which an engine was made; of one made outside of any, that in which it first ran."""

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop = running()

    def enter(self) -> None:
        """Belong to the loop that runs now.

        Raises:
            SagaStateError: The engine belongs to another one, which goes on unharmed.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise SagaStateError(
                "This orchestrator belongs to the event loop in which it was made or first ran, and was called from "
                "another event loop or thread. Nothing was done. Make one orchestrator for each asyncio.run, and close "
                "it there with aclose(); from a thread, use asyncio.run_coroutine_threadsafe(…, loop)."
            )

    def check(self) -> None:
        """Refuse a call from another loop; one that comes first, or from no loop, is let through.

        Raises:
            SagaStateError: As for `enter`.
        """
        if self._loop is not None and running() is not None:
            self.enter()


def running() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
