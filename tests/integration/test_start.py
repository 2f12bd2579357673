"""Starting sagas: in the caller's transaction or out of it, once, and whatever becomes of the caller."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker

from saga_orchestrator import (
    ActiveSagaAlreadyExistsError,
    IdempotencyConflictError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    StartResult,
)
from tests.support.sagas import NAME, MeddlingStore, Site, TripSaga, World, soon, trip, until

ORDER = {"saga_name": NAME, "initial_data": {"number": 7}, "aggregation_id": "order-1"}
ALL_THREE = ["flight", "hotel", "car"]


async def status_of(orchestrator: SagaOrchestrator[Any], saga_id: UUID) -> SagaStatus:
    """Wait for the end."""
    return (await soon(orchestrator.result(saga_id))).status


async def test_n2_a_commit_starts_the_saga_without_a_poll(database: Site, world: World) -> None:
    """A saga started in the caller's transaction begins when that commits, not before; nobody has to look for it."""
    orchestrator = database.joins(trip(world))
    async with database.sessions() as session, session.begin():
        saga_id = await orchestrator.start(session=session, **ORDER)
        assert await orchestrator.engine.store.head(saga_id) is None
        assert world.calls == []

    assert await status_of(orchestrator, saga_id) is SagaStatus.COMPLETED
    assert world.calls == ALL_THREE


async def test_n2_a_rollback_leaves_nothing(database: Site, world: World) -> None:
    """A saga whose transaction was rolled back never was; the aggregate is free, and nobody was woken."""
    orchestrator = database.joins(trip(world))
    async with database.sessions() as session:
        lost = await orchestrator.start(session=session, **ORDER)
        await session.rollback()

    again = await orchestrator.start(**ORDER)

    assert await orchestrator.engine.store.head(lost) is None
    assert await database.value("SELECT count(*) FROM trip_saga") == 1
    assert {ctx.saga_id for ctx in world.contexts} == {again}


async def test_n2_a_savepoint_rolled_back_takes_only_its_own_saga(database: Site, world: World) -> None:
    """Of two sagas in one transaction, the one inside a savepoint that is rolled back is gone, the other starts."""
    orchestrator = database.joins(trip(world))
    async with database.sessions() as session, session.begin():
        kept = await orchestrator.start(session=session, **ORDER)
        savepoint = await session.begin_nested()
        dropped = await orchestrator.start(session=session, **{**ORDER, "aggregation_id": "order-2"})
        await savepoint.rollback()

    assert await status_of(orchestrator, kept) is SagaStatus.COMPLETED
    assert await orchestrator.engine.store.head(dropped) is None
    assert {ctx.saga_id for ctx in world.contexts} == {kept}


async def test_n2_a_released_savepoint_is_no_commit(database: Site, world: World) -> None:
    """A saga inside a savepoint that is released goes with the transaction around it."""
    orchestrator = database.joins(trip(world))
    async with database.sessions() as session:
        await orchestrator.start(session=session, **{**ORDER, "aggregation_id": "order-2"})
        async with session.begin_nested():
            await orchestrator.start(session=session, **ORDER)
        await session.rollback()
        kept = await orchestrator.start(session=session, **{**ORDER, "aggregation_id": "order-3"})
        await session.commit()

    assert await status_of(orchestrator, kept) is SagaStatus.COMPLETED
    assert await database.sql("SELECT aggregation_id FROM trip_saga") == [("order-3",)]
    assert {ctx.saga_id for ctx in world.contexts} == {kept}


async def test_n2_a_saga_of_a_released_savepoint_starts_with_the_commit(database: Site, world: World) -> None:
    """Nobody looks for it when the savepoint is released, and it is not forgotten when the rest is committed."""
    meddling, looked_for = _noting(database)
    orchestrator = database.joins(trip(world), store=meddling)
    async with database.sessions() as session, session.begin():
        savepoint = await session.begin_nested()
        saga_id = await orchestrator.start(session=session, **ORDER)
        await savepoint.commit()
        for _ in range(20):
            await asyncio.sleep(0)
        assert looked_for == []

    assert await status_of(orchestrator, saga_id) is SagaStatus.COMPLETED
    assert looked_for == [saga_id]


