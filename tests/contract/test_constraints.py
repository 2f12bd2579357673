"""What no row can say, whoever writes it: the database itself refuses it, also by direct SQL."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from saga_orchestrator import SagaStatus
from saga_orchestrator.storage.rows import Ownership
from saga_orchestrator.storage.store import SagaStore
from saga_orchestrator.testing.contract.samples import aside, ending, past_of, put, step
from tests.support.sagas import Site, TripSaga

ACTIVE = [status for status in SagaStatus if not status.is_terminal]
TERMINAL = [status for status in SagaStatus if status.is_terminal]


@pytest.mark.parametrize("status", ACTIVE, ids=lambda status: status.value)
async def test_n3_an_active_saga_cannot_be_stranded_by_hand(
    database: Site, store: SagaStore, status: SagaStatus
) -> None:
    """An active row that is neither due nor awaiting anything is refused, whatever its status."""
    head = await put(store)

    with pytest.raises(IntegrityError):
        await database.edit(head.id, status=status.value, deadline_at=None, awaiting=None)

    assert await database.value("SELECT deadline_at IS NOT NULL FROM trip_saga")


@pytest.mark.parametrize("status", TERMINAL, ids=lambda status: status.value)
async def test_a_saga_that_is_over_need_not_be_due(database: Site, store: SagaStore, status: SagaStatus) -> None:
    """The constraint forbids nothing that is right: a terminal row waits for nothing."""
    head = await put(store)

    await database.edit(head.id, status=status.value, deadline_at=None)

    assert await database.value("SELECT status FROM trip_saga") == status.value


async def test_a_stranded_row_cannot_be_inserted(database: Site) -> None:
    """Nor can such a row be put there in the first place."""
    row = {"id": uuid4(), "status": SagaStatus.RUNNING, "state": {}, "context": {}}
    names = dict.fromkeys(["saga_name", "aggregation_id", "trace_id", "fingerprint"], "x")

    with pytest.raises(IntegrityError, match="never_stranded"):
        async with database.engine.begin() as connection:
            await connection.execute(insert(TripSaga).values(**row, **names))


async def test_a_status_that_does_not_exist_is_refused(database: Site, store: SagaStore) -> None:
    """A typing error in an operator's UPDATE does not become a status."""
    head = await put(store)

    with pytest.raises(IntegrityError):
        await database.edit(head.id, status="PAUSED")


async def test_two_active_sagas_of_one_aggregate_cannot_be_made_by_hand(database: Site, store: SagaStore) -> None:
    """The partial unique index holds for an UPDATE as for an INSERT, and lets any number rest in peace."""
    for _ in range(2):
        ended = await put(store, aggregation_id="order-1")
        await store.write([ending(ended, ended.created_at)])
    await put(store, aggregation_id="order-1")

    with pytest.raises(IntegrityError):
        await database.edit(ended.id, status="RUNNING", deadline_at="=updated_at")


async def test_an_idempotency_key_cannot_be_given_twice_by_hand(database: Site, store: SagaStore) -> None:
    """A key of a saga name stays one saga's, for as long as its row is there."""
    first, second = await put(store, idempotency_key="key"), await put(store)
    await store.write([ending(first, first.created_at)])

    with pytest.raises(IntegrityError):
        await database.edit(second.id, idempotency_key="key")


async def test_history_goes_with_its_saga(database: Site, store: SagaStore) -> None:
    """Deleting a saga deletes its history: no row of it is left behind."""
    head = await put(store)
    await store.write([step(head)])
    if database.url.startswith("sqlite"):
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("PRAGMA foreign_keys=ON")
            await connection.exec_driver_sql("DELETE FROM trip_saga")
    else:
        await database.sql("DELETE FROM trip_saga")

    assert await past_of(store, head.id) == []


async def test_no_active_row_is_ever_out_of_reach(database: Site, store: SagaStore) -> None:
    """After every kind of move, an active row is due by time or awaits something: SQL finds none that is neither."""
    heads = [await put(store) for _ in range(4)]
    now = heads[0].created_at
    await store.write(
        [
            step(heads[0]),
            step(heads[1], ownership=Ownership(None, None, now, "retry", None), status=SagaStatus.SUSPENDED),
            step(heads[2], ownership=aside(), status=SagaStatus.STUCK),
            ending(heads[3], now),
        ]
    )

    active = "status NOT IN ('COMPLETED', 'COMPENSATED', 'FAILED')"
    assert await database.value(f"SELECT count(*) FROM trip_saga WHERE {active}") == 3
    stranded = f"SELECT count(*) FROM trip_saga WHERE {active} AND deadline_at IS NULL AND awaiting IS NULL"
    assert await database.value(stranded) == 0
