"""What a hostile review of `ctx.once` and `ctx.progress` has found: ways to deny what stands, and to wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from saga_orchestrator import (
    BaseStep,
    FixedRetry,
    OutcomeUnknown,
    PermanentError,
    SagaBuilder,
    SagaDefinition,
    SagaStateError,
    SagaStatus,
    StepContext,
    WaitFor,
    step,
)
from saga_orchestrator.runtime.notes import NoteBook
from tests.support.sagas import NAME, Deed, Input, Output, Site, World, soon

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
Work = Callable[[StepContext], Awaitable[Any]]
MINUTE = timedelta(minutes=1)


class Parts(BaseStep[Input, Output]):
    """A step without an undo."""

    def __init__(self, work: Work, undo: Work | None = None) -> None:
        self.work, self.undo = work, undo

    async def execute(self, inp: Input, ctx: StepContext) -> Output:
        await self.work(ctx)
        return Output()


class Undoable(Parts):
    async def compensate(self, inp: Input, out: Output | None, ctx: StepContext) -> None:
        assert self.undo is not None
        await self.undo(ctx)


class Probed(Undoable):
    async def probe(self, inp: Input) -> Output | None:
        return None


class Asking(BaseStep[Input, Output]):
    async def execute(self, inp: Input, ctx: StepContext) -> Output | WaitFor:
        await ctx.once("a", lambda: 1)
        return WaitFor("never", timeout=timedelta(milliseconds=1))

    async def on_event(self, inp: Input, event: Any) -> Output:
        return Output()


def saga(*steps: BaseStep[Input, Output], **options: Any) -> SagaDefinition:
    builder = SagaBuilder()
    for number, each in enumerate(steps):
        said = options if number == len(steps) - 1 else {}
        builder.add_step(step=each, input_map=lambda ctx: Input(), step_id=f"s{number}", **said)
    return builder.build()


async def run(database: Site, definition: SagaDefinition) -> Any:
    orchestrator = database.joins(definition)
    return await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))


async def gathered(ctx: StepContext) -> None:
    """One part fails cleanly, and the other goes on beside it."""
    both = (ctx.once("a", asyncio.Event().wait), ctx.once("b", raising))
    try:
        await asyncio.gather(*both)
    finally:
        for task in asyncio.all_tasks():
            if task.get_coro().__qualname__.startswith("Backing"):  # type: ignore[union-attr]
                task.cancel()


async def raising() -> None:
    raise PermanentError("no")


async def cut_off(ctx: StepContext) -> None:
    """The part has acted, and is cut off before it says so."""
    try:
        async with asyncio.timeout(0.01):
            await ctx.once("a", asyncio.Event().wait)
    except TimeoutError as error:
        raise PermanentError("too slow") from error


async def translated(ctx: StepContext) -> None:
    """What says that nobody knows is said in other words."""
    try:
        await ctx.once("a", object)
    except OutcomeUnknown as error:
        raise PermanentError("no idea") from error


@pytest.mark.parametrize("work", [gathered, cut_off, translated])
async def test_a_step_with_a_part_under_way_has_acted_whatever_it_raises(
    database: Site, world: World, work: Work
) -> None:
    """It cannot be undone, so that is for a person; what came before it waits for that."""
    result = await run(database, saga(Deed(world, "first"), Parts(work)))
    assert (result.status, result.residue) == (SagaStatus.STUCK, ("s1",))


async def test_a_part_that_failed_has_not_acted(database: Site, world: World) -> None:
    """Its error is as clean as any."""
    result = await run(database, saga(Deed(world, "first"), Parts(lambda ctx: ctx.once("a", raising))))
    assert (result.status, result.residue) == (SagaStatus.COMPENSATED, ())


async def test_a_probe_does_not_unsay_a_part(database: Site) -> None:
    """It says that the step has not come off; the part is undone all the same."""
    undone = []

    async def work(ctx: StepContext) -> None:
        await ctx.once("a", lambda: 1)
        raise PermanentError("no")

    async def undo(ctx: StepContext) -> None:
        undone.append(dict(ctx.remembered))

    result = await run(database, saga(Probed(work, undo)))
    assert (result.status, undone) == (SagaStatus.COMPENSATED, [{"a": 1}])


async def test_a_wait_that_runs_out_does_not_unsay_a_part(database: Site) -> None:
    """The step cannot be undone, and has acted."""
    orchestrator = database.joins(saga(Asking()))
    saga_id = await soon(orchestrator.start(**ORDER))
    await database.make_due(saga_id)
    await soon(orchestrator.run_due())
    result = await soon(orchestrator.result(saga_id))
    assert (result.status, result.residue) == (SagaStatus.STUCK, ("s0",))


async def test_a_part_whose_note_is_under_way_is_not_done_again(database: Site) -> None:
    """The step stops waiting for the note, and asks again: it is given what is remembered."""
    store = database.meddling_store()
    slow, calls, found = asyncio.Event(), [], []

    async def write(real: Any, batch: Any) -> Any:
        if calls and not slow.is_set():
            await slow.wait()
        return await real(batch)

    store.around["write"] = write

    async def work(ctx: StepContext) -> None:
        asking = asyncio.ensure_future(ctx.once("a", lambda: calls.append(1) or len(calls)))
        while not calls:  # noqa: ASYNC110 - until it has acted, and waits for its note
            await asyncio.sleep(0)
        asking.cancel()
        again = asyncio.ensure_future(ctx.once("a", lambda: calls.append(2) or len(calls)))
        slow.set()
        found.append(await again)

    orchestrator = database.joins(saga(Parts(work)), store=store)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, found, calls) == (SagaStatus.COMPLETED, [1], [1])


async def test_a_part_that_asks_for_itself_is_told_so(on_sqlite: Site) -> None:
    """It would wait for itself for ever."""

    async def work(ctx: StepContext) -> None:
        await ctx.once("a", lambda: ctx.once("a", lambda: 1))

    result = await run(on_sqlite, saga(Parts(work)))
    assert "asks for once('a') while it does just that part" in str(result.error)


async def test_a_thread_has_no_parts(on_sqlite: Site) -> None:
    """The error says so at once; a part that is silently not done would be worse."""
    said = []

    @step
    def threaded(inp: Input, ctx: StepContext) -> Output:
        with pytest.raises(SagaStateError, match="calls once\\(\\) from a thread"):
            ctx.once("a", lambda: 1)
        assert ctx.heartbeat_deadline is not None
        said.append(ctx.heartbeat_deadline)
        return Output()

    builder = SagaBuilder()
    builder.add_step(step=threaded, input_map=lambda ctx: Input())
    assert (await run(on_sqlite, builder.build())).status is SagaStatus.COMPLETED
    assert isinstance(said[0], datetime)


async def test_the_heartbeat_of_a_transactional_step_goes_on(on_postgres: Site) -> None:
    """A renewal of the lease is the saga's, however its step works."""
    seen: list[datetime | None] = []

    class Exact(Parts):
        transactional = True

    async def work(ctx: StepContext) -> None:
        driver = orchestrator.engine.drivers[ctx.saga_id]
        seen.append(ctx.heartbeat_deadline)
        driver.tenure.lease_until += 60
        seen.append(ctx.heartbeat_deadline)

    orchestrator = on_postgres.joins(saga(Exact(work)))
    await soon(orchestrator.start(**ORDER))
    assert seen[0] is not None
    assert seen[1] == seen[0] + MINUTE


