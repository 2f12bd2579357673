"""Sagas that are over are deleted when they are old enough, and when nobody can need them any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from saga_orchestrator import (
    Event,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaNotFoundError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    SignalResult,
    StepContext,
    WaitFor,
)
from saga_orchestrator.testing import MemoryStore
from tests.support import logs
from tests.support.sagas import NAME, Deed, Input, Output, Site, TripSaga, World, soon, trip

HALF_AN_HOUR = timedelta(minutes=30)
TABLES = ("trip_saga", "trip_saga_history", "trip_saga_inbox", "trip_saga_route")
FAILED = PermanentError("no lorry")
CHILD = "hop"
Orchestrator = SagaOrchestrator[TripSaga]


def journey(world: World, *names: str, **settings: Any) -> SagaDefinition:
    """Return a saga of these steps, with settings of its own."""
    builder = SagaBuilder(**settings)
    for name in names or ("flight", "ship"):
        builder.add_step(step=Deed(world, name), input_map=lambda _: Input(), step_id=name)
    return builder.build()


def admin_of(orchestrator: Orchestrator) -> SagaAdmin[TripSaga]:
    return SagaAdmin[TripSaga](engine=orchestrator.engine)


async def started(orchestrator: Orchestrator, name: str = "order-1", **said: Any) -> UUID:
    given = {"saga_name": NAME, "initial_data": {}, "aggregation_id": name}
    saga_id: UUID = await soon(orchestrator.start(**given | said))
    return saga_id


async def come_to(orchestrator: Orchestrator, saga_id: UUID) -> SagaStatus:
    status: SagaStatus = (await soon(orchestrator.result(saga_id))).status
    return status


async def an_hour_later(site: Site) -> None:
    """Let every saga that has ended have ended an hour ago."""
    await site.sql(f"UPDATE trip_saga SET finished_at = {site.ago} WHERE finished_at IS NOT NULL")


async def is_there(orchestrator: Orchestrator, saga_id: UUID) -> bool:
    return await orchestrator.engine.store.head(saga_id) is not None


async def counts(site: Site) -> list[int]:
    """Return how many rows there are of sagas, and of all that is theirs."""
    return [await site.value(f"SELECT count(*) FROM {table}") for table in TABLES]


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the library logs."""
    with logs.logged("INFO") as lines:
        yield lines


async def test_m18_what_has_ended_well_is_deleted_and_what_has_failed_is_kept(database: Site, world: World) -> None:
    """With all its rows; a FAILED saga stays for inspection until somebody asks for it by its status."""
    orchestrator = database.joins(trip(world))
    orchestrator.register("left", journey(world, compensate_on_failure=False))
    world.plan("car", FAILED)
    undone = await started(orchestrator)
    completed = await started(orchestrator)
    world.plan("ship", FAILED)
    failed = await started(orchestrator, saga_name="left")
    assert [await come_to(orchestrator, each) for each in (undone, completed, failed)] == [
        SagaStatus.COMPENSATED,
        SagaStatus.COMPLETED,
        SagaStatus.FAILED,
    ]
    admin = admin_of(orchestrator)
    assert await admin.purge(older_than=HALF_AN_HOUR) == 0
    await an_hour_later(database)

    assert await admin.purge(older_than=HALF_AN_HOUR, limit=1) == 1
    assert [await is_there(orchestrator, each) for each in (undone, completed)] == [False, True]
    assert await admin.purge(older_than=HALF_AN_HOUR) == 1

    assert await admin.dirty_sagas() == [failed]
    assert len((await admin.get_saga(failed)).step_history) == len(("flight", "ship"))
    assert await admin.purge(older_than=HALF_AN_HOUR, statuses=SagaStatus.FAILED) == 1
    assert await counts(database) == [0, 0, 0, 0]


async def test_m18_an_active_saga_is_never_deleted(database: Site, world: World) -> None:
    """Nor can its status be asked for, however long it has stood still."""
    builder = SagaBuilder()
    builder.add_event("reply", correlation=lambda _: "r-1", step_id="ask")
    orchestrator = database.joins(builder.build())
    waiting = await started(orchestrator)
    await database.edit(waiting, finished_at=f"={database.ago}", updated_at=f"={database.ago}")
    admin = admin_of(orchestrator)

    over = [status for status in SagaStatus if status.is_terminal]
    assert await admin.purge(older_than=timedelta(0), statuses=over, unregistered=True) == 0

    assert await orchestrator.signal("reply", correlation_id="r-1") is SignalResult.APPLIED
    assert await come_to(orchestrator, waiting) is SagaStatus.COMPLETED
    for status in SagaStatus:
        if not status.is_terminal:
            with pytest.raises(SagaStateError, match=f"{status.value} is active"):
                await admin.purge(older_than=timedelta(0), statuses=[*over, status])
    await an_hour_later(database)
    assert await admin.purge(older_than=HALF_AN_HOUR) == 1
    assert await counts(database) == [0, 0, 0, 0]


