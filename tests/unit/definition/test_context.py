"""What a step's context does by itself, and what it leaves to the engine behind it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from saga_orchestrator.definition.builder import SagaBuilder
from saga_orchestrator.definition.child import certain_children
from saga_orchestrator.definition.context import StepContext

NOW = datetime(2024, 2, 29, tzinfo=UTC)


class Behind:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def once(self, key: str, act: Callable[[], Any], returns: Any) -> Coroutine[Any, Any, Any]:
        async def done() -> Any:
            self.asked.append((key, returns))
            return act()

        return done()

    def remembered(self) -> dict[str, Any]:
        return {"a": 1}

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        self.asked.append((done, total, message))

    def heartbeat_deadline(self) -> datetime:
        return NOW


def context(behind: Behind | None = None) -> StepContext:
    names = dict.fromkeys(("saga_name", "step_id", "aggregation_id", "trace_id", "idempotency_key"), "x")
    return StepContext(saga_id=UUID(int=7), attempt=1, **names, _backing=behind)


async def seven() -> int:
    return 7


@pytest.mark.parametrize("act", [lambda: 7, seven])
async def test_without_an_engine_a_part_is_simply_done(act: Callable[[], Any]) -> None:
    """Synchronous or not, each time anew."""
    assert await context().once("a", act) == 7


def test_without_an_engine_nothing_is_remembered_or_shown() -> None:
    """So that a step can be tested by itself."""
    ctx = context()
    ctx.progress(1, 2, "half")
    assert (ctx.remembered, ctx.heartbeat_deadline) == ({}, None)


async def test_the_engine_is_asked() -> None:
    """For everything that outlives the call."""
    behind = Behind()
    ctx = context(behind)
    assert await ctx.once("a", lambda: 7) == 7
    ctx.progress(1, 2, "half")
    assert (ctx.remembered, ctx.heartbeat_deadline) == ({"a": 1}, NOW)
    assert behind.asked == [("a", None), (1, 2, "half")]


def test_the_children_that_a_saga_surely_has_are_known() -> None:
    """Not those of a branch that may not be taken, and not those that nobody waits for."""
    builder = SagaBuilder()
    builder.add_child("hotel", input_map=lambda ctx: {}, step_id="stay")
    builder.add_child("mail", input_map=lambda ctx: {}, step_id="tell", detached=True)
    assert certain_children(builder.build().steps) == {"hotel": "stay"}
