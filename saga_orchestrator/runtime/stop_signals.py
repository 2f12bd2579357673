"""The signals that stop a worker, and the handlers of its host, which are back when the worker has stopped."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT)
_hearing: list[Callable[[], object]] = []
_listening = 0
"""How many of them are in the main thread, which alone can set handlers."""
_before: dict[signal.Signals, Any] = {}


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Have `stop` called in this event loop on SIGTERM and SIGINT, where this is the main thread.

    Several may listen at once: all of them hear, also those in other threads while one in the main thread listens.
    When the last one of the main thread has gone, the host's handlers are as they were.
    """
    hear = partial(_call, asyncio.get_running_loop(), stop)
    is_main = threading.current_thread() is threading.main_thread()
    _hearing.append(hear)
    if is_main:
        _listen()
    try:
        yield
    finally:
        if is_main:
            _stop_listening()
        _hearing.remove(hear)


def _call(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop of another thread has just been closed
        loop.call_soon_threadsafe(stop)


def _listen() -> None:
    global _listening  # noqa: PLW0603 - the handlers of a process are global
    _listening += 1
    for number in STOPPING if _listening == 1 else ():
        before = signal.getsignal(number)
        if before is not None:  # it was set by Python, and can be put back
            signal.signal(number, _heard)
            _before[number] = before


def _stop_listening() -> None:
    global _listening  # noqa: PLW0603 - the handlers of a process are global
    _listening -= 1
    if not _listening:
        _restore()


def _restore() -> None:
    """Put the handlers back, unless the host has set others since."""
    for number in tuple(_before):
        before = _before.pop(number)
        if signal.getsignal(number) is _heard:
            signal.signal(number, before)


def _heard(number: int, frame: FrameType | None) -> None:
    for hear in tuple(_hearing):
        hear()