async def test_m18_a_saga_that_can_still_be_undone_is_kept(database: Site, world: World) -> None:
    """As long as its definition says, however soon it might go otherwise; and then it is undone as ever."""
    orchestrator = database.joins(journey(world, undo_window=timedelta(hours=2)))
    orchestrator.register("brief", journey(world, undo_window=timedelta(minutes=45)))
    kept, gone = await started(orchestrator), await started(orchestrator, saga_name="brief")
    await an_hour_later(database)
    admin = admin_of(orchestrator)

    assert await admin.purge(older_than=HALF_AN_HOUR) == 1

    assert not await is_there(orchestrator, gone)
    await admin.compensate_step(kept)
    assert await come_to(orchestrator, kept) is SagaStatus.COMPENSATED


async def test_m18_a_saga_whose_definition_nobody_here_knows_is_kept(database: Site, world: World) -> None:
    """It may be one that can still be undone elsewhere; who vouches that it is none may delete it."""
    saga_id = await started(database.joins(journey(world)))
    await an_hour_later(database)
    stranger = database.joins(None)

    assert await admin_of(stranger).purge(older_than=HALF_AN_HOUR) == 0
    assert await is_there(stranger, saga_id)

    assert await admin_of(stranger).purge(older_than=HALF_AN_HOUR, unregistered=True) == 1


async def test_m18_a_saga_whose_hook_is_still_to_be_called_is_kept(database: Site, world: World) -> None:
    """Somebody is to be told of it, and has not been."""
    told: list[UUID] = []

    def tell(saga_id: UUID, _: object) -> None:
        told.append(saga_id)
        if len(told) == 1:
            raise ConnectionError("nobody answers")

    orchestrator = database.joins(journey(world, on_failure="ALERT_HUMAN", alert_human=tell))
    world.plan("ship", FAILED)
    saga_id = await started(orchestrator)
    assert await come_to(orchestrator, saga_id) is SagaStatus.FAILED
    await an_hour_later(database)
    admin = admin_of(orchestrator)
    assert await admin.purge(older_than=HALF_AN_HOUR, statuses=SagaStatus.FAILED) == 0

    await database.make_due(saga_id)
    await soon(orchestrator.run_due())

    assert told == [saga_id, saga_id]
    await an_hour_later(database)
    assert await admin.purge(older_than=HALF_AN_HOUR, statuses=SagaStatus.FAILED) == 1


async def test_m18_a_child_is_kept_while_its_parent_may_need_it(database: Site, world: World) -> None:
    """A parent that is undone finds its child, and undoes it; afterwards it goes first, and its child after it."""
    builder = SagaBuilder()
    builder.add_child(CHILD, input_map=lambda _: {}, step_id=CHILD)
    builder.add_event("go", step_id="go")
    builder.add_step(step=Deed(world, "ship"), input_map=lambda _: Input(), step_id="ship")
    orchestrator = database.joins(builder.build())
    orchestrator.register(CHILD, journey(world, "flight"))
    world.plan("ship", FAILED)
    parent = await started(orchestrator)
    async for seen in orchestrator.watch(parent):
        if seen.awaiting == "event:go":
            break
    await an_hour_later(database)
    admin = admin_of(orchestrator)
    assert await admin.purge(older_than=HALF_AN_HOUR) == 0

    await orchestrator.signal("go", saga_id=parent)

    assert await come_to(orchestrator, parent) is SagaStatus.COMPENSATED
    assert world.calls == ["flight", "ship", "undo flight"]
    await an_hour_later(database)
    assert await admin.purge(older_than=HALF_AN_HOUR) == 1
    assert not await is_there(orchestrator, parent)
    assert await admin.purge(older_than=HALF_AN_HOUR) == 1
    assert await admin.purge(older_than=HALF_AN_HOUR) == 0
    assert await counts(database) == [0, 0, 0, 0]


async def test_m18_what_is_gone_has_never_been(database: Site, world: World) -> None:
    """Its key starts another saga, nobody is found by its id, and an event that is sent again is news."""
    orchestrator = database.joins(journey(world))
    first = await started(orchestrator, idempotency_key="k-1")
    assert await started(orchestrator, idempotency_key="k-1") == first
    assert await orchestrator.signal("late", saga_id=first, event_id="e-1") is SignalResult.STALE
    await an_hour_later(database)

    assert await admin_of(orchestrator).purge(older_than=HALF_AN_HOUR) == 1

    with pytest.raises(SagaNotFoundError):
        await orchestrator.get_snapshot(first)
    assert await orchestrator.signal("late", saga_id=first, event_id="e-1") is SignalResult.UNMATCHED
    assert await started(orchestrator, idempotency_key="k-1") != first
    assert world.calls == ["flight", "ship"] * 2