def _noting(site: Site) -> tuple[MeddlingStore, list[UUID]]:
    """Return a store that notes which sagas were looked for by name."""
    meddling, looked_for = site.meddling_store(), []

    async def note(advance: Any, saga_id: UUID, judge: Any) -> Any:
        looked_for.append(saga_id)
        return await advance(saga_id, judge)

    meddling.around["advance"] = note
    return meddling, looked_for


async def test_n2_two_sagas_of_one_transaction_both_start(database: Site, world: World) -> None:
    """One commit wakes them all."""
    orchestrator = database.joins(trip(world))
    async with database.sessions() as session, session.begin():
        ids = [
            await orchestrator.start(session=session, **{**ORDER, "aggregation_id": f"order-{number}"})
            for number in range(2)
        ]

    assert [await status_of(orchestrator, saga_id) for saga_id in ids] == [SagaStatus.COMPLETED] * 2
    assert sorted(world.calls) == sorted(ALL_THREE * 2)


async def test_a_session_can_be_used_for_one_saga_after_another(database: Site, world: World) -> None:
    """What a first transaction rolled back is forgotten, and a second one of the same session may be committed."""
    meddling, looked_for = _noting(database)
    orchestrator = database.joins(trip(world), store=meddling)
    async with database.sessions() as session:
        await orchestrator.start(session=session, **ORDER)
        await session.rollback()
        second = await orchestrator.start(session=session, **ORDER)
        await session.commit()
        assert await status_of(orchestrator, second) is SagaStatus.COMPLETED
        third = await orchestrator.start(session=session, **ORDER)
        await session.commit()

    assert await status_of(orchestrator, third) is SagaStatus.COMPLETED
    assert world.calls == ALL_THREE * 2
    assert looked_for == [second, third]


async def test_the_callers_own_rows_and_the_saga_stand_or_fall_together(database: Site, world: World) -> None:
    """A saga that cannot be started spoils nothing of the caller's transaction: he may go on and commit the rest."""
    orchestrator = database.joins(trip(world))
    gate = world.gate("flight")
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    async with database.sessions() as session, session.begin():
        with pytest.raises(ActiveSagaAlreadyExistsError) as refused:
            await orchestrator.start(session=session, **ORDER)
        other = await orchestrator.start(session=session, **{**ORDER, "aggregation_id": "order-2"})
    gate.open()

    assert refused.value.saga_id == await soon(running)
    assert await status_of(orchestrator, other) is SagaStatus.COMPLETED


async def test_a_saga_started_where_nobody_can_run_it_waits_for_a_worker(database: Site, world: World) -> None:
    """The process that commits may vanish at once: the saga is due, and whoever looks next drives it."""
    async with database.sessions() as session:
        vanishing = database.joins(trip(World()))
        saga_id = await vanishing.start(session=session, **ORDER)
        await vanishing.aclose()
        await session.commit()
    worker = database.joins(trip(world))

    assert await worker.run_due() == 1

    assert world.calls == ALL_THREE
    assert await status_of(worker, saga_id) is SagaStatus.COMPLETED


async def test_a_clock_that_runs_ahead_does_not_delay_a_newborn(database: Site, world: World) -> None:
    """What this process takes for the database's time may be early; a commit starts the saga anyway."""
    orchestrator = database.joins(trip(world))
    await orchestrator.engine.ready()
    clock = orchestrator.engine._clock
    assert clock._zero is not None
    clock._zero += timedelta(hours=1).total_seconds()
    async with database.sessions() as session, session.begin():
        saga_id = await orchestrator.start(session=session, **ORDER)

    assert await status_of(orchestrator, saga_id) is SagaStatus.COMPLETED


async def test_own_columns_are_filled_and_can_be_joined(database: Site, world: World) -> None:
    """`values=` fills the user's columns, in both ways of starting; the model's own defaults fill the others."""
    orchestrator = database.joins(trip(world))
    await orchestrator.start(**ORDER, values={"tenant": "acme", "channel": "shop"})
    async with database.sessions() as session, session.begin():
        await orchestrator.start(session=session, **ORDER, values={"tenant": "bolt"})

        found = select(TripSaga.tenant, TripSaga.channel).order_by(TripSaga.tenant)
        assert (await session.execute(found)).all() == [("acme", "shop"), ("bolt", "web")]


