"""One orchestrator, one event loop; its sagas run in its own context, and its worker leaves the host as it was."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from contextvars import ContextVar
from decimal import getcontext, localcontext
from threading import Thread
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from saga_orchestrator import (
    BaseStep,
    Event,
    SagaBuilder,
    SagaDefinition,
    SagaError,
    SagaOrchestrator,
    SagaStatus,
    SagaWorker,
    WaitFor,
)
from tests.support.sagas import NAME, Base, Input, Output, Site, TripSaga, soon, until

tenant: ContextVar[str | None] = ContextVar("tenant", default=None)


class Look(BaseStep[Input, Output]):
    """Waits, and says whose context it runs in, before and after."""

    def __init__(self, waits: bool = False) -> None:
        self.seen: list[str | None] = []
        self.waits = waits

    def _look(self) -> Output:
        self.seen.append(f"{tenant.get()} {getcontext().prec}")
        return Output()

    async def execute(self, inp: Input) -> Output | WaitFor:
        out = self._look()
        return WaitFor("go") if self.waits else out

    async def on_event(self, inp: Input, event: Event[Any]) -> Output:
        return self._look()

    async def compensate(self, inp: Input, out: Output | None) -> None: ...


def one(step: BaseStep[Any, Any]) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=step, input_map=lambda _: Input(), step_id="look")
    builder.add_step(step=Look(), input_map=lambda _: Input(), step_id="then")
    return builder.build()


async def test_a_saga_runs_in_the_context_of_its_orchestrator(on_sqlite: Site) -> None:
    """In that of no caller and no sender, and with the decimal settings of when the orchestrator was made."""
    look = Look(waits=True)
    token = tenant.set("host")
    with localcontext(prec=7):
        orchestrator = on_sqlite.joins(one(look))
    tenant.reset(token)

    async def of(name: str, work: Coroutine[Any, Any, Any]) -> Any:
        tenant.set(name)
        return await work

    start = orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a")
    saga_id = await soon(asyncio.create_task(of("ann", start)))
    await soon(asyncio.create_task(of("bob", orchestrator.signal("go", saga_id=saga_id))))
    await soon(orchestrator.result(saga_id))

    assert look.seen == ["host 7", "host 7"]


async def test_another_loop_is_refused_and_the_own_one_unharmed(on_sqlite: Site) -> None:
    orchestrator = on_sqlite.joins(one(Look()))
    own = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    calls = [
        lambda: orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="b"),
        lambda: orchestrator.get_snapshot(own),
        lambda: orchestrator.result(own),
        orchestrator.run_due,
        lambda: orchestrator.resume(own),
        lambda: orchestrator.signal("go", saga_id=own),
        lambda: SagaWorker(orchestrator).run(),
        orchestrator.aclose,
        orchestrator.__aenter__,
    ]

    def refused() -> list[str]:
        said = []
        for call in calls:
            try:
                asyncio.run(call())
            except SagaError as error:
                said.append(str(error))
        return said

    said = await asyncio.to_thread(refused)

    assert len(said) == len(calls)
    assert all("another event loop" in each for each in said)
    after = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="c"))
    assert (await soon(orchestrator.result(after))).status is SagaStatus.COMPLETED


async def test_the_loop_in_which_it_was_made_is_its_own_whoever_comes_first(on_sqlite: Site) -> None:
    orchestrator = on_sqlite.joins(one(Look()))

    def first() -> None:
        asyncio.run(orchestrator.run_due())

    with pytest.raises(SagaError, match="another event loop"):
        await asyncio.to_thread(first)
    assert await soon(orchestrator.run_due()) == 0


def test_one_orchestrator_for_each_run_of_a_loop_works_on_one_engine(sqlite_url: str) -> None:
    """And one that is used in two is refused, and not answered from a loop that is closed."""
    engine = create_async_engine(sqlite_url, poolclass=NullPool)
    kept = SagaOrchestrator[TripSaga](model_class=TripSaga, session_maker=async_sessionmaker(engine))
    kept.register(NAME, one(Look()))

    async def tables() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def place(name: str) -> SagaStatus:
        orchestrator = SagaOrchestrator[TripSaga](model_class=TripSaga, session_maker=async_sessionmaker(engine))
        orchestrator.register(NAME, one(Look()))
        async with orchestrator:
            saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id=name)
            return (await orchestrator.result(saga_id)).status

    async def place_with_the_kept(name: str) -> None:
        async with kept:
            await kept.start(saga_name=NAME, initial_data={}, aggregation_id=name)

    asyncio.run(tables())
    assert [asyncio.run(place(name)) for name in "abc"] == [SagaStatus.COMPLETED] * 3
    asyncio.run(place_with_the_kept("d"))
    with pytest.raises(SagaError, match="another event loop"):
        asyncio.run(place_with_the_kept("e"))


async def test_who_waits_while_the_orchestrator_closes_hears_of_it(on_sqlite: Site) -> None:
    orchestrator = on_sqlite.joins(one(Look(waits=True)))
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    seen = asyncio.Event()

    async def watch() -> None:
        async for _ in orchestrator.watch(saga_id):
            seen.set()

    waiting = [asyncio.create_task(orchestrator.result(saga_id)), asyncio.create_task(watch())]
    await soon(seen.wait())
    await soon(orchestrator.aclose())

    for task in waiting:
        with pytest.raises(SagaError, match="closed"):
            await soon(task)


@pytest.fixture
def host() -> Iterator[list[int]]:
    """A host with handlers of its own for the signals that stop it; what they have heard."""
    heard: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: heard.append(number)) for number in numbers]
    yield heard
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


async def test_the_hosts_signal_handlers_are_back_when_the_last_worker_has_stopped(
    on_sqlite: Site, host: list[int]
) -> None:
    """Whichever worker stops first; a signal stops all that run."""
    orchestrator = on_sqlite.joins(one(Look()))
    workers = [SagaWorker(orchestrator), SagaWorker(orchestrator)]
    before = signal.getsignal(signal.SIGTERM)
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    await until(lambda: signal.getsignal(signal.SIGTERM) is not before)

    workers[0].stop()
    await soon(tasks[0])
    assert signal.getsignal(signal.SIGTERM) is not before

    os.kill(os.getpid(), signal.SIGTERM)
    await soon(tasks[1])
    assert (signal.getsignal(signal.SIGTERM), host) == (before, [])
    os.kill(os.getpid(), signal.SIGINT)
    assert host == [signal.SIGINT]


@pytest.mark.parametrize("first", ["main", "thread"])
async def test_a_worker_in_another_thread_leaves_the_signals_to_the_main_one(
    on_sqlite: Site, host: list[int], first: str
) -> None:
    """Whichever of the two comes first: a signal stops the main thread's worker, and then the host hears again."""
    before = signal.getsignal(signal.SIGTERM)
    there: list[SagaWorker] = []
    thread = Thread(target=lambda: asyncio.run(_work(on_sqlite, there)), daemon=True)
    if first == "thread":
        thread.start()
        await until(lambda: there)
    worker = SagaWorker(on_sqlite.joins(one(Look())))
    task = asyncio.create_task(worker.run())
    await until(lambda: signal.getsignal(signal.SIGTERM) is not before)
    if first == "main":
        thread.start()
        await until(lambda: there)

    os.kill(os.getpid(), signal.SIGTERM)
    await soon(task)
    there[0].stop()
    await soon(asyncio.to_thread(thread.join))

    assert (signal.getsignal(signal.SIGTERM), host) == (before, [])


