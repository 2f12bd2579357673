"""`run_due`: what one saga's row says, however odd, stops none of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from saga_orchestrator import FixedRetry, PermanentError, SagaAdmin, SagaOrchestrator, SagaStateError, SagaStatus
from saga_orchestrator.runtime.birth import Beginning, unborn
from tests.support.sagas import NAME, Site, TripSaga, World, soon, trip

PATIENT = {"hotel": {"retry_policy": FixedRetry(max_attempts=3, delay=timedelta(hours=1))}}


async def put_due(site: Site, world: World, *, name: str = NAME, **options: Any) -> UUID:
    """Leave a saga that nobody has begun, as a process that vanished right after its commit would."""
    definition = options.pop("definition", None) or trip(world)
    absent = site.joins(definition)
    await absent.engine.ready()
    wanted = Beginning(
        saga_name=name,
        definition=definition,
        initial='{"number":7}',
        aggregation_id=str(options.pop("aggregation_id", id(options))),
        trace_id="t",
        **options,
    )
    birth = unborn(wanted, absent.engine.now())
    await absent.engine.store.write([birth])
    return birth.head.id


async def others(site: Site, world: World) -> list[UUID]:
    """Leave two healthy sagas beside the odd one: one due for longer, one for less long."""
    ids = [await put_due(site, world, aggregation_id=f"healthy-{number}") for number in range(2)]
    await site.make_due(ids[0])
    return ids


async def assert_done(orchestrator: SagaOrchestrator[TripSaga], ids: list[UUID]) -> None:
    statuses = [(await orchestrator.get_snapshot(saga_id)).status for saga_id in ids]
    assert statuses == [SagaStatus.COMPLETED] * len(ids)


async def row_of(site: Site, saga_id: UUID) -> Any:
    columns = "status, deadline_at, awaiting, revision, last_error, lease_owner, updated_at"
    [row] = await site.sql(f"SELECT {columns} FROM trip_saga WHERE id = :id", id=site.key(saga_id))
    return row


async def test_c_a_saga_of_an_unknown_name_is_left_to_those_who_know_it(database: Site, world: World) -> None:
    """Its row is not touched at all, the others are driven, and the process that knows it drives it."""
    foreign = await put_due(database, world, name="cruise", aggregation_id="odd")
    healthy = await others(database, world)
    before = await row_of(database, foreign)
    worker = database.joins(trip(world))

    assert await soon(worker.run_due()) == 2

    await assert_done(worker, healthy)
    assert await row_of(database, foreign) == before
    worker.register("cruise", trip(world))
    assert await soon(worker.run_due()) == 1
    await assert_done(worker, [foreign])


async def test_a_saga_of_a_newer_version_is_left_to_newer_processes(database: Site, world: World) -> None:
    """In a rolling deploy the old process leaves the new version's sagas as they are."""
    newer = trip(world, version=2)
    foreign = await put_due(database, world, definition=newer, aggregation_id="odd")
    healthy = await others(database, world)
    before = await row_of(database, foreign)
    old = database.joins(trip(world))

    assert await soon(old.run_due()) == 2

    await assert_done(old, healthy)
    assert await row_of(database, foreign) == before
    assert await soon(database.joins(newer).run_due()) == 1
    await assert_done(old, [foreign])


async def test_a_saga_whose_definition_was_changed_is_deferred(database: Site, world: World) -> None:
    """Under the same version but with other steps it is put off, with a word why; the right definition finishes it."""
    odd = await put_due(database, world, definition=trip(world, "flight", "hotel"), aggregation_id="odd")
    healthy = await others(database, world)
    changed = database.joins(trip(world))

    await soon(changed.run_due())

    await assert_done(changed, healthy)
    deferred = await changed.get_snapshot(odd)
    assert deferred.status is SagaStatus.RUNNING
    assert deferred.last_error is not None
    assert deferred.last_error.startswith("deferred: version 1 of 'trip' has other steps")
    assert await soon(changed.run_due()) == 0
    await database.make_due(odd)
    right = database.joins(trip(world, "flight", "hotel"))
    assert await soon(right.run_due()) == 1
    result = await soon(right.result(odd))
    assert (result.status, result.error) == (SagaStatus.COMPLETED, None)


