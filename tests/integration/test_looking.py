"""Looking at sagas: nobody is waited for, nothing is changed, and time is the database's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import selectinload

from saga_orchestrator import (
    FixedRetry,
    PermanentError,
    SagaAdmin,
    SagaNotFoundError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
)
from tests.support.sagas import NAME, Site, TripSaga, World, chain, soon, trip

ORDER = {"saga_name": NAME, "initial_data": {"number": 7}, "aggregation_id": "order-1"}
PATIENT = {"hotel": {"retry_policy": FixedRetry(max_attempts=3, delay=timedelta(hours=1))}}


def admin_of(orchestrator: SagaOrchestrator[TripSaga]) -> SagaAdmin[TripSaga]:
    return SagaAdmin[TripSaga](engine=orchestrator.engine)


async def test_l_a_look_waits_for_no_lock(database: Site, world: World) -> None:
    """Snapshots, the admin's view, and lists are read while somebody holds the saga's row in a transaction."""
    orchestrator = database.joins(trip(world))
    saga_id = await orchestrator.start(**ORDER)
    async with database.engine.begin() as other:
        await other.execute(text("UPDATE trip_saga SET tenant = 'locked'"))

        assert (await soon(orchestrator.get_snapshot(saga_id))).status is SagaStatus.COMPLETED
        assert len((await soon(admin_of(orchestrator).get_saga(saga_id))).step_history) == 3
        assert len((await soon(admin_of(orchestrator).list_sagas())).items) == 1


async def test_p20_a_snapshot_of_a_saga_that_waits(database: Site, world: World) -> None:
    """It says where the saga stands, what it waits for, until when, and what went wrong."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(**ORDER, trace_id="trace-1")

    snapshot = await orchestrator.get_snapshot(saga_id)

    assert (snapshot.id, snapshot.saga_name, snapshot.aggregation_id) == (saga_id, NAME, "order-1")
    assert (snapshot.status, snapshot.awaiting, snapshot.trace_id) == (SagaStatus.SUSPENDED, "retry", "trace-1")
    assert (snapshot.current_step_index, snapshot.retry_counter) == (1, 1)
    assert snapshot.last_error == "ValueError('full')"
    assert snapshot.step_execution_token is not None
    assert snapshot.deadline_at is not None
    assert timedelta(minutes=59) < snapshot.deadline_at - snapshot.updated_at <= timedelta(hours=1)


async def test_p22_the_admins_view_has_context_and_history(database: Site, world: World) -> None:
    """Everything that was recorded can be read: initial data, outputs, and each attempt with its input and error."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("car", PermanentError("no car"))
    saga_id = await orchestrator.start(**ORDER)

    saga = await admin_of(orchestrator).get_saga(saga_id)

    assert saga.context["saga_name"] == NAME
    assert saga.context["initial_data"] == {"number": 7}
    assert saga.context["step_outputs"] == {"flight": {"ref": "flight-7"}, "hotel": {"ref": "hotel-7"}}
    assert [(entry.phase, entry.step_id, entry.status, entry.attempt) for entry in saga.step_history] == [
        ("EXECUTE", "flight", "SUCCESS", 1),
        ("EXECUTE", "hotel", "SUCCESS", 1),
        ("EXECUTE", "car", "ERROR", 1),
        ("COMPENSATE", "hotel", "SUCCESS", 1),
        ("COMPENSATE", "flight", "SUCCESS", 1),
    ]
    assert {str(entry.input) for entry in saga.step_history} == {"{'number': 7}"}
    assert saga.step_history[2]["error"] == "PermanentError('no car')"


async def test_the_models_history_is_readable(database: Site, world: World) -> None:
    """`step_history` of the user's own model reads the history table, oldest row first."""
    await database.joins(trip(world)).start(**ORDER)
    async with database.sessions() as session:
        saga = (await session.scalars(select(TripSaga).options(selectinload(TripSaga.step_history)))).one()

    assert [row.step_id for row in saga.step_history] == ["flight", "hotel", "car"]
    assert (saga.status, saga.context) == (SagaStatus.COMPLETED, {"initial_data": {"number": 7}})


async def test_an_unknown_saga_cannot_be_looked_at(on_sqlite: Site, world: World) -> None:
    """Every look says that it is not there."""
    orchestrator = on_sqlite.joins(trip(world))

    for look in (orchestrator.get_snapshot, orchestrator.result, orchestrator.resume, admin_of(orchestrator).get_saga):
        with pytest.raises(SagaNotFoundError):
            await look(uuid4())


async def test_a_result_has_the_outputs(database: Site, world: World) -> None:
    """Of a completed saga: what every step returned, no error, no residue."""
    orchestrator = database.joins(chain(world, "flight", "hotel"))
    saga_id = await orchestrator.start(**ORDER)

    result = await soon(orchestrator.result(saga_id))

    assert (result.saga_id, result.status, result.error, result.residue) == (saga_id, SagaStatus.COMPLETED, None, ())
    assert result.outputs == {"flight": {"ref": "flight-0"}, "hotel": {"ref": "hotel-8"}}


