"""What a function of the author's returns is awaited when it can be, or fails its step; it never counts as done."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from saga_orchestrator import (
    BaseStep,
    Event,
    FailureAction,
    FixedRetry,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
    SagaResult,
    SagaStatus,
    StepContext,
    WaitFor,
    step,
)
from tests.support.sagas import NAME, Input, Output, Site, soon


def handed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """A plain decorator around a coroutine function, such as one that traces calls."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    """An async decorator that forgot its `await`: its coroutine returns another."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def in_a_pool(function: Callable[..., Any]) -> Callable[..., Any]:
    """A plain decorator that hands the work to a thread pool, and returns its future."""
    pool = concurrent.futures.ThreadPoolExecutor(1)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return pool.submit(lambda: asyncio.run(function(*args, **kwargs)))

    return wrapper


DECORATORS = [handed_on, twice, in_a_pool]


class Shop:
    """What the functions of one saga have done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def held(self, undo: Callable[..., Any] | None = None) -> Any:
        @step
        async def hold(sku: str) -> str:
            return f"h-{sku}"

        async def release(out: str | None) -> None:
            self.done.append(f"released {out}")

        hold.compensate(undo or release)
        return hold


@step
async def refuse(sku: str) -> str:
    raise PermanentError("declined")


def failing(held: Any, **settings: Any) -> SagaDefinition:
    builder = SagaBuilder(**settings)
    builder.add_step(step=held, input_map=lambda _: {"sku": "7"}, step_id="hold")
    builder.add_step(step=refuse, input_map=lambda _: {"sku": "7"}, step_id="pay", compensation=None)
    return builder.build()


async def came_to(site: Site, definition: SagaDefinition, **data: Any) -> SagaResult:
    orchestrator = site.joins(definition)
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data=data, aggregation_id="a"))
    return await soon(orchestrator.result(saga_id))  # type: ignore[no-any-return]


@pytest.mark.parametrize("decorate", DECORATORS)
async def test_an_undo_that_hands_on_a_coroutine_has_run_before_the_saga_is_compensated(
    on_sqlite: Site, decorate: Callable[..., Any]
) -> None:
    shop = Shop()

    async def release(out: str | None) -> None:
        shop.done.append(f"released {out}")

    result = await came_to(on_sqlite, failing(shop.held(decorate(release))))

    assert (result.status, shop.done) == (SagaStatus.COMPENSATED, ["released h-7"])


def a_generator(out: str | None = None) -> Any:
    return (None for _ in range(3))


def an_async_generator(out: str | None = None) -> Any:
    async def release() -> Any:
        yield None

    return release()


def an_inner_function(out: str | None = None) -> Any:
    async def release() -> None: ...

    return release


def a_partial(out: str | None = None) -> Any:
    return functools.partial(print, out)


@contextlib.contextmanager
def a_context_manager(out: str | None = None) -> Any:
    yield


def a_list_of_coroutines(out: str | None = None) -> Any:
    async def release() -> None: ...

    return [release()]


def a_list_of_futures(out: str | None = None) -> Any:
    return [concurrent.futures.Future[None]()]


def a_thread(out: str | None = None) -> Any:
    return threading.Thread(target=print)


def an_object_that_can_be_called(out: str | None = None) -> Any:
    return {"undo": Asks()}


async def a_gather_that_swallows_errors(out: str | None = None) -> Any:
    async def release() -> None:
        raise ValueError("the bank is closed")

    return await asyncio.gather(release(), return_exceptions=True)


NOT_RUN = [
    a_generator,
    an_async_generator,
    an_inner_function,
    a_partial,
    a_context_manager,
    a_list_of_coroutines,
    a_list_of_futures,
    a_thread,
    an_object_that_can_be_called,
    a_gather_that_swallows_errors,
]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("undo", NOT_RUN)
async def test_an_undo_that_returns_what_has_not_run_leaves_the_saga_stuck(
    on_sqlite: Site, undo: Callable[..., Any]
) -> None:
    result = await came_to(on_sqlite, failing(Shop().held(undo)))

    assert (result.status, result.residue) == (SagaStatus.STUCK, ("hold",))


async def test_an_undo_of_a_class_that_returns_what_has_not_run_leaves_the_saga_stuck(on_sqlite: Site) -> None:
    class Hold(BaseStep[Input, Output]):
        async def execute(self, inp: Input) -> Output:
            return Output()

        async def compensate(self, inp: Input, out: Output | None) -> None:
            return an_inner_function()  # type: ignore[no-any-return]

    builder = SagaBuilder()
    builder.add_step(step=Hold(), input_map=lambda _: Input(), step_id="hold")
    builder.add_step(step=refuse, input_map=lambda _: {"sku": "7"}, step_id="pay", compensation=None)
    result = await came_to(on_sqlite, builder.build())

    assert (result.status, result.residue) == (SagaStatus.STUCK, ("hold",))


@pytest.mark.parametrize("decorate", [handed_on, twice])
async def test_a_step_a_probe_a_wait_and_a_confirm_are_awaited(on_sqlite: Site, decorate: Callable[..., Any]) -> None:
    """Each is a coroutine function under a decorator that does not look like one."""
    done: list[str] = []

    async def act(sku: str, ctx: StepContext) -> str:
        await asyncio.sleep(0)
        done.append("act")
        await asyncio.sleep(3600 if ctx.attempt == 1 else 0)
        return sku

    async def look(sku: str) -> str | None:
        done.append("look")
        return "found"

    async def last(out: str) -> None:
        done.append(f"confirm {out}")

    async def ask(n: int) -> int | WaitFor:
        return WaitFor(timeout=timedelta(0))

    async def go_on(event: Event[Any]) -> int:
        done.append("go on")
        return 1

    acted, asked = step(decorate(act)), step(decorate(ask))
    acted.compensate(lambda: None)
    acted.probe(decorate(look))
    acted.confirm(decorate(last))
    asked.on_event(decorate(go_on))
    builder = SagaBuilder()
    limit = timedelta(milliseconds=50)
    builder.add_step(step=asked, input_map=lambda _: {"n": 1}, step_id="ask", compensation=None)
    builder.add_step(step=acted, input_map=lambda _: {"sku": "7"}, step_id="act", timeout=limit)
    orchestrator = on_sqlite.joins(builder.build())
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    while not (await orchestrator.get_snapshot(saga_id)).status.is_terminal:
        await soon(orchestrator.run_due())

    result = await soon(orchestrator.result(saga_id))
    assert result.status is SagaStatus.COMPLETED
    assert [word.split()[0] for word in done] == ["go", "act", "look", "confirm"]


async def test_maps_that_return_coroutines_are_awaited(on_sqlite: Site) -> None:
    """Of a step, a choice, the items of a list, a part, an event and a timer."""

    @step
    async def keep(n: int) -> int:
        return n

    async def later(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    past = datetime(2020, 1, 1, tzinfo=UTC)
    part, whole = SagaBuilder(), SagaBuilder()
    part.add_step(step=keep, input_map=lambda ctx: later({"n": ctx.initial_data}), step_id="keep", compensation=None)
    branch = part.build()
    whole.add_choice(
        choose=lambda _: later("b"), branches={"a": branch, "b": branch}, step_id="c", input_map=lambda _: 1
    )
    whole.add_each(items=lambda _: later([{"n": 1}, {"n": 2}]), step=keep, step_id="each", compensation=None)
    whole.add_saga(definition=branch, input_map=lambda _: later(5), namespace="part")
    whole.add_timer(until=lambda _: later(past), step_id="timer")
    orchestrator = on_sqlite.joins(whole.build())
    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="a"))
    while not (await orchestrator.get_snapshot(saga_id)).status.is_terminal:
        await soon(orchestrator.run_due())
    result = await soon(orchestrator.result(saga_id))

    assert result.status is SagaStatus.COMPLETED, result.error
    assert (result.outputs["each.all"], result.outputs["part"]) == ([1, 2], 5)


@pytest.mark.parametrize("value", [an_async_generator, an_inner_function])
async def test_a_map_that_returns_what_has_not_run_fails_its_step(on_sqlite: Site, value: Callable[..., Any]) -> None:
    @step
    async def keep(n: int) -> int:
        return n

    builder = SagaBuilder()
    builder.add_step(step=keep, input_map=lambda _: value(), step_id="keep", compensation=None)

    assert (await came_to(on_sqlite, builder.build())).status is SagaStatus.FAILED


async def test_a_map_that_is_awaited_ends_with_its_steps_time(on_sqlite: Site) -> None:
    @step
    async def keep(n: int) -> int:
        return n

    builder = SagaBuilder()
    limit = timedelta(milliseconds=20)
    builder.add_step(
        step=keep, input_map=lambda _: asyncio.sleep(3600), step_id="keep", compensation=None, timeout=limit
    )
    result = await came_to(on_sqlite, builder.build())

    assert result.status is SagaStatus.FAILED
    assert "timed out" in (result.error or "")


@pytest.mark.parametrize("decorate", [*DECORATORS, functools.partial])
@pytest.mark.parametrize("action", [FailureAction.CLOSE_ALL, FailureAction.ALERT_HUMAN])
async def test_a_hook_is_awaited(on_sqlite: Site, action: FailureAction, decorate: Callable[..., Any]) -> None:
    called = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def hook(*_: Any) -> bool:
        loop.call_soon_threadsafe(called.set)
        return True

    settings = {"on_failure": action, action.value.lower(): decorate(hook)}
    await came_to(on_sqlite, failing(Shop().held(), **settings))

    await soon(called.wait())


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("value", NOT_RUN)
async def test_a_hook_that_returns_what_has_not_run_leaves_the_saga_dirty(
    on_sqlite: Site, value: Callable[..., Any]
) -> None:
    async def unable(out: str | None) -> None:
        raise PermanentError("no")

    definition = failing(Shop().held(unable), close_all=lambda _: value())
    result = await came_to(on_sqlite, definition)
    admin = SagaAdmin(on_sqlite.joins(definition))

    with pytest.raises(PermanentError, match="it returned"):
        await soon(admin.execute_compensation(result.saga_id, FailureAction.CLOSE_ALL, actor="ann"))
    assert await admin.dirty_sagas() == [result.saga_id]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("value", NOT_RUN)
async def test_a_confirm_that_returns_what_has_not_run_leaves_the_saga_stuck(
    on_sqlite: Site, value: Callable[..., Any]
) -> None:
    hold = Shop().held()
    hold.confirm(value)
    builder = SagaBuilder()
    builder.add_step(step=hold, input_map=lambda _: {"sku": "7"}, step_id="hold")
    result = await came_to(on_sqlite, builder.build())

    assert result.status is SagaStatus.STUCK


async def test_a_future_of_another_loop_leaves_its_step_in_doubt(on_sqlite: Site) -> None:
    other = asyncio.new_event_loop()
    foreign = other.create_future()
    builder = SagaBuilder()

    @step
    def ask(n: int) -> int:
        return foreign  # type: ignore[return-value]

    ask.compensate(lambda out: None)
    builder.add_step(step=ask, input_map=lambda _: {"n": 1}, step_id="ask")
    result = await came_to(on_sqlite, builder.build())
    other.close()

    assert (result.status, result.residue) == (SagaStatus.STUCK, ("ask",))


async def test_a_part_of_a_step_is_awaited_until_it_cannot_be(on_sqlite: Site) -> None:
    class Parts(BaseStep[Input, Output]):
        async def execute(self, inp: Input, ctx: StepContext) -> Output:
            async def part() -> str:
                return "done"

            return Output(ref=await ctx.once("part", twice(part)))

    builder = SagaBuilder()
    builder.add_step(step=Parts(), input_map=lambda _: Input(), step_id="parts", compensation=None)

    assert (await came_to(on_sqlite, builder.build())).outputs["parts"] == {"ref": "done"}


class Asks:
    """A predicate that is a callable object whose call is a coroutine."""

    async def __call__(self, error: BaseException) -> bool:
        return True


async def asks(error: BaseException) -> bool:
    return True


@pytest.mark.parametrize("predicate", [asks, functools.partial(asks), Asks()])
def test_a_policy_refuses_a_predicate_that_is_async(predicate: Any) -> None:
    with pytest.raises(SagaDefinitionError, match="not async"):
        FixedRetry(3, timedelta(0), give_up_on=predicate)


async def test_a_predicate_that_returns_a_coroutine_has_not_said_yes(on_sqlite: Site) -> None:
    """Nor is that coroutine forgotten, which Python would warn of."""
    calls: list[int] = []

    @step
    async def fail(n: int) -> int:
        calls.append(n)
        raise ValueError(n)

    builder = SagaBuilder()
    policy = FixedRetry(3, timedelta(0), retry_on=handed_on(asks))
    builder.add_step(step=fail, input_map=lambda _: {"n": 1}, step_id="fail", compensation=None, retry_policy=policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = await came_to(on_sqlite, builder.build())

    assert (result.status, calls) == (SagaStatus.FAILED, [1])