async def test_values_cannot_reach_the_engines_columns(on_sqlite: Site, world: World) -> None:
    """Nobody sets a status through `values=`."""
    orchestrator = on_sqlite.joins(trip(world))

    with pytest.raises(SagaStateError, match="status"):
        await orchestrator.start(**ORDER, values={"status": "COMPLETED"})


async def test_what_clashes_in_a_users_own_column_is_not_called_a_saga(database: Site, world: World) -> None:
    """A start that is refused by the user's own unique column says so, and claims no rival."""
    orchestrator = database.joins(trip(world))
    await orchestrator.start(**ORDER, values={"voucher": "V-1"})

    with pytest.raises(SagaStateError, match="unique column of your own"):
        await orchestrator.start(**ORDER, values={"voucher": "V-1"})


async def test_a_start_repeated_under_its_key_is_one_start(database: Site, world: World) -> None:
    """The same key answers with the first saga's id, while it runs and after its end; the steps run once."""
    orchestrator, elsewhere = database.joins(trip(world)), database.joins(trip(world))
    gate = world.gate("hotel")
    first = asyncio.create_task(orchestrator.start(**ORDER, idempotency_key="key"))
    await gate.wait_reached()

    while_it_runs = await elsewhere.start(**ORDER, idempotency_key="key")
    gate.open()
    after_its_end = await orchestrator.start(**ORDER, idempotency_key="key")

    assert {await soon(first), while_it_runs, after_its_end} == {while_it_runs}
    assert world.calls == ALL_THREE


OTHERS = [
    ({"aggregation_id": "another"}, "for aggregation_id 'order-1' and not 'another'"),
    ({"initial_data": {"number": 8}}, "with other initial_data"),
    ({"initial_data": {"number": True}}, "with other initial_data"),
    ({"initial_data": {"number": 7, "more": None}}, "with other initial_data"),
    ({"initial_data": [7]}, "with other initial_data"),
]


@pytest.mark.parametrize(("other", "difference"), OTHERS)
@pytest.mark.parametrize("way", ["start", "start_once", "session", "run", "start_or_signal"])
async def test_a_key_of_another_start_is_refused(
    on_sqlite: Site, world: World, way: str, other: dict[str, Any], difference: str
) -> None:
    """The error names the key and its saga, and nothing is written; on request the first saga answers."""
    orchestrator = on_sqlite.joins(trip(world))
    order = {**ORDER, "initial_data": {"number": 7}, "idempotency_key": "key"}
    first = await orchestrator.start(**order)

    async def again(**more: Any) -> UUID:
        wanted = {**order, **other, **more}
        if way == "session":
            async with on_sqlite.sessions() as session, session.begin():
                return await orchestrator.start(**wanted, session=session)
        if way == "start_or_signal":
            return (await orchestrator.start_or_signal("paid", start=wanted))[0]  # type: ignore[arg-type]
        if way == "run":
            return (await orchestrator.run(**wanted)).saga_id
        return (await orchestrator.start_once(**wanted)).saga_id

    with pytest.raises(IdempotencyConflictError, match=difference) as refused:
        await again()
    assert (refused.value.saga_id, refused.value.idempotency_key) == (first, "key")
    assert f"{first}" in str(refused.value)
    assert await on_sqlite.value("SELECT count(*) FROM trip_saga") == 1
    assert await on_sqlite.value("SELECT count(*) FROM trip_saga_inbox") == 0
    assert await again(on_conflict="first") == first


async def test_the_data_of_a_key_is_compared_as_it_was_meant(database: Site, world: World) -> None:
    """In another order of keys, as a model, or encoded anew, it is the same start; NaN is NaN."""

    class Wrapped:
        number = 0

        def encode(self, payload: str) -> str:
            self.number += 1
            return f"{self.number}:{payload}"

        def decode(self, payload: str) -> str:
            return payload.partition(":")[2]

    orchestrator = database.joins(trip(world), payload_codec=Wrapped())
    order = {**ORDER, "idempotency_key": "key"}
    first = await orchestrator.start(**{**order, "initial_data": {"a": 1, "b": {"c": [1.5, None, "x"]}}})

    same = await orchestrator.start_once(**{**order, "initial_data": {"b": {"c": [1.5, None, "x"]}, "a": 1.0}})

    assert same == StartResult(first, created=False)