async def test_an_undo_shows_its_own_progress(database: Site, world: World) -> None:
    """That of the way forward is over, although the attempts have the same number."""

    async def work(ctx: StepContext) -> None:
        ctx.progress(10, 10)
        async for snapshot in orchestrator.watch(ctx.saga_id):
            if snapshot.progress:
                return

    async def undo(ctx: StepContext) -> None:
        seen.append((await orchestrator.get_snapshot(ctx.saga_id)).progress)

    seen: list[Any] = []
    orchestrator = database.joins(saga(Undoable(work, undo), Parts(lambda ctx: raising())))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, seen) == (SagaStatus.COMPENSATED, [{}])


async def test_who_has_lost_a_saga_shows_no_progress_of_it(on_sqlite: Site) -> None:
    """Also where it is the same process that has it again; and a closed engine shows none at all."""
    board = on_sqlite.joins(None).engine.board
    book = NoteBook(lambda _: None)
    tenure: Any = type("Tenure", (), {"book": book, "progress": {}, "saga_id": None})()
    book.close()
    board.show(tenure, ("a", 1, False), {"done": 1})
    assert tenure.progress == {}
    await board.aclose()
    tenure.book = NoteBook(lambda _: None)
    board.show(tenure, ("a", 1, False), {"done": 1})
    assert tenure.progress == {}


async def test_progress_beyond_all_floats_is_refused(on_sqlite: Site) -> None:
    """JSON has no such number."""

    async def work(ctx: StepContext) -> None:
        ctx.progress(10**400)

    result = await run(on_sqlite, saga(Parts(work), retry_policy=FixedRetry(max_attempts=1, delay=MINUTE)))
    assert "progress() takes numbers" in str(result.error)
