"""N1: steps and compensations whose rows and records are committed together, or not at all."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from saga_orchestrator import (
    FixedRetry,
    OutcomeUnknown,
    SagaAdmin,
    SagaBuilder,
    SagaStatus,
    WaitFor,
)
from tests.support.booking import ORDER, Book, saga
from tests.support.sagas import Deed, Input, Site, World, soon


async def test_n1_rows_and_record_are_committed_together(database: Site, world: World, counter: Any) -> None:
    """While the step is at work nobody sees its rows; when it has returned, they and its record are there."""
    orchestrator = database.joins(saga(world))
    gate = world.gate("ship")
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = orchestrator.engine.drivers
    history = (await SagaAdmin(engine=orchestrator.engine).get_saga(saga_id)).step_history
    assert (await counter(), [row.step_id for row in history]) == (1, ["book"])
    gate.open()
    assert (await soon(orchestrator.result(await soon(starting)))).status is SagaStatus.COMPLETED


async def test_n1_a_compensation_is_exactly_once_too(database: Site, world: World, counter: Any) -> None:
    """The counter is back where it was."""
    orchestrator = database.joins(saga(world, fails=True))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.COMPENSATED, 0)


@pytest.mark.parametrize("error", [ValueError("no"), OutcomeUnknown("who knows"), None])
async def test_n1_what_has_not_come_off_has_left_nothing(
    database: Site, world: World, counter: Any, error: Exception | None
) -> None:
    """Raised, in doubt or out of time: it was rolled back, and so there is no doubt; then it is tried again."""
    retry = FixedRetry(max_attempts=100, delay=timedelta(0))  # a busy machine may need more than the second
    orchestrator = database.joins(saga(world, retry_policy=retry, timeout=timedelta(milliseconds=200)))
    world.plan("book", error or world_without_end)

    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))

    assert (result.status, await counter()) == (SagaStatus.COMPLETED, 1)
    history = (await SagaAdmin(engine=orchestrator.engine).get_saga(result.saga_id)).step_history
    *failed, book, last = [row.status for row in history]
    assert (set(failed), book, last) == ({"ERROR"}, "SUCCESS", "SUCCESS")
    assert [ctx.in_doubt for ctx in world.contexts[:2]] == [False, False]


async def world_without_end() -> None:
    await asyncio.Event().wait()


async def test_n1_a_worker_that_dies_before_the_commit_has_done_nothing(
    database: Site, world: World, counter: Any
) -> None:
    """The next owner does it, once, and without a doubt."""
    dying, other = database.joins(saga(world)), database.joins(saga(world))
    gate = world.gate("book")
    starting = asyncio.create_task(dying.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = dying.engine.drivers
    for driver in tuple(dying.engine.drivers.values()):
        driver.lose()
    await soon(starting)
    await database.make_due(saga_id)

    await soon(other.run_due())

    assert (await soon(other.result(saga_id))).status is SagaStatus.COMPLETED
    assert (await counter(), world.contexts[1].in_doubt, world.contexts[1].attempt) == (1, False, 1)


async def test_n1_a_zombie_is_rolled_back(database: Site, world: World, counter: Any) -> None:
    """It returns when the saga is another's: its rows go with its reply."""
    if database.url.startswith("sqlite"):
        pytest.skip("a transaction that writes is alone on SQLite: nobody can take the saga meanwhile")
    await database.sql("DELETE FROM counter")
    zombie, other = database.joins(saga(world)), database.joins(saga(world))
    gate = world.gate("book")
    starting = asyncio.create_task(zombie.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = zombie.engine.drivers
    await database.make_due(saga_id)
    await soon(other.run_due())
    await soon(other.result(saga_id))
    await database.sql("INSERT INTO counter VALUES (5)")
    gate.open()
    await soon(starting)

    assert await counter() == 5
    assert world.calls == ["book", "book", "ship"]


async def test_n1_a_step_that_commits_by_itself_is_told_so(database: Site, world: World, counter: Any) -> None:
    """It fails for good, and nothing of it is kept."""
    orchestrator = database.joins(saga(world))

    async def commits() -> None:
        await world.contexts[-1].session.commit()

    world.plan("book", commits)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))

    assert (result.status, await counter()) == (SagaStatus.FAILED, 0)
    assert "committed ctx.session itself" in str(result.error)


async def test_n1_a_savepoint_is_the_steps_own_affair(database: Site, world: World, counter: Any) -> None:
    """Also one that is rolled back."""
    orchestrator = database.joins(saga(world))

    async def tries() -> None:
        session = world.contexts[-1].session
        async with session.begin_nested():
            await session.execute(text("UPDATE counter SET n = n + 2"))
        savepoint = await session.begin_nested()
        await session.execute(text("UPDATE counter SET n = n + 4"))
        await savepoint.rollback()

    world.plan("book", tries)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.COMPLETED, 3)


async def test_n1_what_the_database_refuses_was_not_done(database: Site, world: World, counter: Any) -> None:
    """A constraint of the application's own fails the step, which has left nothing."""
    await database.sql("UPDATE counter SET n = 99")
    orchestrator = database.joins(saga(world))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.FAILED, 99)


async def test_n1_a_transactional_step_may_wait(database: Site, world: World, counter: Any) -> None:
    """The question is committed with its rows, and so is what follows the answer."""
    orchestrator = database.joins(saga(world))

    async def asks() -> WaitFor:
        return WaitFor("go")

    world.plan("book", asks)
    saga_id = await soon(orchestrator.start(**ORDER))
    assert (await orchestrator.get_snapshot(saga_id)).awaiting == "event:go"
    assert await counter() == 1
    await soon(orchestrator.signal("go", saga_id=saga_id))
    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    assert await counter() == 11


async def test_n1_side_by_side(database: Site, world: World, counter: Any) -> None:
    """Transactional and other steps of one saga do not hold each other up for good."""
    builder = SagaBuilder()
    with builder.parallel():
        for number in range(3):
            builder.add_step(step=Book(world), input_map=lambda ctx: Input(), step_id=f"book{number}")
            builder.add_step(step=Deed(world, f"d{number}"), input_map=lambda ctx: Input(), step_id=f"d{number}")
    orchestrator = database.joins(builder.build())
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.COMPLETED, 3)
