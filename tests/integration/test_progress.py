"""How far a step says that it has come, seen from any process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from saga_orchestrator import (
    BaseStep,
    FixedRetry,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaSnapshot,
    SagaStatus,
    StepContext,
    step,
)
from saga_orchestrator.definition.io import Payloads
from saga_orchestrator.runtime.progress import _read, seal
from tests.support.sagas import NAME, Input, Output, Site, TripSaga, World, soon

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}


class Long(BaseStep[Input, Output]):
    def __init__(self, work: Callable[[StepContext], Awaitable[None]]) -> None:
        self.work = work

    async def execute(self, inp: Input, ctx: StepContext) -> Output:
        await self.work(ctx)
        return Output()


def saga(work: Callable[[StepContext], Awaitable[None]], **options: Any) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=Long(work), input_map=lambda ctx: Input(), step_id="long", **options)
    return builder.build()


async def first(snapshots: Any, wanted: Callable[[SagaSnapshot], bool]) -> SagaSnapshot:
    """Return the first of several snapshots that is as wanted."""
    return await soon(anext(each async for each in snapshots if wanted(each)))


async def test_progress_is_seen_from_another_process(database: Site, world: World) -> None:
    """The latest of it, while the attempt is in flight; afterwards there is none."""
    gate = world.gate("work")

    async def work(ctx: StepContext) -> None:
        ctx.progress(1, 10)
        ctx.progress(4, 10, "boxes\x00")
        await world.call("work", ctx)

    orchestrator, other = database.joins(saga(work)), database.joins(saga(work))
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = orchestrator.engine.drivers

    seen = (await first(other.watch(saga_id), lambda each: bool(each.progress))).progress["long"]

    assert (seen.done, seen.total, seen.message) == (4, 10, "boxes\\x00")
    assert abs(seen.at - orchestrator.engine.now()) < timedelta(minutes=1)
    gate.open()
    assert (await soon(other.result(await soon(starting)))).status is SagaStatus.COMPLETED
    assert (await other.get_snapshot(saga_id)).progress == {}


async def test_what_an_earlier_attempt_said_is_over(database: Site, world: World) -> None:
    """A new attempt has said nothing yet."""
    gate = world.gate("again")

    async def work(ctx: StepContext) -> None:
        if ctx.attempt == 1:
            ctx.progress(9)
            await first(orchestrator.watch(ctx.saga_id), lambda each: bool(each.progress))
            raise ValueError("again")
        await world.call("again", ctx)

    retry = FixedRetry(max_attempts=2, delay=timedelta(0))
    orchestrator = database.joins(saga(work, retry_policy=retry))
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = orchestrator.engine.drivers
    assert (await orchestrator.get_snapshot(saga_id)).progress == {}
    gate.open()
    await soon(starting)


async def test_a_synchronous_step_shows_progress_from_its_thread(database: Site) -> None:
    """It blocks its thread until somebody has seen it."""
    loop, seen = asyncio.get_running_loop(), []

    @step
    def long(inp: Input, ctx: StepContext) -> Output:
        ctx.progress(1, 2, "half")
        shown = first(orchestrator.watch(ctx.saga_id), lambda each: bool(each.progress))
        seen.append(asyncio.run_coroutine_threadsafe(shown, loop).result(20).progress["long"].message)
        return Output()

    builder = SagaBuilder()
    builder.add_step(step=long, input_map=lambda ctx: Input(), step_id="long")
    orchestrator = database.joins(builder.build())
    await soon(orchestrator.start(**ORDER))
    assert seen == ["half"]


@pytest.mark.parametrize("said", [("much",), (float("nan"),), (1, "all"), (True,)])
async def test_progress_is_numbers(on_sqlite: Site, said: tuple[Any, ...]) -> None:
    """The step hears at once what is wrong with it."""

    async def work(ctx: StepContext) -> None:
        ctx.progress(*said)

    orchestrator = on_sqlite.joins(saga(work))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert result.status is SagaStatus.FAILED
    assert "progress() takes numbers" in str(result.error)


async def test_progress_that_cannot_be_shown_harms_nobody(database: Site, world: World) -> None:
    """The database refuses it, again and again; the step goes on, and the engine can be closed."""
    store = database.meddling_store()
    refused = asyncio.Event()

    async def refuse(real: Any, *args: Any) -> None:
        refused.set()
        raise ConnectionError("away")

    store.around["show"] = refuse

    async def work(ctx: StepContext) -> None:
        ctx.progress(1)
        await refused.wait()

    orchestrator = database.joins(saga(work), store=store)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert result.status is SagaStatus.COMPLETED
    await soon(orchestrator.aclose())


async def test_progress_waits_for_nobodys_lock(on_postgres: Site, world: World) -> None:
    """A row that somebody has locked is passed over, and others show theirs meanwhile."""
    gates = [world.gate("work"), world.gate("work")]

    async def work(ctx: StepContext) -> None:
        await world.call("work", ctx)
        ctx.progress(1)
        await world.call("rest", ctx)

    rest = [world.gate("rest"), world.gate("rest")]
    orchestrator = on_postgres.joins(saga(work))
    orders = [{**ORDER, "aggregation_id": f"order-{number}"} for number in range(2)]
    starting = [asyncio.create_task(orchestrator.start(**order)) for order in orders]
    for gate in gates:
        await gate.wait_reached()
    locked, free = orchestrator.engine.drivers
    async with on_postgres.engine.begin() as connection:
        await connection.execute(text("SELECT id FROM trip_saga WHERE id = :id FOR UPDATE"), {"id": locked})
        for gate in gates:
            gate.open()
        await first(orchestrator.watch(free), lambda each: bool(each.progress))
        assert (await orchestrator.get_snapshot(locked)).progress == {}
    for gate in rest:
        gate.open()
    for task in starting:
        await soon(task)


class Turned:
    """Stands in for encryption."""

    def encode(self, text: str) -> str:
        return text[::-1]

    def decode(self, text: str) -> str:
        return text[::-1]


async def test_a_message_is_encoded_where_a_codec_encrypts_payloads(database: Site, world: World) -> None:
    """It may quote a payload. Who has the codec reads it, and what was written before there was one."""
    gate = world.gate("work")

    async def work(ctx: StepContext) -> None:
        ctx.progress(1, 2, "card 4711")
        await world.call("work", ctx)

    orchestrator, other = (database.joins(saga(work), payload_codec=Turned()) for _ in range(2))
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = orchestrator.engine.drivers

    seen = (await first(other.watch(saga_id), lambda each: bool(each.progress))).progress["long"]

    assert seen.message == "card 4711"
    assert (await SagaAdmin[TripSaga](engine=other.engine).get_saga(saga_id)).progress["long"] == seen
    stored = await database.value("SELECT CAST(progress AS TEXT) FROM trip_saga")
    assert "4711" not in stored
    assert "1174 drac" in stored
    gate.open()
    await soon(starting)


class Broken(Turned):
    """A codec that has lost its key."""

    def encode(self, text: str) -> str:
        raise LookupError("no key")

    def decode(self, text: str) -> str:
        raise LookupError("no key")


@pytest.mark.parametrize(
    ("stored", "codec", "shown"),
    [("plain", Turned(), "plain"), ('"nope"', Turned(), None), ('"""', Turned(), None), ('"x"', Broken(), None)],
)
def test_a_message_that_cannot_be_decoded_is_not_shown(stored: str, codec: Turned, shown: str | None) -> None:
    """One that was stored before there was a codec is."""
    said = {"done": 1, "total": None, "message": stored, "at": "2026-01-01T00:00:00+00:00"}
    assert _read(said, Payloads(codec=codec)).message == shown


def test_a_codec_that_fails_costs_the_message_and_not_the_step() -> None:
    said = {"done": 1, "total": None, "message": "m"}
    assert seal(said, Payloads(codec=Broken())) == {**said, "message": None}
    assert seal(said, Payloads()) is said
