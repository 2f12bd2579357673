"""What is judged by time: attempts that have begun, and no others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from saga_orchestrator.definition.graph import Node
from saga_orchestrator.kernel.state import State
from saga_orchestrator.kernel.step_status import Probing, Running, StepStatus
from saga_orchestrator.runtime.alarm import Alarm

NOW = datetime(2024, 2, 29, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
STEPS = {"a": SimpleNamespace(node=Node(step_id="a", timeout=timedelta(seconds=1)))}


def alarm_of(status: StepStatus, begun: StepStatus | None) -> Alarm:
    """Return the alarm of a saga of one step, of which what is said has begun."""
    tenure: Any = SimpleNamespace(definition=SimpleNamespace(step=STEPS.__getitem__), state=State("k", {"a": status}))
    alarm = Alarm(tenure, lambda: NOW, lambda _: None)
    if begun is not None:
        tenure.state = State("k", {"a": begun})
        alarm.count_from("a", NOW - 2 * MINUTE)
        tenure.state = State("k", {"a": status})
    return alarm


@pytest.mark.parametrize("begun", [None, Running(1, 0, NOW - 2 * MINUTE), Probing(1, 0, NOW - 2 * MINUTE)])
def test_an_attempt_that_has_not_begun_has_not_timed_out(begun: StepStatus | None) -> None:
    """One that was ordered while the driver was being stopped, late, is spared, whatever began before it."""
    alarm = alarm_of(Running(2, 1, NOW - MINUTE), begun)

    assert alarm.spared(NOW) == {"a"}


def test_an_attempt_that_has_had_its_time_has_timed_out() -> None:
    """It began, and its time is over by more than the moment that it has to end by itself."""
    status = Running(2, 1, NOW - MINUTE)
    alarm = alarm_of(status, status)

    assert alarm.spared(NOW) == frozenset()
