"""Steps that lose the connection of their transaction: done again only if it is certain that nothing of them stands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from saga_orchestrator import SagaAdmin, SagaStatus
from saga_orchestrator.storage.bracket import AsyncpgBracket
from tests.support.booking import ORDER, saga
from tests.support.sagas import Site, World, soon

Kill = Callable[[AsyncSession], Awaitable[None]]
Way = Callable[[AsyncSession, Kill], Awaitable[None]]
DIE = "SELECT pg_terminate_backend(pg_backend_pid())"


async def driver_of(session: AsyncSession) -> Any:
    return (await (await session.connection()).get_raw_connection()).driver_connection


@pytest.fixture
def kill(database: Site) -> Kill:
    """Return what ends the connection of a session, from outside."""

    async def end(session: AsyncSession) -> None:
        driver = await driver_of(session)
        if database.url.startswith("sqlite"):
            await driver.close()
            return
        pid = driver.get_server_pid()
        await database.value(f"SELECT pg_terminate_backend({pid})")
        while await database.value(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"):
            pass

    return end


async def driver_commits(session: AsyncSession, kill: Kill) -> None:
    await (await driver_of(session)).execute("COMMIT")
    await kill(session)


async def driver_commits_and_begins(session: AsyncSession, kill: Kill) -> None:
    driver = await driver_of(session)
    for sql in ("COMMIT", "BEGIN"):
        await driver.execute(sql)
    await kill(session)


async def driver_commits_then_the_step_raises(session: AsyncSession, kill: Kill) -> None:
    await driver_commits_and_begins(session, kill)
    raise ValueError("after the commit")


async def driver_commits_and_uses_the_session(session: AsyncSession, kill: Kill) -> None:
    await driver_commits_and_begins(session, kill)
    await session.execute(text("UPDATE counter SET n = n + 1"))


BOTH: list[Way] = [
    driver_commits,
    driver_commits_and_begins,
    driver_commits_then_the_step_raises,
    driver_commits_and_uses_the_session,
]


async def a_script_commits(session: AsyncSession, kill: Kill) -> None:
    await (await driver_of(session)).execute("UPDATE counter SET n = n + 1; COMMIT; BEGIN")
    await kill(session)


async def the_answer_to_a_commit_is_lost(session: AsyncSession, kill: Kill) -> None:
    await (await driver_of(session)).execute(f"COMMIT; {DIE}")


async def commit_and_chain(session: AsyncSession, kill: Kill) -> None:
    await session.execute(text("/* why */ COMMIT AND CHAIN"))
    await kill(session)


POSTGRESQLS: list[Way] = [a_script_commits, the_answer_to_a_commit_is_lost, commit_and_chain]


@pytest.mark.parametrize("way", BOTH)
async def test_a_step_that_may_have_committed_before_its_connection_was_lost_is_in_doubt(
    database: Site, world: World, counter: Any, kill: Kill, way: Way
) -> None:
    """The driver's own COMMIT passes by SQLAlchemy. The step is not done again, for its row would be there twice."""
    await ends_in_doubt(database, world, kill, way)
    assert await counter() == 1


@pytest.mark.parametrize("way", POSTGRESQLS)
async def test_a_commit_that_the_engine_cannot_prove_any_more_is_a_doubt(
    database: Site, world: World, counter: Any, kill: Kill, way: Way
) -> None:
    """Whatever words and whatever way the COMMIT took, and also if its answer has not come."""
    if database.url.startswith("sqlite"):
        pytest.skip("SQLite has no such commands")
    await ends_in_doubt(database, world, kill, way)


async def ends_in_doubt(database: Site, world: World, kill: Kill, way: Way) -> None:
    orchestrator = database.joins(saga(world))
    world.plan("book", lambda: way(world.contexts[-1].session, kill))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, result.residue, world.calls) == (SagaStatus.STUCK, ("book",), ["book"])
    (row,) = (await SagaAdmin(engine=orchestrator.engine).get_saga(result.saga_id)).step_history
    assert row.status == "IN_DOUBT"


# --- what is done again ----------------------------------------------------------------------------------------------


async def writes_nothing(session: AsyncSession) -> None: ...


async def reads_by_the_driver(session: AsyncSession) -> None:
    driver = await driver_of(session)
    await driver.execute("SELECT 1")
    await driver.fetch("-- counts\n SELECT n FROM counter WHERE n > $1", 0)


async def uses_savepoints(session: AsyncSession) -> None:
    async with session.begin_nested():
        await session.execute(text("UPDATE counter SET n = n + 1"))
    with suppress(ValueError):
        async with session.begin_nested():
            raise ValueError("not this")


@pytest.mark.parametrize("before", [writes_nothing, reads_by_the_driver, uses_savepoints])
async def test_a_lost_connection_costs_no_attempt_if_nothing_can_have_been_committed(
    database: Site, world: World, counter: Any, kill: Kill, before: Callable[[AsyncSession], Awaitable[None]]
) -> None:
    """Statements that end no transaction leave nothing on a connection that is lost."""
    if database.url.startswith("sqlite"):
        pytest.skip("a file has no connection that is lost by itself")
    orchestrator = database.joins(saga(world))

    async def lose() -> None:
        session = world.contexts[-1].session
        await before(session)
        await kill(session)

    world.plan("book", lose, lose)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, world.calls, await counter()) == (SagaStatus.COMPLETED, ["book"] * 3 + ["ship"], 1)


