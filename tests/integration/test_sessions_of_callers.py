"""Sagas that are started, and events that are sent, in transactions of their callers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from saga_orchestrator import (
    SagaDefinitionError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
)
from saga_orchestrator.storage.limits import _describe_full_pool
from tests.support.booking import ORDER, saga
from tests.support.sagas import Site, TripSaga, World, soon, trip

Orchestrator = SagaOrchestrator[TripSaga]
Deed = Callable[[Orchestrator, AsyncSession], Awaitable[Any]]


async def starts(orchestrator: Orchestrator, session: AsyncSession) -> Any:
    return await orchestrator.start(**ORDER, session=session)


async def signals(orchestrator: Orchestrator, session: AsyncSession) -> Any:
    return await orchestrator.signal("go", aggregation_id="order-1", session=session)


async def starts_and_signals(orchestrator: Orchestrator, session: AsyncSession) -> Any:
    return await orchestrator.start_or_signal("go", start=ORDER, session=session)  # type: ignore[arg-type]


DEEDS = [starts, signals, starts_and_signals]


async def released(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    async with session.begin_nested():
        await deed(orchestrator, session)


async def released_before(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    async with session.begin_nested():
        await session.execute(text("SELECT 1"))
    await deed(orchestrator, session)


async def nested_twice(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    async with session.begin_nested(), session.begin_nested():
        await deed(orchestrator, session)


async def before_a_savepoint(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    await deed(orchestrator, session)
    async with session.begin_nested():
        await session.execute(text("SELECT 1"))


async def after_one_rolled_back(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    await (await session.begin_nested()).rollback()
    async with session.begin_nested():
        await deed(orchestrator, session)


async def after_a_commit(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    await session.execute(text("SELECT 1"))
    await session.commit()
    async with session.begin_nested():
        await deed(orchestrator, session)


async def after_a_rollback(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    await deed(orchestrator, session)
    await session.rollback()
    await deed(orchestrator, session)


async def released_by_hand(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    await session.execute(text("SAVEPOINT mine"))
    await deed(orchestrator, session)
    await session.execute(text("RELEASE SAVEPOINT mine"))


async def released_by_hand_with_a_comment(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    await session.execute(text("-- ours\n /* first */ savepoint mine"))
    await session.execute(text("SAVEPOINT deeper"))
    await deed(orchestrator, session)
    await session.execute(text("RELEASE mine"))


async def released_by_the_connection(orchestrator: Orchestrator, session: AsyncSession, deed: Deed) -> None:
    connection = await session.connection()
    await connection.exec_driver_sql("SAVEPOINT mine")
    async with session.begin_nested():
        await deed(orchestrator, session)
    await connection.exec_driver_sql("RELEASE mine")


WAYS = [
    released_by_hand,
    released_by_hand_with_a_comment,
    released_by_the_connection,
    released,
    released_before,
    nested_twice,
    before_a_savepoint,
    after_one_rolled_back,
    after_a_commit,
    after_a_rollback,
]


async def _rows(site: Site) -> tuple[int, int]:
    table = TripSaga.__tablename__
    return (
        await site.value(f"SELECT count(*) FROM {table}"),
        await site.value(f"SELECT count(*) FROM {table}_inbox"),
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("deed", DEEDS)
async def test_what_a_caller_rolls_back_is_gone(database: Site, world: World, way: Any, deed: Deed) -> None:
    """Whatever savepoints it has set and released in between."""
    orchestrator = database.joins(trip(world))
    async with database.sessions() as session:
        await way(orchestrator, session, deed)
        await session.rollback()
    assert await _rows(database) == (0, 0)
    await soon(orchestrator.run_due())
    assert world.calls == []


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_caller_commits_is_there(database: Site, world: World, way: Any) -> None:
    """Once, and it runs."""
    orchestrator = database.joins(trip(world))
    async with database.sessions() as session:
        await way(orchestrator, session, starts)
        await session.commit()
    assert await _rows(database) == (1, 0)


async def test_a_savepoint_that_is_rolled_back_takes_the_saga_with_it(database: Site, world: World) -> None:
    """And nothing else."""
    orchestrator = database.joins(trip(world))
    await database.sql("CREATE TABLE IF NOT EXISTS note (n INTEGER)")
    async with database.sessions() as session:
        savepoint = await session.begin_nested()
        await starts(orchestrator, session)
        await savepoint.rollback()
        await session.execute(text("INSERT INTO note VALUES (1)"))
        await session.commit()
    assert (await _rows(database), await database.value("SELECT count(*) FROM note")) == ((0, 0), 1)
    await database.sql("DROP TABLE note")


async def test_a_savepoint_that_was_set_before_the_orchestrator_was_made_is_refused(
    on_sqlite: Site, world: World
) -> None:
    """It is the transaction itself there, and its release would commit."""
    engine = on_sqlite.another_engine()
    sessions = async_sessionmaker(engine)
    async with sessions() as session:
        async with session.begin_nested():
            await session.execute(text("SELECT 1"))
            orchestrator = SagaOrchestrator(model_class=TripSaga, session_maker=sessions)
            orchestrator.register(ORDER["saga_name"], trip(world))
            with pytest.raises(SagaStateError, match="savepoint that was set before"):
                await starts(orchestrator, session)
        await session.rollback()
    await orchestrator.aclose()
    assert await _rows(on_sqlite) == (0, 0)


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_savepoint_by_hand_on_a_connection_in_autocommit_is_refused(
    on_sqlite: Site, world: World, deed: Deed
) -> None:
    """It is the transaction itself, so its release commits."""
    orchestrator = on_sqlite.joins(trip(world))
    async with AsyncSession(on_sqlite.engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        await session.execute(text("SAVEPOINT mine"))
        with pytest.raises(SagaStateError, match="AUTOCOMMIT"):
            await deed(orchestrator, session)
        await session.execute(text("RELEASE mine"))
    assert await _rows(on_sqlite) == (0, 0)


# --- drivers that begin in another way -------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE"])
async def test_an_engine_that_begins_by_an_event_is_borne(on_sqlite: Site, world: World, begin: str) -> None:
    """It is SQLAlchemy's own recipe for savepoints on SQLite."""
    engine = on_sqlite.another_engine()
    event.listen(engine.sync_engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    sessions = async_sessionmaker(engine)
    orchestrator = SagaOrchestrator(model_class=TripSaga, session_maker=sessions)
    orchestrator.register(ORDER["saga_name"], saga(world))
    await on_sqlite.sql("CREATE TABLE counter (n INTEGER)")
    await on_sqlite.sql("INSERT INTO counter VALUES (0)")

    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await on_sqlite.value("SELECT n FROM counter")) == (SagaStatus.COMPLETED, 1)
    async with sessions() as session, session.begin():
        await released(orchestrator, session, starts)
        await session.rollback()
    assert (await _rows(on_sqlite))[0] == 1
    await orchestrator.aclose()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the driver has no such mode before Python 3.12")
