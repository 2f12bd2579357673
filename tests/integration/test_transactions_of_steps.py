"""Steps that end their transaction themselves, and transactions that the database gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from saga_orchestrator import (
    BaseStep,
    FixedRetry,
    PermanentError,
    RetryAfter,
    SagaAdmin,
    SagaBuilder,
    SagaOrchestrator,
    SagaStatus,
    StepContext,
)
from tests.support.booking import ORDER, Book, saga
from tests.support.sagas import Input, Output, Site, TripSaga, World, soon

TWICE = FixedRetry(max_attempts=2, delay=timedelta(0))
Way = Callable[[AsyncSession], Awaitable[Any]]


async def raw_commit(session: AsyncSession) -> None:
    await session.execute(text("COMMIT"))


async def raw_rollback(session: AsyncSession) -> None:
    await session.execute(text("ROLLBACK"))


async def commit_and_begin(session: AsyncSession) -> None:
    for sql in ("COMMIT", "BEGIN", "UPDATE counter SET n = n + 20"):
        await session.execute(text(sql))


async def driver_commits(session: AsyncSession) -> None:
    driver: Any = (await (await session.connection()).get_raw_connection()).driver_connection
    for sql in ("COMMIT", "BEGIN"):
        await driver.execute(sql)


async def commit_then_raise(session: AsyncSession) -> None:
    await session.execute(text("COMMIT"))
    raise ValueError("after the commit")


async def commit_begin_raise(session: AsyncSession) -> None:
    await commit_and_begin(session)
    raise ValueError("after the commit")


async def commit_then_hang(session: AsyncSession) -> None:
    await session.execute(text("COMMIT"))
    await asyncio.Event().wait()


RAW: list[Way] = [
    raw_commit,
    raw_rollback,
    commit_and_begin,
    driver_commits,
    commit_then_raise,
    commit_begin_raise,
    commit_then_hang,
]


async def connection_commits(session: AsyncSession) -> None:
    await (await session.connection()).commit()


async def connection_commits_quietly(session: AsyncSession) -> None:
    with pytest.raises(Exception, match="for the engine to commit"):
        await (await session.connection()).commit()


async def sync_connection_commits(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.connection().commit())


async def connection_rolls_back(session: AsyncSession) -> None:
    await (await session.connection()).rollback()


async def session_commits(session: AsyncSession) -> None:
    await session.commit()


async def session_rolls_back(session: AsyncSession) -> None:
    await session.rollback()


SQLALCHEMYS: list[Way] = [
    connection_commits,
    connection_commits_quietly,
    sync_connection_commits,
    connection_rolls_back,
    session_commits,
    session_rolls_back,
]


class Ends(Book):
    """Its compensation can do without its output."""

    async def compensate(self, inp: Input, out: Output | None, ctx: StepContext) -> None:  # type: ignore[override]
        self.world.calls.append(f"undo with {out}")
        await ctx.session.execute(text("UPDATE counter SET n = 0"))


@pytest.mark.parametrize("way", RAW)
async def test_a_step_that_ends_its_transaction_past_the_session_is_in_doubt_and_not_done_again(
    database: Site, world: World, counter: Any, way: Way
) -> None:
    """Its row may stand; so the saga is STUCK with it, whatever attempts are left, and never COMPLETED or FAILED."""
    enough = timedelta(seconds=1 if way is commit_then_hang else 60)
    orchestrator = database.joins(saga(world, retry_policy=TWICE, timeout=enough))
    world.plan("book", lambda: way(world.contexts[-1].session))

    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))

    assert (result.status, result.residue, world.calls) == (SagaStatus.STUCK, ("book",), ["book"])
    (row,) = (await SagaAdmin(engine=orchestrator.engine).get_saga(result.saga_id)).step_history
    assert (row.status, "itself, past ctx.session" in str(row.error)) == ("IN_DOUBT", True)


@pytest.mark.parametrize("way", [raw_commit, commit_then_raise])
async def test_a_step_in_doubt_is_undone_without_its_output_where_it_can(
    database: Site, world: World, counter: Any, way: Way
) -> None:
    """The row that stands is taken away, and only then is the saga COMPENSATED."""
    builder = SagaBuilder()
    builder.add_step(step=Ends(world), input_map=lambda ctx: Input(), step_id="book", retry_policy=TWICE)
    orchestrator = database.joins(builder.build())
    world.plan("book", lambda: way(world.contexts[-1].session))

    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))

    assert (result.status, await counter()) == (SagaStatus.COMPENSATED, 0)
    assert world.calls == ["book", "undo with None"]


async def test_an_undo_that_ends_its_transaction_past_the_session_is_residue(
    database: Site, world: World, counter: Any
) -> None:
    """Whether it was undone is not known, and it is not undone twice."""
    orchestrator = database.joins(saga(world, fails=True, compensation_retry=TWICE))
    world.plan("undo book", lambda: raw_commit(world.contexts[-1].session))

    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))

    assert (result.status, result.residue) == (SagaStatus.STUCK, ("book",))
    assert world.calls.count("undo book") == 1


@pytest.mark.parametrize("way", SQLALCHEMYS)
async def test_a_step_that_ends_its_transaction_by_sqlalchemy_is_refused_and_leaves_nothing(
    database: Site, world: World, counter: Any, way: Way
) -> None:
    """No commit of SQLAlchemy's gets through, so it is certain that nothing stands: also of what it writes after."""
    orchestrator = database.joins(saga(world))

    async def ends() -> None:
        session = world.contexts[-1].session
        await way(session)
        await session.execute(text("UPDATE counter SET n = n + 50"))

    world.plan("book", ends)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, result.residue, await counter()) == (SagaStatus.FAILED, (), 0)