@pytest.mark.parametrize("address", ["saga_id", "correlation_id"])
async def test_a_signal_whose_saga_goes_meanwhile_is_answered(
    database: Site, world: World, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """It had been found when the signal looked whom it was for; that it is gone by then is no error."""
    builder = SagaBuilder()
    builder.add_event("reply", correlation=lambda _: "r-1", step_id="ask")
    orchestrator = database.joins(builder.build())
    saga_id = await started(orchestrator)
    await orchestrator.signal("reply", correlation_id="r-1")
    assert await come_to(orchestrator, saga_id) is SagaStatus.COMPLETED
    await an_hour_later(database)
    inbox, looked = orchestrator.engine.store.inbox, []
    addressees = inbox.addressees

    async def and_then_it_goes(to: str) -> list[UUID]:
        looked.append(await addressees(to))
        if len(looked) == (2 if address == "saga_id" else 1):  # a saga that is named is looked for twice
            await admin_of(orchestrator).purge(older_than=HALF_AN_HOUR)
        return looked[-1]

    monkeypatch.setattr(inbox, "addressees", and_then_it_goes)
    whom: dict[str, Any] = {"saga_id": saga_id} if address == "saga_id" else {"correlation_id": "r-1"}

    answer = await orchestrator.signal("reply", **whom)

    assert looked[-1] == [saga_id]
    assert not await is_there(orchestrator, saga_id)
    assert answer is (SignalResult.UNMATCHED if address == "saga_id" else SignalResult.BUFFERED)
    following = await started(orchestrator)
    taken = "event:reply" if address == "saga_id" else None
    assert (await orchestrator.get_snapshot(following)).awaiting == taken


async def test_rows_of_the_application_can_forbid_it(on_postgres: Site, world: World) -> None:
    """By their foreign key: then the database says so, and everything is still there."""
    orchestrator = on_postgres.joins(journey(world))
    saga_id = await started(orchestrator)
    await started(orchestrator, "order-2")
    await an_hour_later(on_postgres)
    await on_postgres.sql("CREATE TABLE note (saga_id UUID REFERENCES trip_saga (id))")
    await on_postgres.sql("INSERT INTO note VALUES (:id)", id=saga_id)
    before = await counts(on_postgres)

    with pytest.raises(IntegrityError, match="note"):
        await admin_of(orchestrator).purge(older_than=HALF_AN_HOUR)
    assert await counts(on_postgres) == before

    await on_postgres.sql("DROP TABLE note")
    assert await admin_of(orchestrator).purge(older_than=HALF_AN_HOUR) == len(("order-1", "order-2"))


async def test_who_has_deleted_what_is_logged(database: Site, world: World, logged: list[str]) -> None:
    """There is no history left that could tell; and where nothing was deleted there is nothing to tell."""
    orchestrator = database.joins(journey(world))
    await started(orchestrator)
    await an_hour_later(database)

    for _ in range(2):
        await admin_of(orchestrator).purge(older_than=HALF_AN_HOUR, actor="ann", reason="ticket 12")

    assert [line.strip() for line in logged] == ["ann has deleted 1 sagas older than 0:30:00: ticket 12"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"older_than": timedelta(seconds=-1)}, "older_than is .* a timedelta of 0 or more"),
        ({"limit": 0}, "limit is 0; give it a whole number: 1 to 1000"),
        ({"limit": 1001}, "limit is 1001; give it a whole number: 1 to 1000"),
        ({"statuses": ["OVER"]}, "the statuses are"),
        ({"actor": ""}, "actor has 1 to 255 characters"),
        ({"reason": 7}, "reason is a text"),
    ],
)
async def test_what_cannot_be_meant_is_refused(said: dict[str, Any], message: str) -> None:
    """Before anything is looked for."""
    async with SagaOrchestrator[TripSaga](store=MemoryStore()) as orchestrator:
        with pytest.raises(SagaStateError, match=message):
            await admin_of(orchestrator).purge(**{"older_than": HALF_AN_HOUR} | said)


class Asks(Deed):
    async def execute(self, inp: Input, ctx: StepContext) -> Output | WaitFor:  # type: ignore[override]
        return WaitFor("paid", correlation_id="order-1")

    async def on_event(self, inp: Input, event: Event[Any], ctx: StepContext) -> Output:
        return Output(ref="paid")


@pytest.mark.parametrize("door", ["route", "deliver"])
async def test_a_saga_that_is_deleted_under_its_owner_is_no_defect_of_the_engine(
    database: Site, world: World, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was aborted beside its owner, who looks for events meanwhile, and purged before the owner has heard of it."""
    builder = SagaBuilder()
    builder.add_step(step=Asks(world, "ask"), input_map=lambda _: Input(), step_id="ask")
    owner, other = (database.joins(builder.build()) for _ in range(2))
    inbox: Any = owner.engine.store.inbox
    right = getattr(inbox, door)

    async def too_late(saga_id: UUID, *arguments: Any, **options: Any) -> Any:
        await admin_of(other).abort(saga_id)
        await database.sql("DELETE FROM trip_saga")
        return await right(saga_id, *arguments, **options)

    monkeypatch.setattr(inbox, door, too_late)
    with logs.logged("WARNING") as lines:
        await started(owner)
        await soon(owner.aclose())

    assert [line for line in lines if "failed by itself" in line] == []
    assert (await admin_of(other).list_sagas()).items == []