async def test_a_driver_that_always_holds_a_transaction_open_is_borne(on_sqlite: Site, world: World) -> None:
    """It is what PEP 249 says; what others see of the saga is committed all the same."""
    engine = on_sqlite.another_engine(connect_args={"autocommit": False})
    sessions = async_sessionmaker(engine)
    orchestrator = SagaOrchestrator(model_class=TripSaga, session_maker=sessions)
    orchestrator.register(ORDER["saga_name"], saga(world))
    await on_sqlite.sql("CREATE TABLE counter (n INTEGER)")
    await on_sqlite.sql("INSERT INTO counter VALUES (0)")
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await on_sqlite.value("SELECT n FROM counter")) == (SagaStatus.COMPLETED, 1)
    async with sessions() as session:
        await released(orchestrator, session, starts)
        await session.rollback()
    assert (await _rows(on_sqlite))[0] == 1
    await orchestrator.aclose()


@pytest.mark.parametrize("option", ["argument", "execution option", "clone"])
async def test_an_engine_in_autocommit_is_refused(database: Site, option: str) -> None:
    """What a saga needs is a transaction."""
    asked = {
        "argument": {"isolation_level": "AUTOCOMMIT"},
        "execution option": {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
        "clone": {},
    }[option]
    engine = database.another_engine(**asked)
    engine = engine.execution_options(isolation_level="AUTOCOMMIT") if option == "clone" else engine
    with pytest.raises(SagaDefinitionError, match="AUTOCOMMIT"):
        SagaOrchestrator(model_class=TripSaga, session_maker=async_sessionmaker(engine))


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("option", ["session", "clone", "engine", "connection"])
async def test_a_callers_session_in_autocommit_is_refused(
    database: Site, world: World, option: str, deed: Deed
) -> None:
    """What it writes would stay, whatever it rolls back."""
    orchestrator = database.joins(trip(world))
    by_itself: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    bind: Any = database.engine
    if option == "clone":
        bind = bind.execution_options(**by_itself)
    elif option == "engine":
        bind = database.another_engine(**by_itself)
    async with bind.connect() as connection:
        if option == "connection":
            bind = await connection.execution_options(**by_itself)
        async with AsyncSession(bind) as session:
            if option == "session":
                _ = await session.connection(execution_options=by_itself)
            with pytest.raises(SagaStateError, match="AUTOCOMMIT"):
                await deed(orchestrator, session)
    assert await _rows(database) == (0, 0)


# --- sessions of another kind, and of elsewhere ----------------------------------------------------------------------


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_scoped_session_is_the_one_of_its_scope(database: Site, world: World, deed: Deed) -> None:
    """It is written in like any other."""
    orchestrator = database.joins(trip(world))
    scoped = async_scoped_session(database.sessions, scopefunc=asyncio.current_task)
    await deed(orchestrator, scoped)  # type: ignore[arg-type]
    await scoped.rollback()
    assert await _rows(database) == (0, 0)
    await deed(orchestrator, scoped)  # type: ignore[arg-type]
    await scoped.commit()
    await scoped.remove()
    assert await _rows(database) != (0, 0)


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_session_of_another_database_is_refused(
    database: Site, world: World, deed: Deed, tmp_path: Path
) -> None:
    """Nobody would ever drive what is written there: by an engine, by a connection, by a bind of the model."""
    orchestrator = database.joins(trip(world))
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.db")
    async with other.begin() as connection:
        await connection.run_sync(TripSaga.metadata.create_all)
    async with other.connect() as connection:
        split = AsyncSession(database.engine, binds={TripSaga: other})
        for session in (AsyncSession(other), AsyncSession(connection), split):
            with pytest.raises(SagaStateError, match="Give a session of the same database"):
                await deed(orchestrator, session)
            await session.close()
    await other.dispose()


@pytest.mark.parametrize("deed", DEEDS)
async def test_what_is_no_session_or_has_no_engine_is_refused(database: Site, world: World, deed: Deed) -> None:
    """By an error that says what to give."""
    orchestrator = database.joins(trip(world))
    with pytest.raises(SagaStateError, match="give an AsyncSession"):
        await deed(orchestrator, Session(database.engine.sync_engine))  # type: ignore[arg-type]
    async with AsyncSession() as session:
        with pytest.raises(SagaStateError, match="no engine for TripSaga"):
            await deed(orchestrator, session)


async def test_a_session_that_translates_schemas_is_refused(database: Site, world: World) -> None:
    """The saga would be written where nobody looks."""
    orchestrator = database.joins(trip(world))
    elsewhere = database.engine.execution_options(schema_translate_map={None: "tenant"})
    async with AsyncSession(elsewhere) as session:
        with pytest.raises(SagaStateError, match="schema_translate_map"):
            await starts(orchestrator, session)


@pytest.mark.parametrize("deed", DEEDS)
async def test_sessions_that_reach_the_same_database_in_another_way_are_taken(
    database: Site, world: World, deed: Deed
) -> None:
    """By another engine, by a connection, by a bind of the model alone."""
    orchestrator = database.joins(trip(world))
    other = database.another_engine()
    async with other.connect() as connection:
        for session in (AsyncSession(other), AsyncSession(connection), AsyncSession(binds={TripSaga: database.engine})):
            async with session:
                await deed(orchestrator, session)
                await session.rollback()
    assert await _rows(database) == (0, 0)


# --- a pool of one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_caller_that_holds_the_only_connection_needs_no_other(database: Site, world: World, deed: Deed) -> None:
    """A fresh orchestrator does not know the database's time, and asks it there."""
    engine = database.another_engine(pool_size=1, max_overflow=0, pool_timeout=1)
    sessions = async_sessionmaker(engine)
    orchestrator = SagaOrchestrator(model_class=TripSaga, session_maker=sessions)
    orchestrator.register(ORDER["saga_name"], trip(world))
    async with sessions() as session, session.begin():
        await session.execute(text("SELECT 1"))
        await deed(orchestrator, session)
    await orchestrator.aclose()
    assert await _rows(database) != (0, 0)


async def test_a_pool_of_one_is_enough_for_everything(database: Site, world: World, counter: Any) -> None:
    """Sagas side by side, with steps in transactions, events and reports."""
    engine = database.another_engine(pool_size=1, max_overflow=0)
    orchestrator = SagaOrchestrator(model_class=TripSaga, session_maker=async_sessionmaker(engine))
    orchestrator.register(ORDER["saga_name"], saga(world))
    ids = await soon(asyncio.gather(*(orchestrator.start(**{**ORDER, "aggregation_id": f"{n}"}) for n in range(5))))
    done = [await soon(orchestrator.result(saga_id)) for saga_id in ids]
    await soon(orchestrator.run_due())
    await soon(orchestrator.aclose())
    assert ({each.status for each in done}, await counter()) == ({SagaStatus.COMPLETED}, 5)


async def test_a_step_that_needs_a_second_connection_of_a_pool_of_one_is_told_so(
    database: Site, world: World, counter: Any
) -> None:
    """It asks for its saga while its own transaction holds the connection."""
    engine = database.another_engine(pool_size=1, max_overflow=0)
    orchestrator = SagaOrchestrator(
        model_class=TripSaga, session_maker=async_sessionmaker(engine), database_timeout=timedelta(milliseconds=300)
    )
    orchestrator.register(ORDER["saga_name"], saga(world))
    world.plan("book", lambda: orchestrator.get_snapshot(world.contexts[-1].saga_id))
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    await soon(orchestrator.aclose())

    assert (result.status, world.calls) == (SagaStatus.FAILED, ["book"])
    assert "All 1 connections of the pool were in use" in str(result.error)
    assert "make the pool larger" in str(result.error)


async def test_a_pool_that_is_not_full_is_not_blamed(database: Site) -> None:
    for options in ({"pool_size": 2}, {"max_overflow": -1}, {"poolclass": NullPool}):
        assert _describe_full_pool(database.another_engine(**options)) == ""