async def test_a_step_that_is_cut_off_after_its_own_commit_is_not_done_again(
    database: Site, world: World, counter: Any
) -> None:
    """The process closes while it works, and hands over a doubt, not a clean start."""
    orchestrator, other = database.joins(saga(world)), database.joins(saga(world))
    committed = asyncio.Event()

    async def commits() -> None:
        await raw_commit(world.contexts[-1].session)
        committed.set()
        await asyncio.Event().wait()

    world.plan("book", commits)
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await soon(committed.wait())
    (saga_id,) = orchestrator.engine.drivers
    await soon(orchestrator.aclose())
    await asyncio.wait([starting])
    await soon(other.run_due())
    snapshot = await other.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.residue, world.calls) == (SagaStatus.STUCK, ("book",), ["book"])


# --- what passes -----------------------------------------------------------------------------------------------------


class RefusedError(Exception):
    sqlstate = "40P01"


class ReadOnlyError(Exception):
    sqlstate = "25006"


def deadlock() -> DBAPIError:
    return OperationalError("UPDATE", None, RefusedError("deadlock detected"))


def read_only() -> DBAPIError:
    return OperationalError("UPDATE", None, ReadOnlyError("cannot execute UPDATE in a read-only transaction"))


@pytest.mark.parametrize("refuse", [deadlock, read_only], ids=["deadlock", "failover"])
async def test_a_conflict_costs_the_step_no_attempt(
    database: Site, world: World, counter: Any, refuse: Callable[[], DBAPIError]
) -> None:
    """Its transaction is done again, each time from nothing."""
    orchestrator = database.joins(saga(world))
    world.plan("book", refuse(), refuse(), refuse())
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.COMPLETED, 1)
    assert [ctx.attempt for ctx in world.contexts[:4]] == [1, 1, 1, 1]


async def test_a_deadlock_that_the_step_wraps_is_one_all_the_same(database: Site, world: World, counter: Any) -> None:
    """Repositories raise errors of their own from those of the database; task groups put them into groups."""
    orchestrator = database.joins(saga(world))
    wrapped = ValueError("the repository failed")
    wrapped.__cause__ = ExceptionGroup("some tasks", [deadlock()])
    world.plan("book", wrapped)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.COMPLETED, 1)


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_conflict_that_the_step_calls_permanent_is_a_failure_at_once(
    database: Site, world: World, counter: Any, grouped: bool
) -> None:
    """The step knows better than the database: its verdict counts."""
    orchestrator = database.joins(saga(world))
    verdict: Exception = PermanentError("the seat is gone")
    verdict.__cause__ = deadlock()
    world.plan("book", ExceptionGroup("some tasks", [verdict, deadlock()]) if grouped else verdict)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter(), world.calls) == (SagaStatus.FAILED, 0, ["book"])
    assert "the seat is gone" in str(result.error)


