"""What a driver judges by time: attempts that have begun, and no others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from saga_orchestrator.definition.graph import Node
from saga_orchestrator.kernel.state import State
from saga_orchestrator.kernel.step_status import Probing, Running, StepStatus
from saga_orchestrator.runtime.driver import Driver

NOW = datetime(2024, 2, 29, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
STEPS = {"a": SimpleNamespace(node=Node(step_id="a", timeout=timedelta(seconds=1)))}


async def driver_of(status: StepStatus, begun: StepStatus | None) -> Driver:
    """Return the driver of a saga of one step, of which it has begun what is said."""
    tenure: Any = SimpleNamespace(definition=SimpleNamespace(step=STEPS.__getitem__), state=State("k", {"a": status}))
    driver = Driver(tenure, SimpleNamespace(now=lambda: NOW))  # type: ignore[arg-type]
    if begun is not None:
        driver._began["a"] = begun, NOW - 2 * MINUTE
    return driver


@pytest.mark.parametrize("begun", [None, Running(1, 0, NOW - 2 * MINUTE), Probing(1, 0, NOW - 2 * MINUTE)])
async def test_an_attempt_that_has_not_begun_has_not_timed_out(begun: StepStatus | None) -> None:
    """One that was ordered while the driver was being stopped, late, is spared, whatever began before it."""
    driver = await driver_of(Running(2, 1, NOW - MINUTE), begun)

    assert driver._spared(NOW) == {"a"}


async def test_an_attempt_that_has_had_its_time_has_timed_out() -> None:
    """It began, and its time is over by more than the moment that it has to end by itself."""
    status = Running(2, 1, NOW - MINUTE)
    driver = await driver_of(status, status)

    assert driver._spared(NOW) == frozenset()
