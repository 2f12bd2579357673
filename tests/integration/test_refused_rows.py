"""A row that the database refuses: the saga is set aside after a few tries, and its step is not called for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from saga_orchestrator import FixedRetry, SagaOrchestrator, SagaStatus
from saga_orchestrator.runtime import engine
from tests.support.sagas import NAME, PATIENCE, Site, TripSaga, World, soon, trip

MOST = 3
"""How many owners in a row a saga may lose here."""
TRIES = MOST + 1
ORDER = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
Refuse = Callable[[str], Awaitable[None]]


@pytest.fixture
async def refuse(database: Site) -> AsyncIterator[Refuse]:
    """Return a function that has the database refuse each update of a saga that would make this so."""
    is_postgres = database.url.startswith("postgresql")

    async def refuse(when: str) -> None:
        if is_postgres:
            await database.sql(f"ALTER TABLE trip_saga ADD CONSTRAINT odd CHECK (NOT ({when})) NOT VALID")
        else:
            await database.sql(
                f"CREATE TRIGGER odd BEFORE UPDATE ON trip_saga WHEN {when} BEGIN SELECT RAISE(ABORT, 'odd'); END"
            )

    yield refuse
    await database.sql("ALTER TABLE trip_saga DROP CONSTRAINT odd" if is_postgres else "DROP TRIGGER odd")


def new(database: Site, when: str) -> str:
    """Return a condition on the new row in the words of this database."""
    return when.replace("NEW.", "") if database.url.startswith("postgresql") else when


async def drive_until_stuck(database: Site, orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID) -> None:
    """Let time pass, again and again, until the saga is due no more."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while (await orchestrator.get_snapshot(saga_id)).status is not SagaStatus.STUCK:
            await database.make_due(saga_id)
            await orchestrator.run_due()


async def started(orchestrator: SagaOrchestrator[TripSaga]) -> UUID:
    saga_id: UUID = await soon(orchestrator.start(**ORDER))
    return saga_id


async def test_an_outcome_that_a_constraint_refuses_is_tried_a_few_times(
    database: Site, world: World, refuse: Refuse
) -> None:
    """Its step may charge a card each time; the saga ends STUCK, and says what the database has said."""
    world.plan("hotel", *[ValueError("no room")] * 50)
    retry = {"retry_policy": FixedRetry(max_attempts=9, delay=timedelta(0))}
    orchestrator = database.joins(trip(world, max_recoveries=MOST, hotel=retry))
    await refuse(new(database, "NEW.retry_counter > 1"))

    saga_id = await started(orchestrator)
    await drive_until_stuck(database, orchestrator, saga_id)

    snapshot = await orchestrator.get_snapshot(saga_id)
    assert world.calls.count("hotel") == 1 + TRIES
    assert "odd" in str(snapshot.last_error)
    assert "initial_data" not in str(snapshot.last_error)
    await database.make_due(saga_id)
    await orchestrator.run_due()
    assert world.calls.count("hotel") == 1 + TRIES


async def test_an_undo_whose_outcome_is_refused_is_tried_a_few_times(
    database: Site, world: World, refuse: Refuse
) -> None:
    """A compensation, too, is not done again for ever because of a row that cannot be kept."""
    world.plan("hotel", ValueError("no room"))
    orchestrator = database.joins(trip(world, max_recoveries=MOST))
    await refuse(new(database, "NEW.status = 'COMPENSATED'"))

    saga_id = await started(orchestrator)
    await drive_until_stuck(database, orchestrator, saga_id)

    assert world.calls.count("undo flight") == TRIES
    shown = str((await orchestrator.get_snapshot(saga_id)).last_error)
    assert shown.index("odd") < shown.index("no room")


async def test_a_row_that_cannot_keep_the_error_is_set_aside_without_it(
    database: Site, world: World, refuse: Refuse
) -> None:
    """Neither the text of the error nor that of the setback fits; the saga is STUCK all the same."""
    world.plan("hotel", *[ValueError("no room")] * 50)
    orchestrator = database.joins(trip(world, max_recoveries=MOST))
    await refuse(new(database, "length(NEW.last_error) > 10"))

    saga_id = await started(orchestrator)
    await drive_until_stuck(database, orchestrator, saga_id)

    assert world.calls.count("hotel") <= TRIES
    assert (await orchestrator.get_snapshot(saga_id)).last_error is None


async def test_a_policy_that_refuses_a_row_is_no_missing_right(on_postgres: Site, world: World) -> None:
    """Row-level security speaks under the code of missing rights, which a person mends; this is the saga's own."""
    role = "odd_tenant"
    rights = f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
    try:
        for statement in (
            f"CREATE ROLE {role}",
            rights,
            "ALTER TABLE trip_saga ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY odd ON trip_saga USING (true) WITH CHECK (status <> 'COMPLETED')",
        ):
            await on_postgres.sql(statement)
        tenant = on_postgres.another_engine(connect_args={"server_settings": {"role": role}})
        orchestrator = on_postgres.joins(
            trip(world, max_recoveries=MOST), session_maker=async_sessionmaker(tenant, expire_on_commit=False)
        )
        saga_id = await started(orchestrator)
        await drive_until_stuck(on_postgres, orchestrator, saga_id)
        assert world.calls.count("car") == TRIES
        assert "policy" in str((await orchestrator.get_snapshot(saga_id)).last_error)
    finally:
        await on_postgres.sql("DROP POLICY IF EXISTS odd ON trip_saga")
        await on_postgres.sql("ALTER TABLE trip_saga DISABLE ROW LEVEL SECURITY")
        await on_postgres.sql(f"DROP OWNED BY {role}")
        await on_postgres.sql(f"DROP ROLE {role}")


@pytest.mark.parametrize(("code", "is_stuck"), [("P0001", True), ("57014", False), ("53100", False)])
async def test_an_error_counts_if_the_row_can_be_written_right_after_and_it_is_not_the_databases(
    on_postgres: Site, world: World, monkeypatch: pytest.MonkeyPatch, code: str, is_stuck: bool
) -> None:
    """An unknown error that only this outcome meets is the saga's; a full disk that is over by then is not."""
    store = on_postgres.meddling_store()
    boom = f"RAISE EXCEPTION 'odd' USING errcode = '{code}'"
    await on_postgres.sql(
        f"CREATE OR REPLACE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {boom}; END $$"
    )
    when = "WHEN (NEW.status = 'COMPLETED')"
    await on_postgres.sql(f"CREATE TRIGGER odd BEFORE UPDATE ON trip_saga FOR EACH ROW {when} EXECUTE FUNCTION odd()")
    monkeypatch.setattr(engine, "GroupCommit", _impatient(engine.GroupCommit))
    orchestrator = on_postgres.joins(trip(world, max_recoveries=MOST), store=store)
    try:
        saga_id = await started(orchestrator)
        for _ in range(TRIES + 1):
            await on_postgres.make_due(saga_id)
            await soon(orchestrator.run_due())
        status = (await orchestrator.get_snapshot(saga_id)).status
    finally:
        await on_postgres.sql("DROP TRIGGER odd ON trip_saga")

    assert (status is SagaStatus.STUCK) is is_stuck


def _impatient(group_commit: Any) -> Callable[..., Any]:
    """Return a maker of group commits that give up at once."""
    return lambda write, **_: group_commit(write, patience=timedelta(0))