async def test_a_conflict_after_which_the_step_asks_for_a_pause_is_a_failed_attempt(
    database: Site, world: World, counter: Any
) -> None:
    orchestrator = database.joins(saga(world))
    later = RetryAfter(timedelta(hours=1))
    later.__cause__ = deadlock()
    world.plan("book", later)
    snapshot = await orchestrator.get_snapshot(await soon(orchestrator.start(**ORDER)))
    assert (snapshot.status, await counter(), world.calls) == (SagaStatus.FAILED, 0, ["book"])


async def test_a_conflict_that_the_connection_has_met_is_a_failure_if_the_step_calls_it_so(on_postgres: Site) -> None:
    called: list[int] = []

    class GivesUp(BaseStep[Input, Output]):
        transactional = True

        async def execute(self, inp: Input, ctx: StepContext) -> Output:
            called.append(ctx.attempt)
            await ctx.session.execute(text("SET LOCAL statement_timeout = 1"))
            try:
                await ctx.session.execute(text("SELECT pg_sleep(60)"))
            except DBAPIError as error:
                raise PermanentError("the seat is gone") from error
            return Output()

    builder = SagaBuilder()
    builder.add_step(step=GivesUp(), input_map=lambda _: Input(), step_id="book", compensation=None, retry_policy=TWICE)
    orchestrator = on_postgres.joins(builder.build())
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, called) == (SagaStatus.FAILED, [1])
    assert "the seat is gone" in str(result.error)


async def test_conflicts_without_end_are_a_failed_attempt_that_names_them(
    database: Site, world: World, counter: Any
) -> None:
    """The step's timeout ends it, and not its worker's patience."""
    orchestrator = database.joins(saga(world, timeout=timedelta(milliseconds=500)))
    world.plan("book", *[deadlock() for _ in range(100)])
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    assert (result.status, await counter()) == (SagaStatus.FAILED, 0)
    assert "deadlock detected" in str(result.error)


async def test_two_steps_that_lock_each_other_out_both_come_off(on_postgres: Site, world: World) -> None:
    """PostgreSQL kills one of them, which is done again."""
    await on_postgres.sql("CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, n INTEGER)")
    await on_postgres.sql("INSERT INTO account VALUES (1, 0), (2, 0)")
    both = asyncio.Barrier(2)
    met: list[int] = []

    class Move(BaseStep[Input, Output]):
        transactional = True

        async def execute(self, inp: Input, ctx: StepContext) -> Output:
            first, second = (1, 2) if ctx.aggregation_id == "a" else (2, 1)
            await ctx.session.execute(text(f"UPDATE account SET n = n + 1 WHERE id = {first}"))
            met.append(first)
            if met.count(first) == 1:
                await both.wait()
            await ctx.session.execute(text(f"UPDATE account SET n = n + 1 WHERE id = {second}"))
            return Output()

        async def compensate(self, inp: Input, out: Output, ctx: StepContext) -> None: ...

    builder = SagaBuilder()
    builder.add_step(step=Move(), input_map=lambda ctx: Input(), step_id="move")
    orchestrator = on_postgres.joins(builder.build())
    ids = await asyncio.gather(*(orchestrator.start(**{**ORDER, "aggregation_id": name}) for name in "ab"))
    done = [await orchestrator.result(saga_id) for saga_id in ids]
    assert {each.status for each in done} == {SagaStatus.COMPLETED}
    assert (await on_postgres.value("SELECT sum(n) FROM account"), len(met) > 2) == (4, True)
    await on_postgres.sql("DROP TABLE account")


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ"])
async def test_engines_of_stricter_isolation_do_a_step_again_that_could_not_be_serialized(
    on_postgres: Site, world: World, level: str
) -> None:
    """Many sagas add to one number, and none of it is lost."""
    await on_postgres.sql("CREATE TABLE IF NOT EXISTS counter (n INTEGER)")
    await on_postgres.sql("INSERT INTO counter VALUES (0)")
    engine = create_async_engine(on_postgres.url, isolation_level=level)

    class Add(BaseStep[Input, Output]):
        transactional = True

        async def execute(self, inp: Input, ctx: StepContext) -> Output:
            n = (await ctx.session.execute(text("SELECT n FROM counter"))).scalar_one()
            await ctx.session.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})
            shown = await ctx.session.execute(text("SHOW transaction_isolation"))
            world.calls.append(shown.scalar_one())
            return Output()

        async def compensate(self, inp: Input, out: Output, ctx: StepContext) -> None: ...

    builder = SagaBuilder()
    builder.add_step(step=Add(), input_map=lambda ctx: Input(), step_id="add")
    orchestrator = SagaOrchestrator(model_class=TripSaga, session_maker=async_sessionmaker(engine))
    orchestrator.register(ORDER["saga_name"], builder.build())
    ids = await asyncio.gather(*(orchestrator.start(**{**ORDER, "aggregation_id": f"{n}"}) for n in range(6)))
    done = [await orchestrator.result(saga_id) for saga_id in ids]
    await orchestrator.aclose()
    await engine.dispose()
    assert {each.status for each in done} == {SagaStatus.COMPLETED}
    assert await on_postgres.value("SELECT n FROM counter") == 6
    assert set(world.calls) == {level.lower()}
    await on_postgres.sql("DROP TABLE counter")


