"""A step that waits for its own saga is told so; and what fails inside of a driver is counted, and never silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from saga_orchestrator import (
    BaseStep,
    Event,
    FixedRetry,
    RetryAfter,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    StepContext,
    WaitFor,
)
from tests.support.sagas import NAME, Input, Output, Site, TripSaga, soon

Orchestrator = SagaOrchestrator[TripSaga]
Asking = Callable[[Orchestrator, StepContext], Awaitable[Any]]


class Calls(BaseStep[Input, Output]):
    """Calls back into the engine that runs it."""

    def __init__(self, ask: Asking) -> None:
        self.ask, self.engine, self.errors = ask, None, list[str]()
        self.orchestrator: Orchestrator

    async def execute(self, inp: Input, ctx: StepContext) -> Output:
        try:
            await self.ask(self.orchestrator, ctx)
        except SagaStateError as error:
            self.errors.append(str(error))
        return Output()

    async def compensate(self, inp: Input, out: Output | None) -> None: ...


def one(step: BaseStep[Any, Any], **options: Any) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=step, input_map=lambda _: Input(), step_id="s", **options)
    return builder.build()


def idle() -> Calls:
    made = Calls(lambda o, ctx: asyncio.sleep(0))
    made.orchestrator = None  # type: ignore[assignment]
    return made


def again(orchestrator: Orchestrator, ctx: StepContext) -> dict[str, Any]:
    return {"saga_name": NAME, "initial_data": {}, "aggregation_id": "a", "idempotency_key": "k"}


async def watched(orchestrator: Orchestrator, saga_id: UUID) -> list[SagaStatus]:
    return [snapshot.status async for snapshot in orchestrator.watch(saga_id)]


async def with_a_loop_of_its_own(orchestrator: Orchestrator, ctx: StepContext) -> None:
    result = orchestrator.result
    await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(result(ctx.saga_id)))


ASKED: dict[str, Asking] = {
    "watch": lambda o, ctx: watched(o, ctx.saga_id),
    "start": lambda o, ctx: o.start(**again(o, ctx)),
    "run": lambda o, ctx: o.run(**again(o, ctx)),
    "resume": lambda o, ctx: o.resume(ctx.saga_id),
    "result": lambda o, ctx: o.result(ctx.saga_id),
    "order": lambda o, ctx: SagaAdmin[TripSaga](engine=o.engine).cancel(ctx.saga_id),
    "aclose": lambda o, ctx: o.aclose(),
    "run_due": lambda o, ctx: o.run_due(),
    "in a task": lambda o, ctx: asyncio.create_task(o.result(ctx.saga_id)),
}


@pytest.mark.parametrize("name", ASKED)
async def test_a_step_that_waits_for_its_own_saga_is_told_so(on_sqlite: Site, name: str) -> None:
    step = Calls(ASKED[name])
    step.orchestrator = orchestrator = on_sqlite.joins(one(step))
    saga_id = await soon(orchestrator.start(**again(orchestrator, None)))  # type: ignore[arg-type]

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    (said,) = step.errors
    assert str(saga_id) in said
    assert "itself" in said or "aclose" in said or "run_due" in said


async def test_a_thread_of_a_steps_own_with_another_loop_is_refused(on_sqlite: Site) -> None:
    step = Calls(with_a_loop_of_its_own)
    step.orchestrator = orchestrator = on_sqlite.joins(one(step))
    saga_id = await soon(orchestrator.start(**again(orchestrator, None)))  # type: ignore[arg-type]

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    assert len(step.errors) == 1


async def test_a_step_may_watch_its_own_saga_while_another_step_is_at_work(on_sqlite: Site) -> None:
    """It sees the other step end; then it would wait for itself."""
    seen: list[int] = []
    looked = asyncio.Event()

    async def watch(orchestrator: Orchestrator, ctx: StepContext) -> None:
        async for snapshot in orchestrator.watch(ctx.saga_id):
            seen.append(len(snapshot.residue))
            looked.set()

    async def wait(orchestrator: Orchestrator, ctx: StepContext) -> None:
        await looked.wait()

    first, second = Calls(watch), Calls(wait)
    builder = SagaBuilder()
    with builder.parallel():
        for name, step in (("first", first), ("second", second)):
            builder.add_step(step=step, input_map=lambda _: Input(), step_id=name)
    orchestrator = on_sqlite.joins(builder.build())
    first.orchestrator = second.orchestrator = orchestrator
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    assert ("watch was called from a step of this very saga" in first.errors[0], len(seen) >= 2) == (True, True)


@pytest.mark.parametrize("wait", [watched, lambda o, saga_id: o.result(saga_id)], ids=["watch", "result"])
async def test_two_sagas_that_wait_for_each_other_are_told_so(
    on_sqlite: Site, wait: Callable[[Orchestrator, UUID], Any]
) -> None:
    """By the call that would close the ring."""
    ids: list[UUID] = []

    async def outer(orchestrator: Orchestrator, ctx: StepContext) -> None:
        ids.append(ctx.saga_id)
        await orchestrator.run(saga_name="inner", initial_data={}, aggregation_id="b")

    first, second = Calls(outer), Calls(lambda o, ctx: wait(o, ids[0]))
    orchestrator = on_sqlite.joins(one(first))
    orchestrator.register("inner", one(second))
    first.orchestrator = second.orchestrator = orchestrator
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    assert "Both would wait for ever" in second.errors[0]


async def test_a_child_that_waits_for_its_parent_is_told_so(on_sqlite: Site) -> None:
    ids: list[UUID] = []
    child = Calls(lambda o, ctx: o.result(ids[0]))
    whole = SagaBuilder()
    whole.add_child("child", input_map=lambda _: {}, step_id="child")
    child.orchestrator = orchestrator = on_sqlite.joins(whole.build())
    orchestrator.register("child", one(child))

    real = orchestrator.engine.wake_soon

    def woken(saga_ids: Any) -> None:
        ids.extend(i for i, driver in orchestrator.engine.drivers.items() if driver.tenure.saga_name == NAME)
        real(saga_ids)

    orchestrator.engine.wake_soon = woken  # type: ignore[method-assign]
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    assert "from a step of its child" in child.errors[0]


async def test_a_grandchild_that_waits_for_its_grandparent_is_told_so(on_sqlite: Site) -> None:
    """Also when nobody drives the saga between the two, which waits for its own child."""
    grandchild = Calls(lambda o, ctx: o.result(saga_id))
    definitions = {"grandchild": one(grandchild)}
    for name, below in (("child", "grandchild"), (NAME, "child")):
        builder = SagaBuilder()
        builder.add_child(below, input_map=lambda _: {}, step_id=below)
        definitions[name] = builder.build()
    orchestrator = grandchild.orchestrator = on_sqlite.joins(definitions[NAME])
    for name in ("child", "grandchild"):
        orchestrator.register(name, definitions[name])
    async with on_sqlite.sessions() as session, session.begin():
        started = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "a"}
        saga_id = await orchestrator.start(**started, session=session)

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    assert "from a step of its child" in grandchild.errors[0]


async def test_a_step_may_wait_for_another_saga_and_send_events_to_its_own(on_sqlite: Site) -> None:
    async def fine(orchestrator: Orchestrator, ctx: StepContext) -> None:
        await orchestrator.run(saga_name="inner", initial_data={}, aggregation_id="b")
        await orchestrator.signal("later", saga_id=ctx.saga_id)
        await orchestrator.get_snapshot(ctx.saga_id)

    step = Calls(fine)
    step.orchestrator = orchestrator = on_sqlite.joins(one(step))
    orchestrator.register("inner", one(idle()))
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    assert step.errors == []


async def test_a_task_that_a_step_leaves_behind_is_free_when_its_saga_is_over(on_sqlite: Site) -> None:
    left: list[asyncio.Task[Any]] = []
    gate = asyncio.Event()

    async def later(orchestrator: Orchestrator, ctx: StepContext) -> None:
        async def after() -> Any:
            await gate.wait()
            return await orchestrator.result(ctx.saga_id)

        left.append(asyncio.create_task(after()))

    step = Calls(later)
    step.orchestrator = orchestrator = on_sqlite.joins(one(step))
    await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    gate.set()

    assert (await soon(left[0])).status is SagaStatus.COMPLETED


# --- failures of the engine's own ------------------------------------------------------------------------------------


async def test_a_driver_that_fails_by_itself_is_counted_and_at_last_the_saga_is_stuck(
    on_sqlite: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failure is as the loss of an owner; the saga's row says what it was."""
    orchestrator = on_sqlite.joins(one(idle()))
    performer = orchestrator.engine._tools.performer

    def broken(*_: Any, **__: Any) -> Any:
        async def performing() -> Any:
            raise ZeroDivisionError("a defect")

        return performing()

    monkeypatch.setattr(performer, "perform", broken)
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    assert "a defect" in ((await orchestrator.get_snapshot(saga_id)).last_error or "")
    for _ in range(7):
        await on_sqlite.make_due(saga_id)
        await soon(orchestrator.run_due())

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.STUCK