async def _work(site: Site, there: list[SagaWorker]) -> None:
    engine = create_async_engine(site.url, poolclass=NullPool)
    orchestrator = SagaOrchestrator(model_class=TripSaga, session_maker=async_sessionmaker(engine))
    orchestrator.register(NAME, one(Look()))
    worker = SagaWorker(orchestrator)
    there.append(worker)
    await worker.run()
    await orchestrator.aclose()


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_all_who_close_wait_for_one_end(on_sqlite: Site, is_cancelled: bool) -> None:
    """A caller who gives up does not stop the closing, and a second one does not return before its end."""
    step = Stays()
    orchestrator = on_sqlite.joins(one(step))
    starting = asyncio.create_task(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    await soon(step.begun.wait())
    first = asyncio.create_task(orchestrator.aclose())
    await asyncio.sleep(0)
    if is_cancelled:
        first.cancel()

    await soon(orchestrator.aclose())

    saga_id = await soon(starting)
    assert await on_sqlite.value("SELECT lease_owner FROM trip_saga WHERE id = :id", id=on_sqlite.key(saga_id)) is None
    await asyncio.wait([first])
    assert first.cancelled() is is_cancelled


class Stays(BaseStep[Input, Output]):
    """Does not end by itself."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def execute(self, inp: Input) -> Output:
        self.begun.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def compensate(self, inp: Input, out: Output | None) -> None: ...
