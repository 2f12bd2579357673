"""The signals that stop a worker, and the handlers of its host, which are back when the worker has stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT)
_hearing: list[Callable[[], object]] = []
_before: dict[signal.Signals, Any] = {}


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Have `stop` called in this event loop on SIGTERM and SIGINT, where this is the main thread.

    Several may listen at once: all of them hear. When the last one has gone, the host's handlers are as they were.
    """
    hear = partial(asyncio.get_running_loop().call_soon_threadsafe, stop)
    if not _hearing:
        _listen()
    _hearing.append(hear)
    try:
        yield
    finally:
        _hearing.remove(hear)
        if not _hearing:
            _restore()


def _listen() -> None:
    for number in STOPPING:
        before = signal.getsignal(number)
        if before is None:  # it was not set by Python, and could not be put back
            continue
        try:
            signal.signal(number, _heard)
        except ValueError:  # only the main thread hears signals
            return
        _before[number] = before


def _restore() -> None:
    """Put the handlers back, unless the host has set others since."""
    for number in tuple(_before):
        before = _before.pop(number)
        if signal.getsignal(number) is _heard:
            signal.signal(number, before)


def _heard(number: int, frame: FrameType | None) -> None:
    for hear in tuple(_hearing):
        hear()