async def test_a_key_whose_data_cannot_be_read_is_refused(database: Site, world: World) -> None:
    """What cannot be compared is not taken for the same."""
    orchestrator = database.joins(trip(world))
    first = await orchestrator.start(**ORDER, idempotency_key="key")
    await database.edit(first, context="{}")

    with pytest.raises(IdempotencyConflictError, match="cannot be read here"):
        await orchestrator.start(**ORDER, idempotency_key="key")
    assert await orchestrator.start(**ORDER, idempotency_key="key", on_conflict="first") == first


async def test_a_start_tells_whether_it_has_made_its_saga(database: Site, world: World) -> None:
    """So a caller's own rows, in the same transaction, are written once."""
    orchestrator = database.joins(trip(world))
    order = {**ORDER, "idempotency_key": "key"}
    async with database.sessions() as session, session.begin():
        first = await orchestrator.start_once(**order, session=session)
    await soon(orchestrator.result(first.saga_id))
    async with database.sessions() as session, session.begin():
        replay = await orchestrator.start_once(**order, session=session)
    without = await orchestrator.start_once(**ORDER)

    assert (first.created, replay, without.created) == (True, StartResult(first.saga_id, created=False), True)
    assert await orchestrator.start_once(**order) == replay


async def test_each_name_has_keys_of_its_own(on_sqlite: Site, world: World) -> None:
    """Two sagas of one request may share its key; the active saga of an aggregate still keeps others out."""
    orchestrator = on_sqlite.joins(trip(world))
    orchestrator.register("other", trip(world))
    first = await orchestrator.start_once(**ORDER, idempotency_key="key")
    second = await orchestrator.start_once(**{**ORDER, "saga_name": "other"}, idempotency_key="key")

    assert (first.created, second.created, first.saga_id != second.saga_id) == (True, True, True)


async def test_a_word_that_says_nothing_of_conflicts_is_refused(on_sqlite: Site, world: World) -> None:
    """Before anything is written."""
    orchestrator = on_sqlite.joins(trip(world))
    with pytest.raises(SagaStateError, match="on_conflict is 'refuse' or 'first'; got 'last'"):
        await orchestrator.start(**ORDER, on_conflict="last")


async def test_starts_under_one_key_at_once_are_one_start(database: Site, world: World) -> None:
    """However many processes start under one key at once, all are given one id, and the steps run once."""
    everywhere = [database.joins(trip(world)) for _ in range(3)]

    ids = await soon(asyncio.gather(*(o.start(**ORDER, idempotency_key="key") for o in everywhere * 2)))

    assert len(set(ids)) == 1
    assert await status_of(everywhere[0], ids[0]) is SagaStatus.COMPLETED
    assert world.calls == ALL_THREE


async def test_a_key_in_a_transaction_answers_with_the_first_start(database: Site, world: World) -> None:
    """A repeated start that joins a transaction writes nothing, wakes nobody, and is given the first one's id."""
    orchestrator = database.joins(trip(world))
    first = await orchestrator.start(**ORDER, idempotency_key="key")
    async with database.sessions() as session, session.begin():
        second = await orchestrator.start(session=session, **ORDER, idempotency_key="key")

    assert second == first
    assert world.calls == ALL_THREE


async def test_starts_on_one_aggregate_at_once_give_exactly_one(database: Site, world: World) -> None:
    """Of many starts for one aggregate one drives its saga, and the others are told which one that is."""
    everywhere = [database.joins(trip(world)) for _ in range(3)]
    gate = world.gate("car")

    starts = [asyncio.create_task(o.start(**ORDER)) for o in everywhere * 2]
    await gate.wait_reached()
    refused = [task for task in starts if task is not await _last(starts)]
    gate.open()
    answers = await soon(asyncio.gather(*starts, return_exceptions=True))

    [saga_id] = [answer for answer in answers if isinstance(answer, UUID)]
    errors = [answer for answer in answers if isinstance(answer, ActiveSagaAlreadyExistsError)]
    assert len(errors) == len(refused) == 5
    assert {error.saga_id for error in errors} == {saga_id}
    assert world.calls == ALL_THREE


