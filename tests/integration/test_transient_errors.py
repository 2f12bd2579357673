"""An error of the database's makes no healthy saga STUCK: it stays due, and goes on when the trouble is over."""

from __future__ import annotations

from uuid import UUID

import pytest

from saga_orchestrator import SagaStatus
from tests.support.booking import ORDER, saga
from tests.support.sagas import NAME, Site, World, soon, trip

CODES = ("57014", "53100", "53200", "58030", "58P01", "XX000", "25006", "42501", "42P01", "55006", "P0001")


async def break_writes(database: Site, code: str, only: str = "true") -> None:
    """Have the database refuse to move a saga, with this error."""
    boom = f"RAISE EXCEPTION 'transient' USING errcode = '{code}'"
    await database.sql(
        f"CREATE OR REPLACE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {boom}; END $$",
    )
    when = f"FOR EACH ROW WHEN ({only})"
    await database.sql(f"CREATE TRIGGER boom BEFORE UPDATE ON trip_saga {when} EXECUTE FUNCTION boom()")


async def mend(database: Site) -> None:
    """Let the database write again."""
    await database.sql("DROP TRIGGER boom ON trip_saga")


@pytest.mark.parametrize("code", [*CODES[:-1], "40001"])
async def test_a_step_is_not_blamed_for_what_the_database_says_to_the_engine(
    on_postgres: Site, world: World, code: str
) -> None:
    """The step has done its work; its saga's row cannot be written now, so all of it is done again later."""
    await on_postgres.sql("CREATE TABLE counter (n INTEGER)")
    await on_postgres.sql("INSERT INTO counter VALUES (0)")
    world.plan("book", lambda: break_writes(on_postgres, code), lambda: mend(on_postgres))
    orchestrator = on_postgres.joins(saga(world))

    result = await soon(orchestrator.run(**ORDER))

    count = await on_postgres.value("SELECT n FROM counter")
    await on_postgres.sql("DROP TABLE counter")
    assert (result.status, count) == (SagaStatus.COMPLETED, 1)
    assert [context.attempt for context in world.contexts] == [1, 1, 1]


async def lost(database: Site, world: World, aggregation_id: str) -> UUID:
    """Leave a saga in the middle of a step, as an owner does that has died."""
    orchestrator = database.joins(trip(world))
    async with database.sessions() as session, session.begin():
        saga_id = await orchestrator.start(
            saga_name=NAME, initial_data={}, aggregation_id=aggregation_id, session=session
        )
        await orchestrator.aclose()
    await database.edit(saga_id, lease_owner="a host that has died")
    await database.make_due(saga_id)
    return saga_id


@pytest.mark.parametrize("code", CODES)
async def test_a_claim_that_the_database_refuses_leaves_the_saga_due(
    on_postgres: Site, world: World, code: str
) -> None:
    """Whatever the database says, one saga that is alone proves nothing; it is driven when it can be."""
    saga_id = await lost(on_postgres, world, "order-1")
    worker = on_postgres.joins(trip(world))
    await break_writes(on_postgres, code)
    for _ in range(3):
        try:
            await soon(worker.run_due())
        except Exception:  # noqa: BLE001 - a look may say that the database cannot work now
            continue
    status = (await worker.get_snapshot(saga_id)).status
    await mend(on_postgres)

    assert status is SagaStatus.RUNNING
    assert await soon(worker.run_due()) == 1
    assert (await worker.get_snapshot(saga_id)).status is SagaStatus.COMPLETED


async def test_a_row_that_alone_cannot_be_claimed_is_set_aside_while_others_go_on(
    on_postgres: Site, world: World
) -> None:
    """An error of an unknown kind is the row's when this row has it again, and the others do not."""
    odd, healthy = await lost(on_postgres, world, "odd"), await lost(on_postgres, world, "healthy")
    worker = on_postgres.joins(trip(world))
    only = f"NEW.id = '{odd}' AND NEW.status <> 'STUCK'"
    await break_writes(on_postgres, "P0001", only)

    await soon(worker.run_due())

    statuses = [(await worker.get_snapshot(each)).status for each in (odd, healthy)]
    await mend(on_postgres)
    assert statuses == [SagaStatus.STUCK, SagaStatus.COMPLETED]


async def test_a_suspect_at_the_head_of_the_queue_keeps_nobody_waiting(on_postgres: Site, world: World) -> None:
    """A worker with one free hand passes over a row that it could not claim."""
    odd = await lost(on_postgres, world, "odd")
    worker = on_postgres.joins(trip(world))
    await break_writes(on_postgres, "P0001", f"NEW.id = '{odd}' AND NEW.status <> 'STUCK'")
    assert await soon(worker.run_due(1)) == 0
    healthy = await lost(on_postgres, world, "healthy")

    claimed = await soon(worker.run_due(1))

    statuses = [(await worker.get_snapshot(each)).status for each in (odd, healthy)]
    await mend(on_postgres)
    assert claimed == 1
    assert statuses == [SagaStatus.STUCK, SagaStatus.COMPLETED]
