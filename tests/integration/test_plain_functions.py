"""Plain functions, in the threads of their orchestrator: what one of them does harms no other, and nobody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from saga_orchestrator import SagaBuilder, SagaDefinition, SagaDefinitionError, SagaStatus, step
from saga_orchestrator.runtime import threads
from tests.support.sagas import NAME, Site, soon, until


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds plain functions until the test is over."""
    made = threading.Event()
    yield made
    made.set()


def one_step(function: object, limit: timedelta | None = None, out: bool = False) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=function, input_map=lambda _: {"n": 1}, step_id="s", timeout=limit, compensation=None)  # type: ignore[arg-type]
    return builder.build()


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_what_ends_other_programs_fails_the_step_of_a_plain_function(
    on_sqlite: Site, error: type[BaseException]
) -> None:
    @step
    def end(n: int) -> int:
        raise error

    orchestrator = on_sqlite.joins(one_step(end))
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))

    result = await soon(orchestrator.result(saga_id))
    assert (result.status, result.residue) == (SagaStatus.FAILED, ())
    assert error.__name__ in (result.error or "")


async def test_functions_that_hang_after_their_time_hold_up_no_other(on_sqlite: Site, gate: threading.Event) -> None:
    """Also where they take all the threads that there are."""

    @step
    def hang(n: int) -> int:
        gate.wait()
        return n

    @step
    def quick(n: int) -> int:
        return n

    orchestrator = on_sqlite.joins(one_step(hang, timedelta(milliseconds=20)), threads=1)
    orchestrator.register("quick", one_step(quick))
    for name in "abc":
        await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id=name))
    saga_id = await soon(orchestrator.start(saga_name="quick", initial_data={}, aggregation_id="q"))

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    await soon(orchestrator.aclose())  # it waits for none of them


async def test_the_time_of_a_step_does_not_run_while_it_queues(on_sqlite: Site, gate: threading.Event) -> None:
    """Nor is its attempt given up, though the moment has passed by which it would have ended."""
    began = threading.Event()

    @step
    def hold(n: int) -> int:
        began.set()
        gate.wait()
        return n

    @step
    def quick(n: int) -> int:
        return n

    limit = timedelta(milliseconds=1)
    orchestrator = on_sqlite.joins(one_step(hold), threads=1)
    orchestrator.register("quick", one_step(quick, timedelta(seconds=20)))
    first = asyncio.create_task(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="h"))
    await until(began.is_set)
    second = asyncio.create_task(orchestrator.start(saga_name="quick", initial_data={}, aggregation_id="q"))
    await until(lambda: orchestrator.engine.threads._queue)
    (driver,) = [each for each in orchestrator.engine.drivers.values() if each.tenure.saga_name == "quick"]
    late = driver._tools.now() + timedelta(hours=1) + limit

    assert driver._alarm.spared(late) == {"s"}

    gate.set()
    for start in (first, second):
        assert (await soon(orchestrator.result(await soon(start)))).status is SagaStatus.COMPLETED


async def test_too_many_that_hang_are_named_by_who_is_refused(
    on_sqlite: Site, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MOST_ABANDONED", 2)

    @step
    def hang(n: int) -> int:
        gate.wait()
        return n

    orchestrator = on_sqlite.joins(one_step(hang, timedelta(milliseconds=20)))
    ids = [
        await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id=name)) for name in ("a", "b", "c")
    ]
    hung, _, refused = [await soon(orchestrator.result(saga_id)) for saga_id in ids]

    assert "timed out" in (hung.error or "")
    assert f"step 's' of saga {ids[0]} (1)" in (refused.error or "")
    assert (refused.status, refused.residue) == (SagaStatus.FAILED, ())  # it has not begun


async def test_who_queues_where_nothing_ends_is_refused(
    on_sqlite: Site, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LONGEST_WAIT", 0.01)
    began = threading.Event()

    @step
    def hold(n: int) -> int:
        began.set()
        gate.wait()
        return n

    orchestrator = on_sqlite.joins(one_step(hold), threads=1)
    first = asyncio.create_task(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    await until(began.is_set)
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="b"))

    assert "no thread is free" in ((await soon(orchestrator.result(saga_id))).error or "")
    gate.set()
    assert (await soon(orchestrator.result(await soon(first)))).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "4", None])
def test_a_number_of_threads_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(SagaDefinitionError, match="threads is"):
        threads.Threads(size)  # type: ignore[arg-type]


async def test_a_turn_that_comes_to_who_was_cut_off_goes_to_the_next(gate: threading.Event) -> None:
    pool = threads.Threads(1)
    first = asyncio.create_task(pool.run(gate.wait))
    await until(lambda: pool._at_work)
    second, third = asyncio.create_task(pool.run(lambda: 2)), asyncio.create_task(pool.run(lambda: 3))
    await until(lambda: len(pool._queue) == 2)

    first.cancel()
    await until(lambda: second.done() or pool._at_work)
    second.cancel()

    assert await soon(third) == 3
    assert not pool._at_work


async def test_a_coroutine_that_an_abandoned_function_returns_is_closed(gate: threading.Event) -> None:
    """Python would warn of it otherwise."""

    async def later() -> None: ...

    made = later()

    def late() -> object:
        gate.wait()
        return made

    pool = threads.Threads(1)
    task = asyncio.create_task(pool.run(late))
    await until(lambda: pool._at_work)
    task.cancel()
    await until(lambda: pool._abandoned)
    gate.set()
    await until(lambda: not pool._abandoned)

    with pytest.raises(RuntimeError, match="cannot reuse"):
        await made


async def test_a_closed_pool_begins_nothing(gate: threading.Event) -> None:
    pool = threads.Threads(1)
    first = asyncio.create_task(pool.run(gate.wait))
    await until(lambda: pool._at_work)
    queued = asyncio.create_task(pool.run(lambda: 2))
    await until(lambda: pool._queue)

    pool.close()

    with pytest.raises(threads.NoThreadError, match="being closed"):
        await soon(queued)
    with pytest.raises(threads.NoThreadError, match="is closed"):
        await pool.run(lambda: 3)
    gate.set()
    assert await soon(first)
