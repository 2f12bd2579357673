"""The database's time as a process knows it: asked seldom, carried on in between, and never trusted for too long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from saga_orchestrator.runtime.clock import DatabaseClock

MIDNIGHT = datetime(2030, 1, 1, tzinfo=UTC)


class Hands:
    """The event loop's time and the database's, both moved by hand. `slow`: how long the next question takes."""

    def __init__(self) -> None:
        self.loop, self.database, self.slow, self.asked = 1_000.0, MIDNIGHT, 0.0, 0

    def pass_by(self, seconds: float, *, drift: float = 0.0) -> None:
        self.loop += seconds
        self.database += timedelta(seconds=seconds + drift)

    async def ask(self) -> datetime:
        self.asked += 1
        self.pass_by(self.slow / 2)
        told = self.database
        self.pass_by(self.slow / 2)
        return told


@pytest.fixture
async def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: hands.loop)
    return hands


async def test_the_database_is_asked_once_and_its_time_carried_on(hands: Hands) -> None:
    """Sagas that come one after another cost no question each."""
    clock = DatabaseClock(hands.ask)
    for _ in range(5):
        await clock.ready()
        hands.pass_by(10)

    assert clock.now() == hands.database
    assert hands.asked == 1


async def test_an_old_answer_is_asked_for_again(hands: Hands) -> None:
    """Two clocks part in time: a process that never renews a lease does not live by yesterday's answer for ever."""
    clock = DatabaseClock(hands.ask)
    await clock.ready()
    hands.pass_by(86_400, drift=30)

    await clock.ready()

    assert clock.now() == hands.database


async def test_an_answer_that_was_slow_is_asked_for_again(hands: Hands) -> None:
    """One that took seconds tells the time only to within seconds; the next one is better."""
    clock = DatabaseClock(hands.ask)
    hands.slow = 8.0
    await clock.sync()
    hands.slow = 0.0

    await clock.ready()

    assert clock.now() == hands.database
    assert hands.asked == 2


async def test_a_slow_answer_does_not_spoil_a_good_one(hands: Hands) -> None:
    """What is known to the millisecond stays so when a later answer is vague."""
    clock = DatabaseClock(hands.ask)
    await clock.sync()
    hands.slow = 8.0

    await clock.sync()

    assert abs(clock.now() - hands.database) < timedelta(milliseconds=10)


async def test_a_database_clock_that_was_set_is_followed(hands: Hands) -> None:
    """When an answer contradicts what was known, the database's clock was set, and the answer counts."""
    clock = DatabaseClock(hands.ask)
    await clock.sync()
    hands.database += timedelta(hours=1)

    await clock.sync()

    assert clock.now() == hands.database


async def test_a_database_that_is_away_is_asked_another_time(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is getting old does until the database is back; without any, nothing can begin."""
    clock = DatabaseClock(hands.ask)
    await clock.ready()
    hands.pass_by(86_400)
    monkeypatch.setattr(clock, "_ask", away)

    await clock.ready()
    assert clock.now() == hands.database

    with pytest.raises(ConnectionError):
        await DatabaseClock(away).ready()


async def away() -> datetime:
    raise ConnectionError("the database is away")