# --- whose session it is ---------------------------------------------------------------------------------------------


class OwnSync(Session):
    """A session class of an application."""


class OwnSession(AsyncSession):
    sync_session_class = OwnSync


async def test_the_session_of_a_step_is_one_of_the_applications_own(database: Site, world: World, counter: Any) -> None:
    """Its class, its options, what it carries, its binds and its listeners; and all of it is in the transaction."""
    heard: list[str] = []
    for name in ("before_commit", "after_commit"):
        event.listen(OwnSync, name, lambda session, name=name: heard.append(f"{name} {session.info['tenant']}"))
    sessions = async_sessionmaker(
        binds={TripSaga: database.engine},
        bind=database.engine,
        class_=OwnSession,
        autoflush=False,
        autobegin=False,
        join_transaction_mode="control_fully",
        info={"tenant": "t1"},
    )
    orchestrator = SagaOrchestrator(model_class=TripSaga, session_maker=sessions)
    orchestrator.register(ORDER["saga_name"], saga(world))
    seen: list[Any] = []

    async def looks() -> None:
        session = world.contexts[-1].session
        binds = {session.sync_session.get_bind(TripSaga), session.sync_session.get_bind()}
        seen.extend([type(session), session.autoflush, len(binds), heard.copy()])

    world.plan("book", looks)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))
    await orchestrator.aclose()
    assert (result.status, await counter()) == (SagaStatus.COMPLETED, 1)
    assert seen == [OwnSession, False, 1, []]
    assert heard == ["before_commit t1", "after_commit t1"]


# --- what the database refuses at the end ----------------------------------------------------------------------------


async def test_a_constraint_that_is_checked_at_the_commit_is_a_clean_failure(
    database: Site, world: World, counter: Any
) -> None:
    """Nothing stands of a transaction that the database has refused to commit: the step may be tried again."""
    await database.sql("CREATE TABLE shelf (id INTEGER PRIMARY KEY)")
    await database.sql("CREATE TABLE item (shelf INTEGER REFERENCES shelf (id) DEFERRABLE INITIALLY DEFERRED)")
    if database.url.startswith("sqlite"):
        event.listen(database.engine.sync_engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys=ON"))
        await database.engine.dispose()
    orchestrator = database.joins(saga(world, retry_policy=TWICE))

    async def misplaces() -> None:
        await world.contexts[-1].session.execute(text("INSERT INTO item VALUES (7)"))

    world.plan("book", misplaces, misplaces)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))

    assert (result.status, result.residue, await counter()) == (SagaStatus.FAILED, (), 0)
    assert "foreign key" in str(result.error).lower()
    assert world.calls == ["book", "book"]


async def test_a_step_that_goes_on_after_an_error_of_its_own_has_failed(
    database: Site, world: World, counter: Any
) -> None:
    """PostgreSQL refuses what follows; the fault is the step's, so it burns its attempts and no more."""
    orchestrator = database.joins(saga(world, retry_policy=TWICE))

    async def swallows() -> None:
        session = world.contexts[-1].session
        await session.execute(text("CREATE TABLE once (id INTEGER PRIMARY KEY)"))
        for _ in range(2):
            with suppress(DBAPIError):
                await session.execute(text("INSERT INTO once VALUES (1)"))

    world.plan("book", swallows, swallows)
    result = await soon(orchestrator.result(await soon(orchestrator.start(**ORDER))))

    if database.url.startswith("sqlite"):  # a statement that fails there undoes itself alone
        assert (result.status, world.calls) == (SagaStatus.COMPLETED, ["book", "ship"])
    else:
        assert (result.status, result.residue, await counter()) == (SagaStatus.FAILED, (), 0)
        assert world.calls == ["book", "book"]