# --- what looks clean, and is not ------------------------------------------------------------------------------------


async def then_a_statement_fails(session: AsyncSession) -> None:
    await session.execute(text("SELECT * FROM nowhere"))


async def then_the_session_is_rolled_back(session: AsyncSession) -> None:
    await session.rollback()


async def then_the_session_is_committed(session: AsyncSession) -> None:
    await session.commit()


THEN = [then_a_statement_fails, then_the_session_is_rolled_back, then_the_session_is_committed]


@pytest.mark.parametrize("begins", [False, True], ids=["", "and begins"])
@pytest.mark.parametrize("then", THEN)
async def test_a_commit_of_the_drivers_is_a_doubt_whatever_the_step_does_then(
    database: Site, world: World, counter: Any, then: Callable[[AsyncSession], Awaitable[None]], begins: bool
) -> None:
    """An error, a rollback or a commit by SQLAlchemy says nothing of what the driver has committed before."""

    async def way(session: AsyncSession, kill: Kill) -> None:
        driver = await driver_of(session)
        await driver.execute("COMMIT")
        if begins:
            await driver.execute("BEGIN")
        await then(session)

    async def never(session: AsyncSession) -> None: ...

    await ends_in_doubt(database, world, never, way)
    assert await counter() == 1


async def test_a_commit_after_a_rollback_is_a_doubt(database: Site, world: World, counter: Any) -> None:
    """What the driver writes and commits after the session was rolled back stands."""

    async def way(session: AsyncSession, kill: Kill) -> None:
        driver = await driver_of(session)
        await session.rollback()
        await driver.execute("UPDATE counter SET n = 7")
        await driver.execute("COMMIT")

    async def never(session: AsyncSession) -> None: ...

    await ends_in_doubt(database, world, never, way)
    assert await counter() == 7


async def test_nothing_more_is_sent_by_a_session_that_its_step_has_ended(
    database: Site, world: World, counter: Any
) -> None:
    """It would be in no transaction, or be lost; the step is told, and has failed with nothing left."""
    orchestrator = database.joins(saga(world))
    refused: list[str] = []

    async def ends() -> None:
        session = world.contexts[-1].session
        await session.rollback()
        try:
            await session.execute(text("UPDATE counter SET n = n + 50"))
        except Exception as error:
            refused.append(str(error))
            raise

    world.plan("book", ends)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, result.residue, await counter()) == (SagaStatus.FAILED, (), 0)
    assert ["rolled back ctx.session itself" in each for each in refused] == [True]


async def test_a_dbapi_error_of_a_lost_connection_may_be_caught(database: Site, world: World, counter: Any) -> None:
    """The step that hides it is done again all the same, and nothing of it is there twice."""
    if database.url.startswith("sqlite"):
        pytest.skip("a file has no connection that is lost by itself")
    orchestrator = database.joins(saga(world))

    async def hides() -> None:
        with suppress(DBAPIError):
            await world.contexts[-1].session.execute(text(DIE))

    world.plan("book", hides)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.COMPLETED, 1)


# --- steps that are cut off ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["in a statement", "in the commit"])
async def test_a_step_that_is_cut_off_is_in_no_doubt_if_it_has_committed_nothing_itself(
    database: Site, world: World, counter: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Its process closes while a statement of its, or the engine's commit, is on its way; the next one does it once."""
    if database.url.startswith("sqlite"):
        pytest.skip("SQLite has no statement that waits")
    orchestrator, other = database.joins(saga(world)), database.joins(saga(world))
    reached = asyncio.Event()
    real = AsyncpgBracket.commit

    async def commits(self: AsyncpgBracket) -> None:
        monkeypatch.setattr(AsyncpgBracket, "commit", real)
        asyncio.get_running_loop().call_soon(reached.set)
        sending = self._send
        monkeypatch.setattr(self, "_send", lambda script: sending(script.replace("COMMIT", "SELECT pg_sleep(60)")))
        try:
            await real(self)
        finally:
            monkeypatch.setattr(self, "_send", sending)

    async def waits() -> None:
        asyncio.get_running_loop().call_soon(reached.set)
        await world.contexts[-1].session.execute(text("SELECT pg_sleep(60)"))

    if where == "in the commit":
        monkeypatch.setattr(AsyncpgBracket, "commit", commits)
    else:
        world.plan("book", waits)
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await soon(reached.wait())
    (saga_id,) = orchestrator.engine.drivers
    await soon(orchestrator.aclose())
    await asyncio.wait([starting])
    await soon(other.run_due())

    found = await other.get_snapshot(saga_id)
    assert (found.status, found.residue, await counter()) == (SagaStatus.COMPLETED, (), 1)
    assert world.calls == ["book", "book", "ship"]
