"""The engine's own tasks: who waits may leave, and the work goes on."""

from __future__ import annotations

import asyncio

import pytest

from saga_orchestrator.runtime.background import Background


@pytest.fixture
def background() -> Background:
    return Background()


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


async def opened(gate: asyncio.Event, told: list[str]) -> str:
    await gate.wait()
    told.append("done")
    return "done"


async def broken(gate: asyncio.Event) -> None:
    await gate.wait()
    raise KeyError("lost")


async def test_the_outcome_is_the_callers(background: Background, gate: asyncio.Event) -> None:
    """He gets what the work returns, or what it raises."""
    gate.set()

    assert await background.outcome(opened, gate, []) == "done"
    with pytest.raises(KeyError, match="lost"):
        await background.outcome(broken, gate)


async def test_a_caller_who_leaves_takes_nothing_with_him(background: Background, gate: asyncio.Event) -> None:
    """Cancelled while he waits, he hears of it at once; the work goes on to its end, and is waited for at the end."""
    told: list[str] = []
    caller = asyncio.create_task(background.outcome(opened, gate, told))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()

    gate.set()
    await background.join()

    assert told == ["done"]


async def test_an_error_that_nobody_waits_for_is_nobodys_trouble(background: Background, gate: asyncio.Event) -> None:
    """It is neither lost in a warning of the event loop nor raised where the engine waits for its tasks."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    caller = asyncio.create_task(background.outcome(broken, gate))
    task = background.begin(broken(gate))
    await asyncio.sleep(0)
    caller.cancel()

    gate.set()
    await background.join()
    await asyncio.wait([task, caller])
    del task, caller

    assert complaints == []


async def test_work_that_is_cut_off_cuts_off_who_waits_for_it(background: Background, gate: asyncio.Event) -> None:
    """Nobody waits for ever for work that has been cancelled."""
    begun = asyncio.Event()

    async def endless() -> None:
        begun.set()
        await gate.wait()

    caller = asyncio.create_task(background.outcome(endless))
    await begun.wait()
    (task,) = background._tasks
    task.cancel()

    await asyncio.wait([caller])
    assert caller.cancelled()


async def test_work_that_is_cut_off_before_it_began_is_not_waited_for(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also then whoever waits hears of it; it can be so where Python begins no task at once."""
    monkeypatch.setattr(
        "saga_orchestrator.runtime.background.begun", lambda work, context: asyncio.create_task(work, context=context)
    )

    async def never() -> None:
        raise AssertionError("it has begun")

    caller = asyncio.create_task(background.outcome(never))
    await asyncio.sleep(0)
    (task,) = background._tasks
    task.cancel()

    await asyncio.wait([caller])
    assert caller.cancelled()