async def _last(tasks: list[asyncio.Task[UUID]]) -> asyncio.Task[UUID]:
    """Wait until all but one are done, and return that one."""
    pending = set(tasks)
    while len(pending) > 1:
        _, pending = await soon(asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED))
    return pending.pop()


async def test_a_rival_that_ends_meanwhile_does_not_refuse_a_start(database: Site, world: World) -> None:
    """A start that met an active saga, which is over by the time its name is asked for, is tried again."""
    meddling = database.meddling_store()
    first, second = database.joins(trip(world)), database.joins(trip(world), store=meddling)
    gate = world.gate("car")
    running = asyncio.create_task(first.start(**ORDER))
    await gate.wait_reached()

    async def ask_late(rival: Any, *args: Any) -> Any:
        gate.open()
        await soon(running)
        return await rival(*args)

    meddling.around["rival"] = ask_late

    saga_id = await soon(second.start(**ORDER))

    assert saga_id != running.result()
    assert world.calls == ALL_THREE * 2


async def test_a_cancelled_caller_does_its_saga_no_harm(database: Site, world: World) -> None:
    """Who stops waiting for a start leaves the saga running to its end."""
    orchestrator = database.joins(trip(world))
    gate = world.gate("flight")
    caller = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()

    caller.cancel()
    await soon(asyncio.wait([caller]))
    gate.open()

    assert caller.cancelled()
    assert await status_of(orchestrator, world.contexts[0].saga_id) is SagaStatus.COMPLETED
    assert world.calls == ALL_THREE


async def test_a_caller_cancelled_before_the_saga_is_durable_does_no_harm(database: Site, world: World) -> None:
    """Cancelled while its saga is being written, a caller leaves it either unborn or running: here, running."""
    meddling = database.meddling_store()
    orchestrator = database.joins(trip(world), store=meddling)
    gate = world.gate("write")

    async def hold(write: Any, batch: Any) -> Any:
        if not gate.opened.is_set():
            await gate()
        return await write(batch)

    meddling.around["write"] = hold
    caller = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()

    caller.cancel()
    await soon(asyncio.wait([caller]))
    gate.open()

    await until(lambda: len(world.calls) == 3)
    assert await status_of(orchestrator, world.contexts[0].saga_id) is SagaStatus.COMPLETED


async def test_an_engine_that_is_closed_while_a_saga_is_born_hands_it_back(database: Site, world: World) -> None:
    """`aclose` during a start: the newborn is durable, no step of it runs here, and another process takes it."""
    meddling = database.meddling_store()
    closing, heir = database.joins(trip(World()), store=meddling), database.joins(trip(world))
    gate = world.gate("write")

    async def hold(write: Any, batch: Any) -> Any:
        if not gate.opened.is_set():
            await gate()
        return await write(batch)

    meddling.around["write"] = hold
    starting = asyncio.create_task(closing.start(**ORDER))
    await gate.wait_reached()
    ending = asyncio.create_task(closing.aclose())
    await asyncio.sleep(0)
    gate.open()
    saga_id, _ = await soon(asyncio.gather(starting, ending))

    assert await soon(heir.run_due()) == 1

    assert await status_of(heir, saga_id) is SagaStatus.COMPLETED
    assert world.calls == ALL_THREE
    with pytest.raises(SagaStateError, match="closed"):
        await closing.start(**ORDER)


async def test_one_connection_is_enough(on_postgres: Site, world: World) -> None:
    """A pool of a single connection is slow, but nobody waits for himself."""
    narrow = on_postgres.another_engine(pool_size=1, max_overflow=0, pool_timeout=10)
    orchestrator = SagaOrchestrator[TripSaga](model_class=TripSaga, session_maker=async_sessionmaker(narrow))
    orchestrator.register(NAME, trip(world))
    async with orchestrator:
        starts = [orchestrator.start(**{**ORDER, "aggregation_id": f"order-{number}"}) for number in range(5)]
        ids = await soon(asyncio.gather(*starts))

        assert [await status_of(orchestrator, saga_id) for saga_id in ids] == [SagaStatus.COMPLETED] * 5
