"""What the further kinds of steps cost: waits and their events, transactional steps, branches, parts, fans, children.

Alone: `python -m benches.vocabulary`.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from saga_orchestrator import BaseStep, Event, SagaBuilder, SagaDefinition, SagaOrchestrator, StepContext, WaitFor

from .ours import BenchSaga, Order, Trivial, create_tables, engine_for, orchestrator_on
from .part import main

STEPS = 10
LEVELS = 10
ITEMS = 100
BUFFERED = 100_000


class Nothing(BaseModel):
    """What these steps take and return."""


class Ask(BaseStep[Nothing, Nothing]):
    """Waits for an event, and notes when it has come."""

    heard: asyncio.Event

    async def execute(self, inp: Nothing) -> Nothing | WaitFor:
        return WaitFor("answer")

    async def on_event(self, inp: Nothing, event: Event[Any]) -> Nothing:
        self.heard.set()
        return Nothing()


class Book(BaseStep[Nothing, Nothing]):
    """Updates one row of the application's."""

    transactional = True

    async def execute(self, inp: Nothing, ctx: StepContext) -> Nothing:
        await ctx.session.execute(text("UPDATE bench_counter SET n = n + 1 WHERE id = 1"))
        return Nothing()


def chain(step: BaseStep[Any, Any], count: int) -> SagaDefinition:
    builder = SagaBuilder()
    for _ in range(count):
        builder.add_step(step=step, input_map=lambda ctx: {}, compensation=None)
    return builder.build()


def branches(count: int) -> SagaDefinition:
    builder = SagaBuilder()
    with builder.parallel():
        for _ in range(count):
            builder.add_step(step=Trivial(), input_map=_order)
    return builder.build()


def fanned(count: int) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_each(items=lambda ctx: [_order(ctx)] * count, step=Trivial())
    return builder.build()


def with_child() -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_child("one", input_map=_order)
    return builder.build()


def nested(levels: int) -> SagaDefinition:
    builder = SagaBuilder()
    if levels:
        builder.add_saga(nested(levels - 1), input_map=lambda ctx: ctx.initial_data)
    builder.add_step(step=Trivial(), input_map=_order)
    return builder.build()


def _order(ctx: Any) -> Order:
    return Order(**ctx.initial_data)


HAND_WRITTEN = (
    "UPDATE bench_counter SET n = n + 1 WHERE id = 1",
    "SELECT state FROM bench_hand WHERE id = 1 FOR UPDATE",
    "UPDATE bench_hand SET state = state + 1 WHERE id = 1",
    "INSERT INTO bench_hand_log (at, payload) VALUES (clock_timestamp(), '{}')",
)
"""The same by hand: the business row, the lock on what says how far one is, its update, and a line for the record."""
TABLES = (
    "CREATE TABLE bench_counter (id INT PRIMARY KEY, n INT)",
    "INSERT INTO bench_counter VALUES (1, 0)",
    "CREATE TABLE bench_hand (id INT PRIMARY KEY, state INT)",
    "INSERT INTO bench_hand VALUES (1, 0)",
    "CREATE TABLE bench_hand_log (id SERIAL PRIMARY KEY, at TIMESTAMPTZ, payload JSONB)",
)
LETTERS = """
INSERT INTO bench_saga_inbox (id, address, type, content, status, received_at)
SELECT gen_random_uuid(), 'aggregation:somebody-' || n, 'answer', '{}', 'BUFFERED', now()
FROM generate_series(1, :n) n"""