async def test_what_the_database_refuses_counts_against_no_saga(
    on_sqlite: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = on_sqlite.joins(one(idle()))
    performer = orchestrator.engine._tools.performer

    def broken(*_: Any, **__: Any) -> Any:
        async def performing() -> Any:
            raise ConnectionResetError

        return performing()

    with monkeypatch.context() as patched:
        patched.setattr(performer, "perform", broken)
        saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
        for _ in range(8):
            await on_sqlite.make_due(saga_id)
            await soon(orchestrator.run_due())
    await on_sqlite.make_due(saga_id)
    await soon(orchestrator.run_due())

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED


LONG = timedelta.max
FAR = datetime.max.replace(tzinfo=UTC)


class Asks(BaseStep[Input, Output]):
    def __init__(self, **wait: Any) -> None:
        self.wait = wait

    async def execute(self, inp: Input, ctx: StepContext) -> Output | WaitFor:
        return WaitFor("go", **self.wait)

    async def on_event(self, inp: Input, event: Event[Any]) -> Output:
        return Output()

    async def compensate(self, inp: Input, out: Output | None) -> None: ...


class Later(BaseStep[Input, Output]):
    def __init__(self, delay: timedelta) -> None:
        self.delay = delay

    async def execute(self, inp: Input, ctx: StepContext) -> Output:
        raise RetryAfter(self.delay)

    async def compensate(self, inp: Input, out: Output | None) -> None: ...


@pytest.mark.parametrize(
    "definition",
    [
        one(Asks(timeout=LONG)),
        one(Asks(until=FAR)),
        one(Asks(), timeout=LONG),
        one(Later(LONG), retry_policy=FixedRetry(3, LONG)),
    ],
)
async def test_a_time_beyond_the_calendar_is_cut(database: Site, definition: SagaDefinition) -> None:
    orchestrator = database.joins(definition)
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    await soon(orchestrator.run_due())

    snapshot = await orchestrator.get_snapshot(saga_id)
    assert snapshot.status is SagaStatus.SUSPENDED


async def test_a_time_before_the_epoch_is_up(database: Site) -> None:
    orchestrator = database.joins(one(Asks(until=datetime(1969, 12, 31, tzinfo=UTC))))
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    while not (snapshot := await orchestrator.get_snapshot(saga_id)).status.is_terminal:
        assert snapshot.status is not SagaStatus.STUCK
        await soon(orchestrator.run_due())

    assert snapshot.status is SagaStatus.COMPENSATED


class Leaves(BaseStep[Input, Output]):
    async def execute(self, inp: Input) -> Output:
        raise GeneratorExit

    async def compensate(self, inp: Input, out: Output | None) -> None: ...


async def test_a_step_that_raises_generator_exit_is_in_doubt_at_once(on_sqlite: Site) -> None:
    """Asyncio keeps it in the task and tells nobody, so that the saga would wait for its lease each time."""
    orchestrator = on_sqlite.joins(one(Leaves()))
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))

    result = await soon(orchestrator.result(saga_id))
    assert (result.status, result.error) == (SagaStatus.COMPENSATED, "GeneratorExit()")


async def test_a_saga_whose_deadline_is_beyond_the_calendar_runs(on_sqlite: Site) -> None:
    builder = SagaBuilder(deadline=LONG, undo_window=LONG)
    builder.add_step(step=idle(), input_map=lambda _: Input(), step_id="s", timeout=LONG)
    orchestrator = on_sqlite.joins(builder.build(), event_retention=LONG)
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    await SagaAdmin[TripSaga](engine=orchestrator.engine).compensate_step(saga_id)

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPENSATED


async def test_a_pause_of_less_than_nothing_is_none(on_sqlite: Site) -> None:
    orchestrator = on_sqlite.joins(one(Later(timedelta.min), retry_policy=FixedRetry(2, timedelta(0))))
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    while not (await orchestrator.get_snapshot(saga_id)).status.is_terminal:
        await soon(orchestrator.run_due())

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.FAILED


def test_a_lease_beyond_the_calendar_is_refused(on_sqlite: Site) -> None:
    with pytest.raises(SagaDefinitionError, match="execution_lease"):
        on_sqlite.joins(None, execution_lease=LONG)