async def test_a_deferral_does_not_replace_the_business_error(database: Site, world: World) -> None:
    """A saga that is being undone, and is put off on the way, still ends with the error that turned it."""
    undo = {"hotel": {"compensation_retry": FixedRetry(max_attempts=3, delay=timedelta(hours=1))}}
    orchestrator = database.joins(trip(world, **undo))
    world.plan("car", PermanentError("no car"))
    world.plan("undo hotel", ValueError("no answer"))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="order-1")
    await database.make_due(saga_id)
    await soon(database.joins(trip(world, "flight", "hotel")).run_due())
    await database.make_due(saga_id)

    await soon(SagaAdmin[TripSaga](engine=orchestrator.engine).compensate_step(saga_id))

    result = await soon(orchestrator.result(saga_id))
    assert (result.status, result.error) == (SagaStatus.COMPENSATED, "PermanentError('no car')")


async def test_a_state_document_of_a_newer_library_is_deferred(database: Site, world: World) -> None:
    """A process of a newer release can read it: this one puts it off, and leaves the document as it is."""
    odd, healthy = await put_due(database, world, aggregation_id="odd"), await others(database, world)
    await database.edit(odd, state='{"v":99,"new":true}')
    worker = database.joins(trip(world))

    await soon(worker.run_due())

    await assert_done(worker, healthy)
    snapshot = await worker.get_snapshot(odd)
    assert snapshot.status is SagaStatus.RUNNING
    assert snapshot.last_error is not None
    assert snapshot.last_error.startswith("deferred: state document of version 99")
    head = await worker.engine.store.head(odd)
    assert head is not None
    assert '"new"' in head.state


NONSENSE: Mapping[str, Mapping[str, Any]] = {
    "no state": {"state": "{}"},
    "a list for a state": {"state": "[]"},
    "null for a state": {"state": "null"},
    "a step that is not there": {"state": '{"v":1,"c":"F","n":0,"d":"cruise","s":{}}'},
    "a status that is not there": {"state": '{"v":1,"c":"F","n":0,"s":{"flight":"Z"}}'},
    "an effect before its cause": {"state": '{"v":1,"c":"F","n":0,"s":{"car":"R"}}'},
    "a context without initial data": {"context": "{}"},
    "a list for a context": {"context": "[]"},
}
RAW_NONSENSE: Mapping[str, Mapping[str, Any]] = {
    "a state that is no JSON": {"state": "not json"},
    "a context that is no JSON": {"context": "not json"},
    "a number for a time": {"deadline_at": 0},
    "a word for a time": {"deadline_at": "0 o'clock"},
    "a word for a time long past": {"created_at": "long ago"},
    "a word for a revision": {"revision": "many"},
    "a word for a token": {"step_execution_token": "many"},
}


@pytest.mark.parametrize("edit", NONSENSE.values(), ids=NONSENSE)
async def test_a_row_edited_into_nonsense_is_quarantined(database: Site, world: World, edit: Mapping[str, Any]) -> None:
    """That saga is STUCK and says why; a person can look at it; the others are driven as if it were not there."""
    odd, healthy = await put_due(database, world, aggregation_id="odd"), await others(database, world)
    await database.edit(odd, **edit)
    worker = database.joins(trip(world))

    await soon(worker.run_due())

    await assert_done(worker, healthy)
    saga = await SagaAdmin[TripSaga](engine=worker.engine).get_saga(odd)
    assert (saga.status, saga.awaiting, saga.deadline_at) == (SagaStatus.STUCK, "operator", None)
    assert saga.last_error is not None
    assert saga.last_error.startswith("quarantined: ")
    assert await soon(worker.run_due()) == 0


@pytest.mark.parametrize("edit", RAW_NONSENSE.values(), ids=RAW_NONSENSE)
async def test_nonsense_that_only_sqlite_stores_is_quarantined_too(
    on_sqlite: Site, world: World, edit: Mapping[str, Any]
) -> None:
    """SQLite takes a word for a time; whatever the row says, it stops none of the others."""
    odd, healthy = await put_due(on_sqlite, world, aggregation_id="odd"), await others(on_sqlite, world)
    await on_sqlite.edit(odd, **edit)
    worker = on_sqlite.joins(trip(world))

    await soon(worker.run_due())

    await assert_done(worker, healthy)
    row = await on_sqlite.sql("SELECT status, awaiting, last_error FROM trip_saga WHERE id = :id", id=odd.hex)
    assert row[0][:2] == ("STUCK", "operator")
    assert row[0][2].startswith("quarantined: ")
    assert await soon(worker.run_due()) == 0