class Vocabulary:
    """The measurements, on one database."""

    def __init__(self, engine: AsyncEngine, rounds: int) -> None:
        self._engine, self._rounds = engine, rounds
        self._ask = Ask()
        definitions = {
            "ask": chain(self._ask, 1),
            "once": chain(Book(), STEPS),
            "one": branches(1),
            "three": branches(3),
            "nested": nested(LEVELS),
            "fanned": fanned(ITEMS),
            "parent": with_child(),
        }
        self._orchestrator: SagaOrchestrator[BenchSaga] = orchestrator_on(engine, definitions)
        self._sessions = async_sessionmaker(engine)

    async def measure(self) -> dict[str, Any]:
        once, hand = await self._in_turn(self._transactional, self._by_hand)
        one, three = await self._in_turn(lambda: self._saga("one"), lambda: self._saga("three"))
        early = statistics.median([await self._early() for _ in range(self._rounds)])
        await self._sql(LETTERS, n=BUFFERED)
        beside = statistics.median([await self._early() for _ in range(self._rounds)])
        latencies = sorted([await self._latency() for _ in range(10 * self._rounds)])
        levels = statistics.median([await self._saga("nested") for _ in range(self._rounds)])
        fanned = statistics.median([await self._saga("fanned") for _ in range(self._rounds)])
        parent = statistics.median([await self._saga("parent", waits=True) for _ in range(self._rounds)])
        await self._orchestrator.aclose()
        return {
            "signal_ms": {"p50": latencies[len(latencies) // 2], "p99": latencies[int(len(latencies) * 0.99)]},
            "transactional_ms": once / STEPS,
            "by_hand_ms": hand / STEPS,
            "one_step_ms": one,
            "three_branches_ms": three,
            "levels_ms": levels,
            "hundred_items_ms": fanned,
            "child_ms": parent,
            "early_event_ms": early,
            "early_event_beside_100000_ms": beside,
        }

    async def _in_turn(self, *runs: Callable[[], Awaitable[float]]) -> list[float]:
        """Return the median of each, after a round to warm up."""
        rows = [[await run() for run in runs] for _ in range(self._rounds + 1)]
        return [statistics.median(column) for column in zip(*rows[1:], strict=True)]

    async def _transactional(self) -> float:
        return await self._saga("once")

    async def _by_hand(self) -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            async with self._sessions() as session, session.begin():
                for statement in HAND_WRITTEN:
                    await session.execute(text(statement))
        return 1000 * (time.perf_counter() - began)

    async def _saga(self, name: str, *, waits: bool = False) -> float:
        """Return how many milliseconds a saga takes; one that waits goes on after its start has returned."""
        order = {"order_id": "o", "sku": "s", "amount": 1}
        began = time.perf_counter()
        saga_id = await self._orchestrator.start(saga_name=name, initial_data=order, aggregation_id=str(uuid4()))
        if waits:
            await self._orchestrator.result(saga_id)
        took = 1000 * (time.perf_counter() - began)
        if (status := (await self._orchestrator.get_snapshot(saga_id)).status.value) != "COMPLETED":
            raise RuntimeError(f"a saga ended {status}")
        return took

    async def _early(self) -> float:
        """Return how long a saga takes whose event was there before it."""
        aggregate = str(uuid4())
        self._ask.heard = asyncio.Event()
        await self._orchestrator.signal("answer", aggregation_id=aggregate)
        began = time.perf_counter()
        await self._orchestrator.start(saga_name="ask", initial_data={}, aggregation_id=aggregate)
        if not self._ask.heard.is_set():
            raise RuntimeError("the event was not there")
        return 1000 * (time.perf_counter() - began)

    async def _latency(self) -> float:
        """Return how long it takes from an event's sending to its step."""
        aggregate = str(uuid4())
        self._ask.heard = asyncio.Event()
        await self._orchestrator.start(saga_name="ask", initial_data={}, aggregation_id=aggregate)
        began = time.perf_counter()
        sending = asyncio.ensure_future(self._orchestrator.signal("answer", aggregation_id=aggregate))
        await self._ask.heard.wait()
        took = 1000 * (time.perf_counter() - began)
        if await sending != "APPLIED":
            raise RuntimeError("the event was not applied")
        return took

    async def _sql(self, *statements: str, **values: Any) -> None:
        async with self._engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement), values)


async def measure(url: str, rounds: int) -> dict[str, Any]:
    engine = engine_for(url)
    await create_tables(engine)
    async with engine.begin() as connection:
        for statement in TABLES:
            await connection.execute(text(statement))
    found = await Vocabulary(engine, rounds).measure()
    await engine.dispose()
    return found


if __name__ == "__main__":
    main(measure, 20, __doc__)