async def test_a_result_has_the_error_that_turned_the_saga(database: Site, world: World) -> None:
    """The business error survives the rollback, whatever went wrong in it afterwards; what stands is the residue."""
    orchestrator = database.joins(trip(world))
    world.plan("car", PermanentError("no car"))
    world.plan("undo flight", ValueError("no answer"))
    saga_id = await orchestrator.start(**ORDER)

    result = await soon(orchestrator.result(saga_id))

    assert (result.status, result.error) == (SagaStatus.STUCK, "PermanentError('no car')")
    assert result.residue == ("flight",)


async def test_a_result_is_waited_for_wherever_the_saga_runs(database: Site, world: World) -> None:
    """A process that only looks is told the end of a saga that another one drives; running out of time harms nobody."""
    owner, onlooker = database.joins(trip(world)), database.joins(trip(world))
    gate = world.gate("hotel")
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[0].saga_id
    with pytest.raises(TimeoutError):
        await onlooker.result(saga_id, timeout=timedelta(milliseconds=1))
    waiting = asyncio.create_task(onlooker.result(saga_id))

    gate.open()

    assert (await soon(waiting)).status is SagaStatus.COMPLETED
    await soon(running)


async def test_sagas_are_listed_by_what_they_are(database: Site, world: World) -> None:
    """Every filter narrows the list, and filters narrow together."""
    orchestrator = database.joins(trip(world, **PATIENT))
    admin = admin_of(orchestrator)
    world.plan("hotel", ValueError("full"))
    waiting = await orchestrator.start(**ORDER, trace_id="t-1")
    done = await orchestrator.start(**{**ORDER, "aggregation_id": "order-2"}, trace_id="t-2")

    async def listed(**filters: Any) -> list[UUID]:
        return [saga.id for saga in (await admin.list_sagas(**filters)).items]

    assert sorted(await listed()) == sorted([waiting, done])
    assert await listed(status=SagaStatus.SUSPENDED) == [waiting]
    assert sorted(await listed(status=[SagaStatus.SUSPENDED, SagaStatus.COMPLETED])) == sorted([waiting, done])
    assert await listed(status=[SagaStatus.STUCK]) == []
    assert await listed(aggregation_id="order-2") == [done]
    assert await listed(trace_id="t-1") == [waiting]
    assert await listed(awaiting="retry") == [waiting]
    assert await listed(saga_name="cruise") == []
    assert await listed(trace_id="t-1", aggregation_id="order-2") == []
    for limit in (0, 1001):
        with pytest.raises(SagaStateError, match="1 to 1000"):
            await admin.list_sagas(limit=limit)
    for name in ("created_after", "created_before"):
        with pytest.raises(SagaStateError, match=f"{name} needs a time zone"):
            await admin.list_sagas(**{name: datetime(2030, 1, 1)})  # noqa: DTZ001 - that is the point


async def test_a_list_is_turned_page_by_page(database: Site, world: World) -> None:
    """Every saga is on one page; one that is started meanwhile is on none; the last page has no cursor."""
    orchestrator = database.joins(trip(world))
    admin = admin_of(orchestrator)
    ids = [await orchestrator.start(**{**ORDER, "aggregation_id": f"order-{number}"}) for number in range(5)]

    page = await admin.list_sagas(limit=2)
    seen = [saga.id for saga in page.items]
    await orchestrator.start(**{**ORDER, "aggregation_id": "later"})
    while page.next_cursor is not None:
        page = await admin.list_sagas(limit=2, cursor=page.next_cursor)
        seen += [saga.id for saga in page.items]

    assert len(seen) == 5
    assert set(seen) == set(ids)
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(hours=1)], ids=["behind", "ahead"])
async def test_n18_a_skewed_process_clock_changes_nothing(
    database: Site, world: World, skew: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the process's clock an hour off, the same things happen, and every time in the rows is the database's."""
    trace = await _trace(database, World(), "straight")
    before = await database.joins(None).engine.store.now()

    def shifted(real: Callable[[], Any], by: Any) -> Callable[[], Any]:
        return lambda: real() + by

    monkeypatch.setattr(time, "time", shifted(time.time, skew.total_seconds()))
    monkeypatch.setattr(time, "time_ns", shifted(time.time_ns, int(skew.total_seconds() * 1e9)))

    assert await _trace(database, World(), "skewed") == trace

    after = await database.joins(None).engine.store.now()
    slack = timedelta(seconds=1)  # what a process may be ahead of the database, for all that it knows
    async with database.sessions() as session:
        skewed = select(TripSaga).where(TripSaga.aggregation_id == "skewed")
        saga = (await session.scalars(skewed.options(selectinload(TripSaga.step_history)))).one()
    times = [saga.created_at, saga.updated_at, *(row.timestamp for row in saga.step_history)]
    assert all(before - slack <= when <= after + slack for when in times)


async def _trace(site: Site, world: World, aggregation_id: str) -> list[tuple[Any, ...]]:
    """Run a saga that fails, is retried, handed over, and undone; return what happened."""
    first, second = site.joins(trip(world, **PATIENT)), site.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    world.plan("car", PermanentError("no car"))
    saga_id = await first.start(**{**ORDER, "aggregation_id": aggregation_id})
    assert await second.run_due() == 0
    waiting = await first.get_snapshot(saga_id)
    assert await second.notify(saga_id=saga_id, token=waiting.step_execution_token)  # type: ignore[arg-type]
    saga = await admin_of(first).get_saga(saga_id)
    return [(entry.phase, entry.step_id, entry.status, entry.attempt) for entry in saga.step_history]