async def test_a_history_that_cannot_be_read_stops_only_its_own_saga(on_sqlite: Site, world: World) -> None:
    """Histories are read together; one with nonsense in it fails alone, and is no mark against the others."""
    leaving, heir = on_sqlite.joins(trip(world)), on_sqlite.joins(trip(world))
    gates = [world.gate("hotel") for _ in range(3)]
    starts = [
        asyncio.create_task(leaving.start(saga_name=NAME, initial_data={}, aggregation_id=f"order-{number}"))
        for number in range(3)
    ]
    for gate in gates:
        await gate.wait_reached()
    await soon(leaving.aclose())
    ids = [await start for start in starts]
    odd = on_sqlite.key(ids[1])
    await on_sqlite.sql("UPDATE trip_saga_history SET timestamp = 'long ago' WHERE saga_id = :odd", odd=odd)

    assert await soon(heir.run_due()) == 3

    await assert_done(heir, [ids[0], ids[2]])
    assert (await heir.get_snapshot(ids[1])).status is SagaStatus.RUNNING
    assert world.calls.count("car") == 2


async def test_a_state_that_does_not_fit_its_history_is_quarantined(database: Site, world: World) -> None:
    """A state set back by hand, whose next history row is there already, stops neither the claim nor the others."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    odd = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="odd")
    healthy = [await put_due(database, world, definition=trip(world, **PATIENT), aggregation_id="healthy")]
    await database.edit(odd, state='{"v":1,"c":"F","n":0,"s":{"flight":"R"}}', lease_owner="gone")
    await database.make_due(odd)

    assert await soon(orchestrator.run_due()) == 1

    await assert_done(orchestrator, healthy)
    snapshot = await orchestrator.get_snapshot(odd)
    assert snapshot.status is SagaStatus.STUCK
    assert snapshot.last_error is not None
    assert snapshot.last_error.startswith("quarantined: ")


async def test_a_commit_that_does_not_fit_its_history_fails_alone(database: Site, world: World) -> None:
    """Of two sagas in one batch, the one whose history was tampered with meanwhile fails; the other is written."""
    meddling = database.meddling_store()
    orchestrator = database.joins(trip(world), store=meddling)
    first, second = world.gate("flight"), world.gate("flight")
    runs = [
        asyncio.create_task(orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id=f"order-{number}"))
        for number in range(2)
    ]
    await first.wait_reached()
    await second.wait_reached()
    odd = world.contexts[0].saga_id
    columns = "saga_id, seq, timestamp, phase, status, step_id, step_name, attempt"
    values = "id, 0, created_at, 'EXECUTE', 'SUCCESS', 'x', 'X', 1 FROM trip_saga WHERE id = :id"
    await database.sql(f"INSERT INTO trip_saga_history ({columns}) SELECT {values}", id=database.key(odd))
    batches: list[int] = []

    async def count(write: Any, batch: Any) -> Any:
        batches.append(len(batch))
        return await write(batch)

    meddling.around["write"] = count
    first.open()
    second.open()
    ids = await soon(asyncio.gather(*runs))

    assert batches[0] == 2
    [healthy] = [saga_id for saga_id in ids if saga_id != odd]
    await assert_done(orchestrator, [healthy])
    await database.make_due(odd)
    assert await soon(orchestrator.run_due()) == 0
    assert (await orchestrator.get_snapshot(odd)).status is SagaStatus.STUCK


async def test_a_row_edited_only_in_its_timer_is_put_back(database: Site, world: World) -> None:
    """Claimed before its time, a saga that waits finds nothing that is due, and waits on as before."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="order-1")
    before = await orchestrator.get_snapshot(saga_id)
    await database.make_due(saga_id)

    await soon(orchestrator.run_due())

    after = await orchestrator.get_snapshot(saga_id)
    assert (after.status, after.awaiting, after.deadline_at) == (before.status, "retry", before.deadline_at)
    assert world.calls == ["flight", "hotel"]
    assert await soon(orchestrator.run_due()) == 0


