"""A clock that moves only when it is told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    """The database's clock, by hand: pass it as `clock=`, and move it with `advance`."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        """Return the present time."""
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Let time pass, and return the new time."""
        self._now += by
        return self._now
