"""What a run looks like while it runs: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from .. import SagaStatus

_BAR = 24
_PAUSE = 1.0
"""Seconds between two lines where lines cannot be overwritten."""


class Counts(Counter[SagaStatus]):
    """How many sagas have each status."""

    @property
    def ended(self) -> int:
        """Those that will not move by themselves any more: what is STUCK waits for a person."""
        return sum(count for status, count in self.items() if status.is_terminal or status is SagaStatus.STUCK)


class Screen:
    """Where a run is shown."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._overwrites = out.isatty()
        self._started = clock()
        self._last = ("", float("-inf"))
        self._shown = 0

    def say(self, text: str = "") -> None:
        """Print a line that stays."""
        self._overwrite("")
        print(text, file=self._out, flush=True)

    def show(self, counts: Counts, total: int) -> None:
        """Show how far the sagas are."""
        line, now = _line(counts, total), self._clock()
        shown, at = self._last
        if line == shown or (not self._overwrites and counts.ended < total and now - at < _PAUSE):
            return
        self._last = line, now
        stamped = f"{now - self._started:5.1f} s  {line}"
        if self._overwrites:
            self._overwrite(stamped[: shutil.get_terminal_size().columns - 1])
        else:
            self.say(stamped)

    def _overwrite(self, text: str) -> None:
        """Replace the line that changes; blanks do it on every terminal."""
        if self._overwrites and (text or self._shown):
            end = "" if text else "\r"
            self._out.write(f"\r{text.ljust(self._shown)}{end}")
            self._out.flush()
            self._shown = len(text)


def _line(counts: Counts, total: int) -> str:
    done = counts.ended * _BAR // total
    parts = ", ".join(f"{status.value.lower()} {counts[status]}" for status in SagaStatus if counts[status])
    return f"[{'#' * done}{'.' * (_BAR - done)}] {counts.ended:3d} of {total} ended: {parts or 'none begun'}"