async def test_a_saga_that_is_over_can_be_made_due_without_harm(database: Site, world: World) -> None:
    """A terminal row with a timer by mistake is looked at once, and rests again."""
    orchestrator = database.joins(trip(world))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="order-1")
    await database.make_due(saga_id)

    await soon(orchestrator.run_due())

    after = await orchestrator.get_snapshot(saga_id)
    assert (after.status, after.deadline_at) == (SagaStatus.COMPLETED, None)
    assert world.calls == ["flight", "hotel", "car"]


async def test_a_stuck_saga_can_be_made_due_without_harm(database: Site, world: World) -> None:
    """A saga that waits for a person goes on waiting for him, whatever its timer says."""
    orchestrator = database.joins(trip(world))
    world.plan("car", PermanentError("no car"))
    world.plan("undo hotel", ValueError("no answer"))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="order-1")
    calls = list(world.calls)
    await database.make_due(saga_id)

    await soon(orchestrator.run_due())

    after = await orchestrator.get_snapshot(saga_id)
    assert (after.status, after.awaiting, after.deadline_at) == (SagaStatus.STUCK, "operator", None)
    assert world.calls == calls


async def test_a_retry_whose_time_has_come_is_made(database: Site, world: World) -> None:
    """A saga suspended for a retry goes on when its timer, and not only its row, says so."""
    policy = {"hotel": {"retry_policy": FixedRetry(max_attempts=3, delay=timedelta(milliseconds=1))}}
    orchestrator = database.joins(trip(world, **policy))
    world.plan("hotel", ValueError("full"), ValueError("still full"))
    saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="order-1")

    while (await orchestrator.get_snapshot(saga_id)).status is not SagaStatus.COMPLETED:
        await soon(orchestrator.run_due())

    assert [ctx.attempt for ctx in world.contexts if ctx.step_id == "hotel"] == [1, 2, 3]


async def test_no_more_are_taken_than_asked_for_and_the_urgent_first(database: Site, world: World) -> None:
    """`limit` is kept, priority goes before age, and what is left is taken the next time."""
    for number in range(4):
        await put_due(database, world, aggregation_id=str(number), priority=number)
    worker = database.joins(trip(world))

    assert await soon(worker.run_due(limit=3)) == 3
    assert {ctx.aggregation_id for ctx in world.contexts} == {"3", "2", "1"}
    assert await soon(worker.run_due(limit=3)) == 1
    assert await soon(worker.run_due(limit=3)) == 0


async def test_workers_at_once_never_share_a_saga(database: Site, world: World) -> None:
    """However many processes look at once, every step runs once."""
    ids = [await put_due(database, world, aggregation_id=str(number)) for number in range(12)]
    workers = [database.joins(trip(world)) for _ in range(4)]

    claimed = 0
    while claimed < len(ids):
        claimed += sum(await soon(asyncio.gather(*(worker.run_due(limit=4) for worker in workers))))

    assert claimed == len(ids)
    assert sorted(world.calls) == sorted(["flight", "hotel", "car"] * len(ids))
    await assert_done(workers[0], ids)


async def test_resume_looks_at_one_saga(database: Site, world: World) -> None:
    """It drives a saga that is due, and leaves one that is not, and all the others, alone."""
    first, second = [await put_due(database, world, aggregation_id=str(number)) for number in range(2)]
    worker = database.joins(trip(world))

    await soon(worker.resume(first))
    await soon(worker.resume(first))

    await assert_done(worker, [first])
    assert (await worker.get_snapshot(second)).revision == 0
    assert world.calls == ["flight", "hotel", "car"]


@pytest.mark.parametrize("order", ["retry_step", "skip_step", "compensate_step", "cancel", "abort"])
async def test_a_saga_that_makes_no_sense_answers_no_order(on_sqlite: Site, world: World, order: str) -> None:
    """An order to a quarantined saga whose state cannot be read is refused with what is wrong with it."""
    odd = await put_due(on_sqlite, world, aggregation_id="odd")
    await on_sqlite.edit(odd, state='{"v":1}')
    worker = on_sqlite.joins(trip(world))
    await soon(worker.run_due())

    with pytest.raises(SagaStateError, match="unreadable state document"):
        await getattr(SagaAdmin[TripSaga](engine=worker.engine), order)(odd)
